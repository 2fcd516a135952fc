"""Spectral and time-domain features of every second of EEG, for all seconds and channels at once.

Axes: T samples, W samples of a second, S seconds, C channels, B bands, K rows of sines and cosines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import scipy.signal

from mersuite.signal.linear import LinearChain, design_band
from mersuite.signal.windows import cut_seconds

Edges = tuple[float, float]
POWER_FLOOR = 1e-8
"""Least power, in squared microvolts, that a logarithm sees: far below any amplifier's noise, so a channel without
signal gives a low finite number."""
CHUNK_BYTES = 2**20
"""Products of one step. Why: they then stay in the processor's cache."""


@lru_cache(maxsize=32)
def band_basis(num_samples: int, rate_hz: float, edges: tuple[Edges, ...], taper: str) -> tuple[np.ndarray, np.ndarray]:
    """Gives the sines and cosines that the bands need, and what each adds to a band's power.

    The removal of each window's mean and the taper are part of the rows.

    Args:
        num_samples: W.
        rate_hz: Sampling rate.
        edges: Half-open bands [low, high) in Hz.
        taper: Name of a scipy window, such as "hann" or "boxcar".

    Returns:
        basis: (K, W) float32.
        weights: (B, K) float32: power is weights @ (basis @ window) ** 2, in squared units of the window.

    Raises:
        ValueError: If a band holds no frequency of the window's grid.
    """
    window = scipy.signal.get_window(taper, num_samples)
    freqs = np.fft.rfftfreq(num_samples, 1 / rate_hz)
    inside = np.array([(freqs >= low) & (freqs < high) for low, high in edges])
    if not inside.any(axis=1).all():
        empty = edges[int(np.flatnonzero(~inside.any(axis=1))[0])]
        raise ValueError(f"no frequency of a window of {num_samples / rate_hz:g} s lies in the band {empty} Hz")
    chosen = np.flatnonzero(inside.any(axis=0))
    angles = 2 * np.pi * np.outer(chosen, np.arange(num_samples)) / num_samples
    rows = np.concatenate((np.cos(angles), np.sin(angles))) * window
    rows -= rows.mean(axis=1, keepdims=True)
    sides = np.where((chosen == 0) | (2 * chosen == num_samples), 1.0, 2.0)
    weights = np.tile(inside[:, chosen] * sides, 2) / (num_samples * (window**2).sum())
    return rows.astype(np.float32), weights.astype(np.float32)


