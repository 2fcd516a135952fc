"""Speech on plain arrays: pitch, loudness, speaking rate and pauses.

Axes: T samples, F frames, L lags. Frames are those of `mersuite.signal.mel`: 100 a second. Sound is (T,) float32 in
-1..1, and 0 dB is a mean square of 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal

from mersuite.signal.mel import (
    BLOCK_FRAMES,
    FLOOR_DB,
    FRAME_RATE_HZ,
    decibels,
    frame_rows,
    hop_samples,
    pad_for_frames,
)

SILENCE_DB = -65.0
"""What is less loud is silence, whatever the rest of the sound is."""
DIP = 0.15
"""The first dip of the difference function below this is the period. Source: YIN uses 0.1 to 0.15."""
NEAR_LOWEST = 1.2
"""Where no dip is so low: the first one below so many times the lowest. Why: two periods fit as well as one."""
MAX_APERIODICITY = 0.3
"""A frame is voiced below this: about the share of its power that does not repeat. White noise has 0.8 and more."""
VOICED_RANGE_DB = 40.0
"""A frame that is so far below the loudest one is not voiced."""
MIN_VOICED_FRAMES = 3
LOUDNESS_FRAMES = 3
"""Frames that a loudness is averaged over: 30 ms hold two periods of the deepest voices."""
SPEECH_RANGE_DB = 25.0
"""Speech reaches so far below its loudest frame. Source: de Jong, Wempe 2009, "Praat script to detect syllable nuclei
and measure speech rate automatically"."""
MIN_CONTRAST_DB = 8.0
"""A pause lies at least so far below the loudest frame."""
ABOVE_NOISE_DB = 5.0
"""Speech lies at least so far above the noise, where the two limits above leave room for it."""
MIN_PAUSE_S = 0.15
MIN_PEAK_DB = 3.0
"""Least rise of a syllable's peak above the dips beside it."""
MIN_PEAK_FRAMES = 8
"""Least distance of two syllables' peaks: nobody speaks 12 a second."""

# ---- pitch


class Pitch(NamedTuple):
    """The pitch of each frame.

    Attributes:
        f0_hz: (F,) float64: the best period's frequency, for unvoiced frames too, where it means little.
        voiced: (F,) bool.
        aperiodicity: (F,) float32: value of the normalised difference function at the period; 0 repeats exactly.
    """

    f0_hz: np.ndarray
    voiced: np.ndarray
    aperiodicity: np.ndarray


