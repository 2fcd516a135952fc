"""Zero-phase filters and resampling as one FFT pass: one FFT, one gain, one inverse FFT, in float32.

Axes: T samples of a recording, C channels, L taps of a filter, M samples of the padded recording, N of its resampled
form.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Literal, NamedTuple

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
LEVEL_SAMPLES = 4096
"""Samples, evenly spaced, that a channel's level and scale are read from. Why so few: they need not be exact."""
_RATIO_TOLERANCE = 1e-3


class _Plan(NamedTuple):
    """What one padded length needs.

    Attributes:
        num_padded: M.
        num_resampled: N.
        above: (2 P,) float32: gain of frequency 0 and above, each twice, for real and imaginary parts.
        below: (2 Q,) float32: the same for negative frequencies, the lowest first; P + Q is the smaller of M and N.
        at_zero: Gain of the filters for a constant.
    """

    num_padded: int
    num_resampled: int
    above: np.ndarray
    below: np.ndarray
    at_zero: float


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
    the filtered recording, and so for the even one. One reflection, long enough for all filters, replaces one for each.

    A chain keeps the memory it works in, for the system's giving it anew takes a third as long as the transforms; so it
    serves one thread.

    Args:
        rate_hz: Sampling rate of the recordings.
        target_hz: Sampling rate to give; None or the same rate leaves it.
        filters: Symmetric taps of odd length, as `design_band` and `design_notch` give them.
        pad: What lies beyond the edges: the recording's odd reflection about its first and last sample (MNE's
            "reflect_limited"), or its even one (NumPy's "reflect"). Why even: an odd reflection cancels about the first
            sample, which a low-pass then leaves as it is; in slow signals that marks where a recording begins.
    """

    def __init__(
        self,
        *,
        rate_hz: float,
        target_hz: float | None = None,
        filters: Sequence[np.ndarray] = (),
        pad: Literal["odd", "even"] = "odd",
    ) -> None:
        self.rate_hz = rate_hz
        self._is_odd = pad == "odd"
        self.target_hz = rate_hz if target_hz is None else target_hz
        self.filters = tuple(filters)
        for taps in self.filters:
            if len(taps) % 2 == 0 or not np.allclose(taps, taps[::-1], rtol=0, atol=1e-12):
                raise ValueError(f"need symmetric filters of odd length, got {len(taps)} taps")
        self._plans: dict[tuple[int, range, bool], _Plan] = {}
        self._room = np.empty(0, np.complex64)

    @property
    def half_length(self) -> int:
        """Samples by which the filters together reach to either side."""
        return self._half_length(range(len(self.filters)))

    def _half_length(self, chosen: range) -> int:
        return sum(len(self.filters[index]) // 2 for index in chosen)

    def outlasts(self, num_samples: int) -> bool:
        """Tells whether one of the filters reaches further to a side than such a recording is long."""
        return any(len(taps) // 2 > num_samples - 1 for taps in self.filters)

    def num_out(self, num_samples: int) -> int:
        """Samples that come out for so many samples in."""
        return max(round(num_samples * self.target_hz / self.rate_hz), 1)

    def apply(self, recording: np.ndarray) -> np.ndarray:
        """Filters and resamples (T, C) values of any real dtype into (num_out(T), C) float32.

        A recording shorter than all filters together goes through them in several passes, each of as many as it is
        long enough for; one filter that alone is longer sees zeros beyond the reflection, as in MNE.
        """
        resample = self.target_hz != self.rate_hz
        if not self.filters and not resample:
            return np.ascontiguousarray(recording, dtype=np.float32)
        start, num_filters, fits = 0, len(self.filters), len(recording) - 1
        while start < num_filters or resample:
            stop = start
            while stop < num_filters and self._half_length(range(start, stop + 1)) <= fits:
                stop += 1
            whole = stop == num_filters
            chosen = range(start, stop if whole else max(stop, start + 1))
            recording = self._pass(recording, chosen, resample and whole)
            start, resample = chosen.stop, resample and not whole
        return recording

    def _pass(self, recording: np.ndarray, chosen: range, resample: bool) -> np.ndarray:
        num_samples, num_channels = recording.shape
        half = self._half_length(chosen)
        reach = min(half + round(FADE_S * self.rate_hz) * resample, num_samples - 1)
        plan = self._plan(num_samples + 2 * max(half, reach), chosen, resample)
        num_out = self.num_out(num_samples) if resample else num_samples
        num_rows = min(max(1, BLOCK_VALUES // (2 * plan.num_padded)), (num_channels + 1) // 2)
        if self._room.size < num_rows * plan.num_padded:
            self._room = np.empty(num_rows * plan.num_padded, np.complex64)
        out = np.empty((num_out, num_channels), np.float32)
        for start in range(0, num_channels, 2 * num_rows):
            part = recording[:, start : start + 2 * num_rows]
            rows = (part.shape[1] + 1) // 2
            room = self._room[: rows * plan.num_padded].reshape(rows, plan.num_padded)
            out[:, start : start + 2 * num_rows] = _transform(part, plan, half, reach, room, self._is_odd)[:num_out]
        return out

    def _plan(self, needed: int, chosen: range, resample: bool) -> _Plan:
        key = (needed, chosen, resample)
        if key not in self._plans:
            ratio = self.target_hz / self.rate_hz if resample else 1.0
            num_padded, num_resampled = fft_lengths(needed, ratio)
            kept = min(num_padded, num_resampled)
            gain = np.full(kept // 2 + 1, num_resampled / num_padded)
            at_zero = 1.0
            for index in chosen:
                taps = self.filters[index]
                circle = np.zeros(num_padded)
                circle[: len(taps)] = taps
                gain *= scipy.fft.rfft(np.roll(circle, -(len(taps) // 2)))[: len(gain)].real
                at_zero *= float(taps.sum())
            above = np.repeat(gain.astype(np.float32), 2)
            below = above[2 : 2 * (kept - kept // 2)][::-1]
            self._plans[key] = _Plan(num_padded, num_resampled, above, np.ascontiguousarray(below), at_zero)
        return self._plans[key]


def _transform(recording: np.ndarray, plan: _Plan, half: int, reach: int, room: np.ndarray, is_odd: bool) -> np.ndarray:
    """One block of channels: (T, C) -> (N, C); row 0 is the recording's first sample; works in room, see `_pad`.

    Why two channels as one complex row: the filters are zero-phase, so their gain is real and keeps the two apart; the
    transform then works in place, where that of real rows takes as much memory again, and turning the array moves
    half as many values.
    """
    level, scale = _pad(recording, half, reach, room, is_odd)
    spectrum = _filtered(scipy.fft.fft(room, axis=1, overwrite_x=True), plan)
    rows = scipy.fft.ifft(spectrum, axis=1, overwrite_x=True)
    out = rows.T.copy().view(np.float32)[:, : recording.shape[1]]
    out *= scale
    if level.any():
        out += level * np.float32(plan.at_zero)
    return out


def _filtered(spectrum: np.ndarray, plan: _Plan) -> np.ndarray:
    """Applies the gain and the new length: (row, M) -> (row, N) complex64; the input is used up."""
    num_above, num_below = len(plan.above) // 2, len(plan.below) // 2
    num_old, num_new = plan.num_padded, plan.num_resampled
    top = num_above - 1  # where the shorter length is even: its Nyquist frequency
    folded = spectrum[:, top] + spectrum[:, -top] if num_new < num_old else spectrum[:, top] / 2
    out = spectrum if num_new == num_old else np.zeros((len(spectrum), num_new), np.complex64)
    _times(spectrum[:, :num_above], plan.above, out[:, :num_above])
    if num_below:
        _times(spectrum[:, num_old - num_below :], plan.below, out[:, num_new - num_below :])
    if num_new != num_old and num_above + num_below == 2 * top:
        out[:, top] = folded * plan.above[-1]
        out[:, -top] = out[:, top]
    return out


def _times(values: np.ndarray, gain: np.ndarray, out: np.ndarray) -> None:
    np.multiply(values.view(np.float32), gain, out=out.view(np.float32))


def _pad(
    recording: np.ndarray, half: int, reach: int, padded: np.ndarray, is_odd: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Lays a recording and its reflections on a circle: (T, C) into ((C + 1) // 2, M) complex64, two channels each.

    The level and the scale of each channel are taken out first and given back. Why the level: float32 resolves 1e-7 of
    the largest value, and amplifiers without a high-pass have offsets a thousand times the signal. Where the filters
    reach beyond the reflection it stays, because the zeros out there are MNE's. Why the scale: a loose electrode would
    otherwise lend its rounding errors to the channel it shares a row with.
    """
    num_samples, num_channels = recording.shape
    num_rows, num_padded = padded.shape
    level, scale = _level_and_scale(recording)
    if half > num_samples - 1:
        level = np.zeros_like(level)
    turned = np.zeros((TRANSPOSE_ROWS, 2 * num_rows), np.float32)
    for start in range(0, num_samples, TRANSPOSE_ROWS):
        rows = recording[start : start + TRANSPOSE_ROWS]
        values = turned[: len(rows)]
        np.subtract(rows, level, out=values[:, :num_channels], casting="same_kind")
        values[:, :num_channels] *= 1 / scale
        padded[:, start : start + len(rows)] = values.view(np.complex64).T
    padded[:, num_samples + reach : num_padded - reach] = 0
    if reach:
        body = padded[:, :num_samples]
        right, left = padded[:, num_samples : num_samples + reach], padded[:, num_padded - reach :]
        right[:] = body[:, num_samples - 1 - reach : num_samples - 1][:, ::-1]
        left[:] = body[:, 1 : reach + 1][:, ::-1]
        if is_odd:
            np.subtract(2 * body[:, -1:], right, out=right)
            np.subtract(2 * body[:, :1], left, out=left)
        if reach > half and half <= num_samples - 1:
            fade = 0.5 * (1 + np.cos(np.pi * (np.arange(reach - half) + 0.5) / (reach - half)))
            right[:, half:] *= fade.astype(np.float32)
            left[:, : reach - half] *= fade.astype(np.float32)[::-1]
    return level, scale


def _level_and_scale(recording: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gives each channel's mean and deviation as a power of two, (C,) float32 each, read from some samples."""
    sample = recording[:: max(1, len(recording) // LEVEL_SAMPLES)]
    level, spread = sample.mean(axis=0), sample.std(axis=0)
    unseen = spread == 0
    if unseen.any():
        spread[unseen] = np.abs(recording[:, unseen] - level[unseen]).max(axis=0)
    exponent = np.frexp(spread)[1]
    return level.astype(np.float32), np.ldexp(np.float32(1), np.where(spread > 0, exponent, 0)).astype(np.float32)


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
