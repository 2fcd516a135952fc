"""Zero-phase filters and resampling as one FFT pass: one rfft, one gain, one irfft, in float32.

Axes: T samples of a recording, C channels, L taps of a filter, M samples of the padded recording, N of its resampled
form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import scipy.fft
import scipy.signal

HAMMING_LENGTH = 3.3
"""Taps of a Hamming-windowed filter, times its transition width over the sampling rate.

Source: Widmann, Schröger, Maess 2015, "Digital filter design for electrophysiological data"; MNE's `firwin` design.
"""
NOTCH_WIDTH_SHARE = 1 / 200
NOTCH_TRANSITION_HZ = 0.5
FADE_S = 1.0
"""Seconds beyond the mirrored edges over which the padding falls to nothing before it wraps around."""
BLOCK_VALUES = 2**26
"""Padded samples times channels that are transformed at once; bounds the memory of hour-long recordings."""
TRANSPOSE_ROWS = 1024
"""Rows that are turned at once. Why: they stay in the cache, which makes the turning four times faster."""
_RATIO_TOLERANCE = 1e-3


class _Plan(NamedTuple):
    num_padded: int
    num_resampled: int
    gain: np.ndarray
    gain_at_zero: float


def design_band(
    rate_hz: float,
    low_hz: float | None,
    high_hz: float | None,
    *,
    low_transition_hz: float | None = None,
    high_transition_hz: float | None = None,
) -> np.ndarray:
    """Designs a high-pass, low-pass or band-pass filter: (L,) float64, symmetric, L odd.

    The taps are those of `mne.filter.create_filter` (zero phase, `firwin`, Hamming window), up to zeros at both ends.

    Args:
        rate_hz: Sampling rate.
        low_hz: Lower edge of the pass band; None for a low-pass.
        high_hz: Upper edge of the pass band; None for a high-pass.
        low_transition_hz: Width of the lower transition; None takes a quarter of the edge, at least 2 Hz, at most the
            edge.
        high_transition_hz: Width of the upper transition; None takes a quarter of the edge, at least 2 Hz, at most
            what is left to the Nyquist frequency.

    Raises:
        ValueError: If the edges do not satisfy 0 < low < high < rate / 2.
    """
    nyquist_hz = rate_hz / 2
    edges = [edge for edge in (low_hz, high_hz) if edge is not None]
    if not edges or min(edges) <= 0 or edges != sorted(set(edges)) or edges[-1] >= nyquist_hz:
        raise ValueError(
            f"need 0 < low_hz < high_hz < {nyquist_hz:g} (half of {rate_hz:g} Hz), got low_hz={low_hz} and "
            f"high_hz={high_hz}"
        )
    upper = np.ones(1)
    if high_hz is not None:
        width = min(max(high_hz / 4, 2.0), nyquist_hz - high_hz) if high_transition_hz is None else high_transition_hz
        upper = _lowpass(rate_hz, high_hz, high_hz + width)
    if low_hz is None:
        return upper
    width = min(max(low_hz / 4, 2.0), low_hz) if low_transition_hz is None else low_transition_hz
    return _add_centred(upper, -_lowpass(rate_hz, low_hz - width, low_hz))


def design_notch(rate_hz: float, freqs_hz: Sequence[float]) -> np.ndarray:
    """Designs a filter that takes out narrow bands: (L,) float64, symmetric, L odd.

    The taps are those with which `mne.filter.notch_filter` works: a stop band of freq / 200 and 0.5 Hz wide
    transitions on either side.

    Raises:
        ValueError: If a frequency with its transition does not lie between 0 and rate / 2.
    """
    taps = np.ones(1)
    for freq_hz in sorted(freqs_hz):
        stop = freq_hz * NOTCH_WIDTH_SHARE / 2
        reach = stop + NOTCH_TRANSITION_HZ
        if not 0 < freq_hz - reach < freq_hz + reach < rate_hz / 2:
            raise ValueError(f"need notch frequencies between 0 and {rate_hz / 2:g} Hz, got {freq_hz:g} Hz")
        taps = _add_centred(taps, -_lowpass(rate_hz, freq_hz + stop, freq_hz + reach))
        taps = _add_centred(taps, _lowpass(rate_hz, freq_hz - reach, freq_hz - stop))
    return taps


def _lowpass(rate_hz: float, pass_hz: float, stop_hz: float) -> np.ndarray:
    length = round(HAMMING_LENGTH / ((stop_hz - pass_hz) / rate_hz))
    length += 1 - length % 2
    return scipy.signal.firwin(length, (pass_hz + stop_hz) / 2, window="hamming", fs=rate_hz)


def _add_centred(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    longest = max(len(first), len(second))
    total = np.zeros(longest)
    for taps in (first, second):
        edge = (longest - len(taps)) // 2
        total[edge : longest - edge] += taps
    return total


class LinearChain:
    """Filters and resampling of one sampling rate, fused into one pass through the FFT.

    Equal to applying each filter by itself with MNE (odd reflection at the edges, zero phase) and then MNE's FFT
    resampling, whose anti-aliasing is a cut at the new Nyquist frequency. Without resampling the two differ by float32
    rounding. With it, for a band-passed recording, they differ by less than 1e-3 of its deviation from 1 s after the
    first sample to 1 s before the last (2 s with MNE's shortest padding, npad=100); nearer to the edges both guess.
    Time is exact here; MNE stretches a recording by up to half a sample where the padded length in new samples is no
    whole number, which includes npad="auto" for 1000 to 200 Hz.

    Why one pass is exact: the odd reflection of a recording, filtered by a symmetric filter, is the odd reflection of
    the filtered recording. So one reflection, long enough for all filters, replaces one for each.

    Args:
        rate_hz: Sampling rate of the recordings.
        target_hz: Sampling rate to give; None or the same rate leaves it.
        filters: Symmetric taps of odd length, as `design_band` and `design_notch` give them.
    """

    def __init__(self, *, rate_hz: float, target_hz: float | None = None, filters: Sequence[np.ndarray] = ()) -> None:
        self.rate_hz = rate_hz
        self.target_hz = rate_hz if target_hz is None else target_hz
        self.filters = tuple(filters)
        for taps in self.filters:
            if len(taps) % 2 == 0 or not np.allclose(taps, taps[::-1], rtol=0, atol=1e-12):
                raise ValueError(f"need symmetric filters of odd length, got {len(taps)} taps")
        self._plans: dict[tuple[int, int, bool], _Plan] = {}

    @property
    def half_length(self) -> int:
        """Samples by which the filters together reach to either side."""
        return sum(len(taps) // 2 for taps in self.filters)

    def outlasts(self, num_samples: int) -> bool:
        """Tells whether one of the filters reaches further to a side than such a recording is long."""
        return any(len(taps) // 2 > num_samples - 1 for taps in self.filters)

    def num_out(self, num_samples: int) -> int:
        """Samples that come out for so many samples in."""
        return max(round(num_samples * self.target_hz / self.rate_hz), 1)

    def apply(self, recording: np.ndarray) -> np.ndarray:
        """Filters and resamples (T, C) values of any real dtype into (num_out(T), C) float32.

        A recording shorter than all filters together is filtered by one after the other, as MNE does, with zeros
        beyond its reflection.
        """
        resample = self.target_hz != self.rate_hz
        if not self.filters and not resample:
            return np.ascontiguousarray(recording, dtype=np.float32)
        if self.half_length <= len(recording) - 1:
            return self._pass(recording, range(len(self.filters)), resample)
        for index in range(len(self.filters)):
            recording = self._pass(recording, range(index, index + 1), False)
        return self._pass(recording, range(0), True) if resample else recording

    def _pass(self, recording: np.ndarray, chosen: range, resample: bool) -> np.ndarray:
        num_samples, num_channels = recording.shape
        half = sum(len(self.filters[index]) // 2 for index in chosen)
        reach = min(half + round(FADE_S * self.rate_hz) * resample, num_samples - 1)
        plan = self._plan(num_samples + 2 * max(half, reach), chosen, resample)
        num_out = self.num_out(num_samples) if resample else num_samples
        block = max(1, BLOCK_VALUES // plan.num_padded)
        if block >= num_channels:
            return _transform(recording, plan, half, reach)[:num_out]
        out = np.empty((num_out, num_channels), np.float32)
        for start in range(0, num_channels, block):
            out[:, start : start + block] = _transform(recording[:, start : start + block], plan, half, reach)[:num_out]
        return out

    def _plan(self, needed: int, chosen: range, resample: bool) -> _Plan:
        key = (needed, chosen.start, resample)
        if key not in self._plans:
            ratio = self.target_hz / self.rate_hz if resample else 1.0
            num_padded, num_resampled = fft_lengths(needed, ratio)
            kept = min(num_padded, num_resampled) // 2 + 1
            gain = np.full(kept, num_resampled / num_padded)
            at_zero = 1.0
            for index in chosen:
                taps = self.filters[index]
                circle = np.zeros(num_padded)
                circle[: len(taps)] = taps
                gain *= scipy.fft.rfft(np.roll(circle, -(len(taps) // 2)))[:kept].real
                at_zero *= float(taps.sum())
            if num_resampled < num_padded and num_resampled % 2 == 0:
                gain[-1] *= 2.0  # both halves of the new Nyquist frequency fold onto one bin
            elif num_resampled > num_padded and num_padded % 2 == 0:
                gain[-1] *= 0.5  # and part again above the old one
            self._plans[key] = _Plan(num_padded, num_resampled, gain.astype(np.float32), at_zero)
        return self._plans[key]


def _transform(recording: np.ndarray, plan: _Plan, half: int, reach: int) -> np.ndarray:
    """One block of channels: (T, C) -> (N, C); row 0 is the recording's first sample."""
    padded, offset = _pad(recording, plan.num_padded, half, reach)
    spectrum = scipy.fft.rfft(padded, axis=1, overwrite_x=True)[:, : len(plan.gain)]
    spectrum *= plan.gain
    out = scipy.fft.irfft(spectrum, n=plan.num_resampled, axis=1, overwrite_x=True)
    if offset is not None:
        out += offset[:, None] * np.float32(plan.gain_at_zero)
    return np.ascontiguousarray(out.T)


def _pad(recording: np.ndarray, num_padded: int, half: int, reach: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Lays a recording and its odd reflections on a circle: (T, C) -> (C, M).

    The level of each channel is taken out first and given back as the second value. Why: float32 resolves 1e-7 of the
    largest value, and amplifiers without a high-pass have offsets a thousand times the signal. Where the filters reach
    beyond the reflection the level stays, because the zeros out there are MNE's.
    """
    num_samples, num_channels = recording.shape
    padded = np.zeros((num_channels, num_padded), np.float32)
    offset = recording[::16].mean(axis=0).astype(np.float32) if half <= num_samples - 1 else None
    level = np.float32(0) if offset is None else offset[:, None]
    for start in range(0, num_samples, TRANSPOSE_ROWS):
        rows = recording[start : start + TRANSPOSE_ROWS].T
        np.subtract(rows, level, out=padded[:, start : start + rows.shape[1]], casting="same_kind")
    if reach:
        body = padded[:, :num_samples]
        right, left = padded[:, num_samples : num_samples + reach], padded[:, num_padded - reach :]
        np.subtract(2 * body[:, -1:], body[:, num_samples - 1 - reach : num_samples - 1][:, ::-1], out=right)
        np.subtract(2 * body[:, :1], body[:, 1 : reach + 1][:, ::-1], out=left)
        if reach > half and offset is not None:
            fade = 0.5 * (1 + np.cos(np.pi * (np.arange(reach - half) + 0.5) / (reach - half)))
            right[:, half:] *= fade.astype(np.float32)
            left[:, : reach - half] *= fade.astype(np.float32)[::-1]
    return padded, offset


def fft_lengths(needed: int, ratio: float) -> tuple[int, int]:
    """Gives padded lengths before and after resampling: fast to transform, and in the exact ratio of the rates.

    Where no length is exact the error over the whole padded recording is at most a thousandth of a sample, if a length
    up to a quarter longer allows it.

    >>> fft_lengths(1001, 0.2)
    (1080, 216)
    """
    if ratio == 1.0:
        length = scipy.fft.next_fast_len(needed, real=True)
        return length, length
    exact = Fraction(ratio).limit_denominator(4096)
    if math.isclose(float(exact), ratio, rel_tol=1e-12):
        step = exact.denominator
        length = step * scipy.fft.next_fast_len(-(-needed // step), real=True)
        return length, round(length * exact)
    lengths = np.arange(needed, needed + max(needed // 4, 1000))
    errors = np.abs(lengths * ratio - np.round(lengths * ratio))
    length = int(lengths[np.argmax(errors <= max(_RATIO_TOLERANCE, errors.min()))])
    return length, round(length * ratio)
