"""Prosody of a stretch of sound as one vector of named statistics.

Axes: T samples, F frames, K frequencies, as in `mersuite.signal.mel`.
"""

from __future__ import annotations

import numpy as np

from mersuite.signal import speech
from mersuite.signal.mel import FLOOR_DB, FRAME_RATE_HZ

SEMITONES_FROM_HZ = 55.0
"""Pitch is counted in semitones from here, the note A1. Why: it lies below all voices, so that 0 can mean no pitch."""
TILT_HZ = (100.0, 5_000.0)
SPLIT_HZ = 1_000.0
NUM_FLUX_BANDS = 16
FLOOR_SHARE = 1e-8
"""Least power of a frequency that a logarithm sees, over that of all. Why a share: no level then changes a slope."""
MIN_SPOKEN_S = 0.1

PROSODY = (
    "pitch_median_st",
    "pitch_deviation_st",
    "pitch_range_st",
    "pitch_slope_st_s",
    "pitch_change_st",
    "voiced_share",
    "voiced_stretch_s",
    "aperiodicity",
    "loudness_mean_db",
    "loudness_deviation_db",
    "loudness_range_db",
    "loudness_slope_db_s",
    "loudness_change_db",
    "speech_share",
    "speech_s",
    "syllables_per_s",
    "articulation_per_s",
    "pauses_per_s",
    "pause_share",
    "pause_mean_s",
    "tilt_db_octave",
    "low_to_high_db",
    "centroid_khz",
    "centroid_deviation_khz",
    "flux_db",
)
"""Channels of the prosody vector; `prosody` says what each is."""


def prosody(sound: np.ndarray, power: np.ndarray, rate_hz: int, *, low_hz: float, high_hz: float) -> np.ndarray:
    """Gives the statistics that PROSODY names: (25,) float64, all finite.

    Pitch is over voiced frames, in semitones from 55 Hz: median, deviation, 90th less 10th percentile, slope over time,
    mean absolute change between voiced neighbours; then the voiced share of speech, the mean length of voiced
    stretches and their mean aperiodicity. Without a voiced frame all are 0.

    Loudness is over frames of speech, in dB: mean, deviation, 90th less 10th percentile, slope, mean absolute change;
    without speech the mean is the floor, -100, and the others 0.

    Speech: its share of the sound and its seconds; syllables a second of the sound, and of the sound without its
    pauses; pauses a second from the first to the last speech, their share of it, and their mean length. 0 without.

    Spectrum, over frames of speech (all frames, if there is none): slope of the mean power density over octaves from
    100 to 5,000 Hz; power below 1 kHz over power above; mean and deviation of the centroid; mean absolute change of the
    level of 16 equally wide bands from frame to frame. All 0 for digital silence.

    Args:
        sound: (T,), see `mersuite.signal.mel`.
        power: (F, K), its `power_spectrum`.
        rate_hz: Sampling rate.
        low_hz: Lowest pitch.
        high_hz: Highest pitch.
    """
    level = speech.loudness_db(sound, rate_hz)
    is_speech = speech.find_speech(level)
    pitch = speech.pitch(sound, rate_hz, low_hz=low_hz, high_hz=high_hz)
    voiced = pitch.voiced & is_speech
    values = (
        *_pitch_statistics(pitch, voiced, is_speech),
        *_loudness_statistics(level, is_speech),
        *_speech_statistics(level, is_speech, voiced),
        *_spectral_statistics(power[is_speech] if is_speech.any() else power, rate_hz),
    )
    return np.array(values, dtype=np.float64)


def _course(values: np.ndarray, frames: np.ndarray) -> tuple[float, float, float, float]:
    """Gives deviation, 90th less 10th percentile, slope a second and mean absolute change between neighbours."""
    low, high = np.percentile(values, (10, 90))
    seconds = (frames - frames.mean()) / FRAME_RATE_HZ
    spread = float(seconds @ seconds)
    slope = float(seconds @ values) / spread if spread else 0.0
    changes = np.abs(np.diff(values))[np.diff(frames) == 1]
    return float(values.std()), float(high - low), slope, float(changes.mean()) if len(changes) else 0.0


def _pitch_statistics(pitch: speech.Pitch, voiced: np.ndarray, is_speech: np.ndarray) -> tuple[float, ...]:
    if not voiced.any():
        return (0.0,) * 8
    frames = np.flatnonzero(voiced)
    semitones = 12 * np.log2(pitch.f0_hz[frames] / SEMITONES_FROM_HZ)
    num_stretches = 1 + int((np.diff(frames) > 1).sum())
    return (
        float(np.median(semitones)),
        *_course(semitones, frames),
        len(frames) / int(is_speech.sum()),
        len(frames) / num_stretches / FRAME_RATE_HZ,
        float(pitch.aperiodicity[frames].mean()),
    )


def _loudness_statistics(level: np.ndarray, is_speech: np.ndarray) -> tuple[float, ...]:
    if not is_speech.any():
        return (FLOOR_DB, 0.0, 0.0, 0.0, 0.0)
    values = level[is_speech].astype(np.float64)
    return (float(values.mean()), *_course(values, np.flatnonzero(is_speech)))


def _speech_statistics(level: np.ndarray, is_speech: np.ndarray, voiced: np.ndarray) -> tuple[float, ...]:
    if not is_speech.any():
        return (0.0,) * 7
    frames = np.flatnonzero(is_speech)
    length_s, span_s = len(level) / FRAME_RATE_HZ, (frames[-1] + 1 - frames[0]) / FRAME_RATE_HZ
    pauses_s = speech.find_pauses(is_speech).durations_s
    paused_s = float(pauses_s.sum())
    num_syllables = len(speech.find_syllables(level, is_speech, voiced))
    return (
        len(frames) / len(level),
        len(frames) / FRAME_RATE_HZ,
        num_syllables / length_s,
        num_syllables / max(span_s - paused_s, MIN_SPOKEN_S),
        len(pauses_s) / span_s,
        min(paused_s / span_s, 1.0),
        paused_s / max(len(pauses_s), 1),
    )


def _spectral_statistics(power: np.ndarray, rate_hz: int) -> tuple[float, ...]:
    freqs = np.linspace(0, rate_hz / 2, power.shape[1])
    totals = power.sum(axis=1)
    frames = power[totals > 0].astype(np.float64)
    if not len(frames):
        return (0.0,) * 5
    mean = frames.mean(axis=0)
    floor = FLOOR_SHARE * mean.sum()
    inside = (freqs >= TILT_HZ[0]) & (freqs <= TILT_HZ[1])
    octaves = np.log2(freqs[inside])
    weights = 1 / freqs[inside]  # every octave counts alike, though higher ones hold more frequencies
    octaves -= np.average(octaves, weights=weights)
    level = 10 * np.log10(mean[inside] + floor)
    tilt = float((weights * octaves) @ level / ((weights * octaves) @ octaves))
    low = freqs < SPLIT_HZ
    centroid = frames @ freqs / frames.sum(axis=1) / 1000
    bands = np.log10(frames[:, 1:].reshape(len(frames), NUM_FLUX_BANDS, -1).mean(axis=2) + floor)
    flux = float(10 * np.abs(np.diff(bands, axis=0)).mean()) if len(frames) > 1 else 0.0
    return (
        tilt,
        float(10 * np.log10((mean[low].sum() + floor) / (mean[~low].sum() + floor))),
        float(centroid.mean()),
        float(centroid.std()),
        flux,
    )