def pitch(
    sound: np.ndarray, rate_hz: int, *, low_hz: float = 60.0, high_hz: float = 500.0, window_s: float = 0.025
) -> Pitch:
    """Finds the pitch of each frame by YIN, all frames and lags by FFT.

    Tolerance on harmonic sound from 80 to 400 Hz, clean or with white noise 20 dB below it, steady or with a vibrato of
    half a semitone: the mean over voiced frames is within 1 %, and 95 % of the frames are voiced.

    Source: de Cheveigné, Kawahara 2002, "YIN, a fundamental frequency estimator for speech and music": difference
    function (equation 6 and 7), cumulative mean normalisation (equation 8), first dip below a threshold, parabola
    through the difference function. Frames that are voiced alone, fewer than 3 in a row, count as unvoiced.

    Args:
        sound: (T,), see the module.
        rate_hz: Sampling rate.
        low_hz: Lowest pitch.
        high_hz: Highest pitch.
        window_s: Length that is compared with itself one period later; at least one lowest period is taken.

    Raises:
        ValueError: If the pitches do not satisfy 0 < low < high <= rate / 4.
    """
    if not 0 < low_hz < high_hz <= rate_hz / 4:
        raise ValueError(f"need 0 < low_hz < high_hz <= {rate_hz / 4:g}, got low_hz={low_hz:g} and high_hz={high_hz:g}")
    hop, longest = hop_samples(rate_hz), int(rate_hz / low_hz) + 2
    lags = range(int(rate_hz / high_hz), longest - 1)
    width = max(round(window_s * rate_hz), longest)
    samples = sound.astype(np.float32)
    samples -= samples.mean() if len(samples) else 0
    padded = pad_for_frames(samples, hop, width + longest)
    frames = frame_rows(padded, hop, width + longest, len(sound) // hop)
    sums = np.concatenate((np.zeros(1), np.cumsum(padded.astype(np.float64) ** 2)))
    energies = frame_rows(sums[width:] - sums[:-width], hop, longest + 1, len(frames))
    periods = np.empty(len(frames))
    aperiodicity = np.empty(len(frames), np.float32)
    for start in range(0, len(frames), BLOCK_FRAMES):
        part = slice(start, start + BLOCK_FRAMES)
        difference = _difference(frames[part], energies[part], width)
        periods[part], aperiodicity[part] = _period(difference, lags)
    level = decibels(energies[:, 0] / width)
    loud = level > max(SILENCE_DB, float(level.max(initial=FLOOR_DB)) - VOICED_RANGE_DB)
    voiced = _without_short_runs(loud & (aperiodicity < MAX_APERIODICITY), MIN_VOICED_FRAMES)
    return Pitch(rate_hz / periods, voiced, aperiodicity)


def _difference(frames: np.ndarray, energies: np.ndarray, width: int) -> np.ndarray:
    """Gives the squared difference of each frame's first `width` samples and those one lag later: (F, L) float32."""
    num_fft = scipy.fft.next_fast_len(frames.shape[1], real=True)
    first = scipy.fft.rfft(frames[:, :width], num_fft, axis=1)
    np.conjugate(first, out=first)
    first *= scipy.fft.rfft(frames, num_fft, axis=1)
    products = scipy.fft.irfft(first, num_fft, axis=1)[:, : energies.shape[1]]
    return np.maximum(energies[:, :1] + energies - 2 * products, 0).astype(np.float32)


def _period(difference: np.ndarray, lags: range) -> tuple[np.ndarray, np.ndarray]:
    """Gives period in samples, (F,) float64, and normalised difference there, (F,) float32."""
    normal = np.ones_like(difference)
    mean = np.cumsum(difference[:, 1:], axis=1)
    np.divide(difference[:, 1:] * np.arange(1, difference.shape[1]), mean, out=normal[:, 1:], where=mean > 0)
    inner = normal[:, lags.start : lags.stop]
    before, after = normal[:, lags.start - 1 : lags.stop - 1], normal[:, lags.start + 1 : lags.stop + 1]
    limit = np.maximum(inner.min(axis=1, keepdims=True) * NEAR_LOWEST, DIP)
    dips = (inner < limit) & (inner <= before) & (inner < after)
    chosen = np.where(dips.any(axis=1), dips.argmax(axis=1), inner.argmin(axis=1))[:, None]
    lag = chosen + lags.start
    left, middle, right = (np.take_along_axis(difference, lag + step, axis=1)[:, 0] for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = np.divide(left - right, 2 * bend, out=np.zeros_like(bend), where=bend > 0)
    return lag[:, 0] + np.clip(shift, -0.5, 0.5).astype(np.float64), np.take_along_axis(inner, chosen, axis=1)[:, 0]


def _runs(marks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives where runs of True begin and end (first frame after), both (run,)."""
    steps = np.diff(np.concatenate(([False], marks, [False])).astype(np.int8))
    return np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)


def _without_short_runs(marks: np.ndarray, shortest: int) -> np.ndarray:
    starts, ends = _runs(marks)
    kept = ends - starts >= shortest
    steps = np.zeros(len(marks) + 1, int)
    steps[starts[kept]] = 1
    steps[ends[kept]] -= 1
    return np.cumsum(steps[:-1]) > 0


# ---- loudness


_SHELF = ((1.53512485958697, -2.69169618940638, 1.19839281085285), (1.0, -1.69065929318241, 0.73248077421585))
_HIGH_PASS = ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621))
_K_RATE_HZ = 48_000
_K_OFFSET_DB = -0.691
"""Source of all four: ITU-R BS.1770-4, annex 1, tables 1 and 2 and equation 2."""


def k_weighting_db(freqs_hz: np.ndarray) -> np.ndarray:
    """Gives the K-weighting of frequencies above 0 in dB; 0 at 997 Hz.

    It is the gain of the standard's two filters, which are given for 48 kHz, at these frequencies.

    Source: ITU-R BS.1770-4, "Algorithms to measure audio programme loudness and true-peak audio level".

    >>> k_weighting_db(np.array([50.0, 997.0, 8000.0])).round(1).tolist()
    [-4.6, 0.0, 3.3]
    """
    return 20 * np.log10(_k_gain(freqs_hz))


def _k_gain(freqs_hz: np.ndarray) -> np.ndarray:
    delay = np.exp(-2j * np.pi * np.asarray(freqs_hz) / _K_RATE_HZ)
    gain = np.full(delay.shape, 10 ** (_K_OFFSET_DB / 20))
    for above, below in (_SHELF, _HIGH_PASS):
        gain *= np.abs(np.polyval(above[::-1], delay) / np.polyval(below[::-1], delay))
    return gain


def loudness_db(sound: np.ndarray, rate_hz: int) -> np.ndarray:
    """Gives the K-weighted mean square over 30 ms about each frame: (T,) -> (F,) float32, dB, FLOOR_DB or more.

    0 dB is the level of a 997 Hz tone of mean square 1, so the mean power is the standard's loudness (LKFS) without its
    gates. The weighting is one FFT over all sound and shifts no time.

    Tolerance: differences between steady sounds are within 0.5 dB of those of their K-weighted mean squares.

    Why K: it takes off rumble, and leaves the fundamental of deep voices, which an A-weighting lowers by 20 dB and so
    buries in noise.
    """
    hop = hop_samples(rate_hz)
    rows = len(sound) // hop
    num_fft = scipy.fft.next_fast_len(len(sound) + rate_hz // 5, real=True)
    spectrum = scipy.fft.rfft(sound.astype(np.float32, copy=False), num_fft)
    spectrum *= _k_gain(np.fft.rfftfreq(num_fft, 1 / rate_hz)).astype(np.float32)
    weighted = scipy.fft.irfft(spectrum, num_fft)[: rows * hop]
    power = np.square(weighted).reshape(rows, hop).mean(axis=1)
    return decibels(scipy.ndimage.uniform_filter1d(power, LOUDNESS_FRAMES, mode="nearest"))


# ---- speech and pauses


def find_speech(level_db: np.ndarray) -> np.ndarray:
    """Tells which frames are loud enough for speech: (F,) dB of `loudness_db` -> (F,) bool.

    The limit lies 25 dB below the loudest level that lasts 60 ms; where noise (the level that the quietest twentieth
    stays below) reaches up to it, 5 dB above the noise, but 8 dB or more below the loudest level.
    """
    if not len(level_db):
        return np.zeros(0, bool)
    level = scipy.ndimage.median_filter(level_db, 11, mode="nearest")  # a click of up to 20 ms is no speech
    loudest = level.max()
    if loudest <= SILENCE_DB:
        return np.zeros(len(level), bool)
    noise = np.percentile(level, 5)
    limit = np.clip(noise + ABOVE_NOISE_DB, loudest - SPEECH_RANGE_DB, loudest - MIN_CONTRAST_DB)
    return level > max(limit, SILENCE_DB)


class Pauses(NamedTuple):
    """Silent stretches between the first and the last sound.

    Attributes:
        starts_s: (pause,) float64.
        durations_s: (pause,) float64.
    """

    starts_s: np.ndarray
    durations_s: np.ndarray


def find_pauses(is_speech: np.ndarray) -> Pauses:
    """Finds the pauses of 0.15 s and more between frames of speech: (F,) bool of `find_speech`.

    Tolerance on bursts of sound with gaps of 200 ms and more, clean or in white noise 20 dB below: the number is exact,
    the total length within 60 ms. Silence before the first and after the last sound is no pause.

    Why 2 frames are added: a loudness averages 3, so a gap looks that much shorter.
    """
    sounds, ends = _runs(is_speech)
    starts, lengths = ends[:-1], sounds[1:] - ends[:-1] + LOUDNESS_FRAMES - 1
    kept = lengths >= round(MIN_PAUSE_S * FRAME_RATE_HZ)
    return Pauses((starts[kept] - LOUDNESS_FRAMES // 2) / FRAME_RATE_HZ, lengths[kept] / FRAME_RATE_HZ)


def find_syllables(level_db: np.ndarray, is_speech: np.ndarray, voiced: np.ndarray) -> np.ndarray:
    """Finds peaks of loudness among voiced speech, about one a syllable: frames, (syllable,).

    A peak rises 3 dB or more above the dips beside it. Tolerance on voiced bursts, 2 to 8 a second: their number over 4
    s and more is within 10 %.

    Source: de Jong, Wempe 2009 (see SPEECH_RANGE_DB), with a smoothed loudness in the place of Praat's intensity.

    Args:
        level_db: (F,) of `loudness_db`.
        is_speech: (F,) of `find_speech`.
        voiced: (F,) of `pitch`.
    """
    if not is_speech.any():
        return np.zeros(0, int)
    floor = level_db.max() - VOICED_RANGE_DB
    window = scipy.signal.get_window("hann", 9, fftbins=False)[1:-1]
    padded = np.pad(np.maximum(level_db, floor).astype(np.float64), 7, constant_values=floor)
    smooth = np.convolve(padded, window / window.sum(), mode="valid")  # from 4 frames before to 4 after: to the floor
    peaks, _ = scipy.signal.find_peaks(smooth, prominence=MIN_PEAK_DB, distance=MIN_PEAK_FRAMES)
    near_voice = scipy.ndimage.binary_dilation(voiced, iterations=2)
    peaks = peaks[(peaks >= 4) & (peaks < len(level_db) + 4)] - 4
    return peaks[is_speech[peaks] & near_voice[peaks]]