def band_power(seconds: np.ndarray, rate_hz: float, edges: Sequence[Edges], taper: str) -> np.ndarray:
    """Gives the power of each band in each second: (S, W, C) -> (S, C, B) float32.

    It is the sum of the one-sided periodogram (mean removed, `scipy.signal.periodogram`) over the half-open band, times
    the width of its bins. Why a matrix product: the bands need half of the FFT's frequencies, and a product of
    matrices of this size runs at the processor's full speed. Why folded: under a symmetric taper cosines see only the
    sum of a sample and its mirror image, and sines only their difference, which halves the products.
    """
    num_seconds, width, num_channels = seconds.shape
    basis, weights = band_basis(width, rate_hz, tuple((float(low), float(high)) for low, high in edges), taper)
    num_freqs, num_pairs = len(basis) // 2, (width - 1) // 2
    alone = [0, width // 2][: 2 - width % 2]  # samples that are their own mirror image
    cosines = np.concatenate((basis[:num_freqs, 1 : num_pairs + 1], basis[:num_freqs, alone]), axis=1)
    sines = np.ascontiguousarray(basis[num_freqs:, 1 : num_pairs + 1])
    power = np.empty((num_seconds, num_channels, len(edges)), np.float32)
    step = min(max(1, CHUNK_BYTES // (4 * (len(basis) + width) * num_channels)), num_seconds)
    even = np.empty((step, cosines.shape[1], num_channels), np.float32)
    odd = np.empty((step, num_pairs, num_channels), np.float32)
    spectrum = np.empty((step, len(basis), num_channels), np.float32)
    for start in range(0, num_seconds, step):
        chunk = seconds[start : start + step]
        rows = spectrum[: len(chunk)]
        first, mirrored = chunk[:, 1 : num_pairs + 1], chunk[:, : -num_pairs - 1 : -1]
        np.add(first, mirrored, out=even[: len(chunk), :num_pairs])
        even[: len(chunk), num_pairs:] = chunk[:, alone]
        np.subtract(first, mirrored, out=odd[: len(chunk)])
        np.matmul(cosines, even[: len(chunk)], out=rows[:, :num_freqs])
        np.matmul(sines, odd[: len(chunk)], out=rows[:, num_freqs:])
        np.square(rows, out=rows)
        power[start : start + step] = np.matmul(weights, rows).transpose(0, 2, 1)
    return power


def filtered_power(recording: np.ndarray, rate_hz: float, edges: Sequence[Edges], seconds: int) -> np.ndarray:
    """Gives the variance in each second of the recording filtered to each band: (T, C) -> (S, C, B) float32."""
    power = []
    for low_hz, high_hz in edges:
        taps = design_band(rate_hz, low_hz, None if high_hz >= rate_hz / 2 else high_hz)
        filtered = LinearChain(rate_hz=rate_hz, filters=(taps,)).apply(recording)
        power.append(cut_seconds(filtered, rate_hz, seconds).var(axis=1))
    return np.stack(power, axis=-1)


def differential_entropy(power: np.ndarray) -> np.ndarray:
    """Gives the entropy of a Gaussian of so much power, in nats: 0.5 ln(2 pi e power).

    Source: Duan, Zhu, Lu 2013, "Differential entropy feature for EEG-based emotion classification", eq. 3.
    """
    return 0.5 * np.log(2 * np.pi * np.e * np.maximum(power, POWER_FLOOR))


def log_power(power: np.ndarray) -> np.ndarray:
    """Gives the natural logarithm of power."""
    return np.log(np.maximum(power, POWER_FLOOR))


def relative_log_power(power: np.ndarray) -> np.ndarray:
    """Gives the natural logarithm of each band's share in the sum over bands: (..., B) -> (..., B)."""
    floored = np.maximum(power, POWER_FLOOR)
    return np.log(floored / floored.sum(axis=-1, keepdims=True))


def hjorth(seconds: np.ndarray) -> np.ndarray:
    """Gives activity, mobility and complexity: (S, W, C) -> (S, C, 3) float32.

    Activity is the variance; mobility the root of the variance ratio of the differences between neighbouring samples to
    the samples; complexity the mobility of the differences over the mobility of the samples. A channel without signal
    gives zeros.

    Source: Hjorth 1970, "EEG analysis based on time domain properties", with differences for derivatives.
    """
    slopes = np.diff(seconds, axis=1)
    bends = np.diff(slopes, axis=1)
    activity, of_slopes, of_bends = (values.var(axis=1) for values in (seconds, slopes, bends))
    mobility = _root_ratio(of_slopes, activity)
    complexity = _root_ratio(_root_ratio(of_bends, of_slopes), mobility, root=False)
    return np.stack((activity, mobility, complexity), axis=-1)


def _root_ratio(over: np.ndarray, under: np.ndarray, *, root: bool = True) -> np.ndarray:
    ratio = np.divide(over, under, out=np.zeros_like(over), where=under > POWER_FLOOR)
    return np.sqrt(ratio) if root else ratio


def asymmetry(bands: np.ndarray, pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    """Gives left minus right of each pair of channels: (S, C, B) -> (S, pair, B).

    Why a difference: of entropies and log powers it is the logarithm of the power ratio.
    """
    left, right = np.array(pairs, int).reshape(-1, 2).T
    return bands[:, left] - bands[:, right]


def clip_to_nyquist(bands: Mapping[str, Edges], rate_hz: float) -> tuple[dict[str, Edges], list[str]]:
    """Gives the bands with upper edges cut at the Nyquist frequency, and the names of those that were cut.

    Raises:
        ValueError: If a band lies wholly above the Nyquist frequency.
    """
    nyquist_hz = rate_hz / 2
    above = [name for name, (low, _) in bands.items() if low >= nyquist_hz]
    if above:
        raise ValueError(f"the band {above[0]} {bands[above[0]]} Hz lies above {nyquist_hz:g} Hz")
    cut = [name for name, (_, high) in bands.items() if high > nyquist_hz]
    return {name: (low, min(high, nyquist_hz)) for name, (low, high) in bands.items()}, cut
