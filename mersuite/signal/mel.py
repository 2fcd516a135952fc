"""Short-time spectra of sound and their mel bands, and the clock of frames that all measures of speech share.

Axes: T samples, F frames, K frequencies, B bands.

There are 100 frames a second, floor(T / hop) in all: frame f stands for the 10 ms of sound from f / 100 s on. Windows
that are longer than a frame are centred on it, with zeros beyond the edges. Sound is (T,) float32 in -1..1, and 0 dB is
a mean square of 1.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import scipy.fft
import scipy.signal

FRAME_RATE_HZ = 100
FLOOR_DB = -100.0
"""Least power that a logarithm sees. Why: the last bit of 16-bit sound has -98 dB; digital silence stays finite."""
BLOCK_FRAMES = 512
"""Frames that are transformed at once; bounds the memory of hour-long sound and stays in the processor's cache."""

MelScale = Literal["htk", "slaney"]


def num_frames(num_samples: int, rate_hz: int) -> int:
    """Gives F for T samples.

    Raises:
        ValueError: If a frame is no whole number of samples.

    >>> num_frames(48_000, 16_000)
    300
    """
    return num_samples // hop_samples(rate_hz)


def hop_samples(rate_hz: int) -> int:
    """Gives the samples of a frame.

    Raises:
        ValueError: If that is no whole number.
    """
    hop, rest = divmod(rate_hz, FRAME_RATE_HZ)
    if rest or hop < 1:
        raise ValueError(f"need a sampling rate that is a multiple of {FRAME_RATE_HZ} Hz, got {rate_hz}")
    return hop


def pad_for_frames(samples: np.ndarray, hop: int, length: int) -> np.ndarray:
    """Puts zeros about the samples, so that row f of `frame_rows` is centred on frame f."""
    before = (length - hop) // 2
    rows = max(len(samples) // hop, 1)
    padded = np.zeros(max(before + len(samples), (rows - 1) * hop + length), samples.dtype)
    padded[before : before + len(samples)] = samples
    return padded


def frame_rows(padded: np.ndarray, hop: int, length: int, rows: int) -> np.ndarray:
    """Gives a view of (rows, length), one row every hop."""
    return np.lib.stride_tricks.sliding_window_view(padded, length)[: rows * hop : hop]


def power_spectrum(sound: np.ndarray, rate_hz: int, *, window_s: float = 0.025) -> np.ndarray:
    """Gives the one-sided power of each frame under a Hann window: (T,) -> (F, K) float32.

    Its sum over K is the frame's mean square. K is half the next power of two, and one: 257 for 25 ms at 16 kHz.
    """
    hop, width = hop_samples(rate_hz), round(window_s * rate_hz)
    num_fft = 1 << (width - 1).bit_length()
    window = scipy.signal.get_window("hann", width).astype(np.float32)
    padded = pad_for_frames(sound.astype(np.float32, copy=False), hop, width)
    frames = frame_rows(padded, hop, width, len(sound) // hop)
    power = np.empty((len(frames), num_fft // 2 + 1), np.float32)
    for start in range(0, len(frames), BLOCK_FRAMES):
        spectrum = scipy.fft.rfft(frames[start : start + BLOCK_FRAMES] * window, num_fft, axis=1)
        power[start : start + BLOCK_FRAMES] = spectrum.real**2 + spectrum.imag**2
    power[:, 1:-1] *= 2
    power *= 1 / (num_fft * float(window @ window))
    return power


def mel(freqs_hz: np.ndarray, scale: MelScale) -> np.ndarray:
    """Gives mels of frequencies.

    Source: "htk": 2595 log10(1 + f / 700), O'Shaughnessy 1987, as in the HTK book; "slaney": linear up to 1 kHz,
    logarithmic above, Slaney 1998, "Auditory Toolbox".

    >>> mel(np.array([0.0, 1000.0]), "slaney").tolist()
    [0.0, 15.0]
    """
    if scale == "htk":
        return 2595 * np.log10(1 + freqs_hz / 700)
    return np.where(
        freqs_hz < 1000, freqs_hz * 0.015, 15 + 27 * np.log(np.maximum(freqs_hz, 1000) / 1000) / np.log(6.4)
    )


def _from_mel(mels: np.ndarray, scale: MelScale) -> np.ndarray:
    if scale == "htk":
        return 700 * (10 ** (mels / 2595) - 1)
    return np.where(mels < 15, mels / 0.015, 1000 * 6.4 ** ((np.maximum(mels, 15) - 15) / 27))


def mel_edges(num_bands: int, scale: MelScale, *, low_hz: float, high_hz: float) -> np.ndarray:
    """Gives where the bands begin, peak and end: (B + 2,) Hz, evenly spaced in mels; band b has b, b + 1 and b + 2."""
    ends = mel(np.array([low_hz, high_hz]), scale)
    return _from_mel(np.linspace(ends[0], ends[1], num_bands + 2), scale)


@lru_cache(maxsize=8)
def mel_filters(
    num_bands: int, num_freqs: int, rate_hz: int, scale: MelScale, *, low_hz: float = 20.0, high_hz: float = 8000.0
) -> np.ndarray:
    """Gives triangular filters: (B, K) float32, read-only.

    "htk" filters peak at 1; "slaney" filters have one area, 2 / width in Hz, so that white noise fills all bands alike.

    Args:
        num_bands: B.
        num_freqs: K, the one-sided frequencies of the spectra.
        rate_hz: Sampling rate.
        scale: See `mel`.
        low_hz: Where the first band begins.
        high_hz: Where the last one ends.

    Raises:
        ValueError: If the edges do not satisfy 0 <= low < high <= rate / 2, or a band holds no frequency.
    """
    if not 0 <= low_hz < high_hz <= rate_hz / 2:
        raise ValueError(
            f"need 0 <= low_hz < high_hz <= {rate_hz / 2:g}, got low_hz={low_hz:g} and high_hz={high_hz:g}"
        )
    edges = mel_edges(num_bands, scale, low_hz=low_hz, high_hz=high_hz)[:, None]
    freqs = np.linspace(0, rate_hz / 2, num_freqs)
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    filters = np.maximum(np.minimum((freqs - low) / (peak - low), (high - freqs) / (high - peak)), 0)
    if not filters.any(axis=1).all():
        raise ValueError(f"{num_bands} bands are too many: some hold none of the {num_freqs} frequencies of a frame")
    if scale == "slaney":
        filters *= 2 / (high - low)
    filters = filters.astype(np.float32)
    filters.flags.writeable = False
    return filters


def decibels(power: np.ndarray) -> np.ndarray:
    """Gives 10 log10 of a power, with the floor of FLOOR_DB.

    >>> decibels(np.array([1.0, 0.01, 0.0])).tolist()
    [0.0, -20.0, -100.0]
    """
    return np.maximum(10 * np.log10(np.maximum(power, 10 ** (FLOOR_DB / 10))), FLOOR_DB)


def log_mel(power: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Gives the power of bands: (F, K) and (B, K) -> (F, B) float32, dB, FLOOR_DB or more."""
    return decibels(power @ filters.T)
