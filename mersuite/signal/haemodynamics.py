"""Haemodynamics of fNIRS: motion repair, masks, trends, statistics of a trailing context, and light to haemoglobin.

Axes: T samples, C channels, S seconds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import scipy.signal

from mersuite.signal.medians import row_medians

if TYPE_CHECKING:
    import mne

TDDR_CUTOFF_HZ = 0.5
TDDR_ORDER = 3
TDDR_TUNING = 4.685
TDDR_ROUNDS = 50
TDDR_LARGEST_RATE = 0.95
"""Shrinking of the gaps up to which they are extrapolated; above it the extrapolation would be a leap."""
TDDR_BLOCK_VALUES = 2**15
"""Values, whole channels of them, that are repaired together. Why: they fit the processor's cache."""
MAD_TO_SD = 1.4826


def repair_motion(recording: np.ndarray, rate_hz: float) -> np.ndarray:
    """Takes steps and spikes out by temporal derivative distribution repair: (T, C) -> (T, C) float64.

    Slow changes (below 0.5 Hz) are differentiated; differences that are outliers by Tukey's biweight are weighted down;
    the rest is summed up again. Equal to `mne.preprocessing.nirs.temporal_derivative_distribution_repair`, for all
    channels at once.

    Source: Fishburn, Ludlum, Vaidya, Medvedev 2019, "Temporal derivative distribution repair (TDDR)", section 2.2.
    """
    mean = recording.mean(axis=0, dtype=np.float64)
    rows = np.empty((recording.shape[1], recording.shape[0]))
    np.subtract(recording.T, mean[:, None], out=rows)
    if rows.shape[1] > 1:
        slow = rows
        if rate_hz / 2 > TDDR_CUTOFF_HZ:
            numerator, denominator = scipy.signal.butter(TDDR_ORDER, TDDR_CUTOFF_HZ, fs=rate_hz)
            slow = scipy.signal.filtfilt(numerator, denominator, rows, axis=1, padlen=0)
        block = max(1, TDDR_BLOCK_VALUES // rows.shape[1])
        for start in range(0, len(rows), block):
            rows[start : start + block] += _repaired(slow[start : start + block]) - slow[start : start + block]
    rows += mean[:, None]
    return rows.T


def _repaired(slow: np.ndarray) -> np.ndarray:
    """Gives (C, T) values about their means, summed up from their weighted differences."""
    repaired = np.zeros_like(slow)
    np.cumsum(_weigh(np.diff(slow, axis=1)), axis=1, out=repaired[:, 1:])
    repaired -= repaired.mean(axis=1, keepdims=True)
    return repaired


def _weigh(steps: np.ndarray) -> np.ndarray:
    """Gives the differences about their robust mean, each times its weight: (C, T - 1) -> (C, T - 1).

    Iterates centre -> weights -> centre to its fixed point, from the plain mean.

    Why Aitken: the plain iteration gains half a digit a round and needs some twenty rounds; extrapolating the gaps of
    three centres, which shrink by a constant factor, reaches the same point in a third of them.
    """
    tolerance = np.sqrt(np.finfo(np.float64).eps)
    centre = steps.mean(axis=1)
    old = np.full_like(centre, np.nan)  # the centre before, where it led to this one by a plain step
    active = np.arange(len(steps))
    for _ in range(TDDR_ROUNDS):
        rows = steps if len(active) == len(steps) else steps[active]
        weights = _biweight(rows, centre[active])
        new = np.matmul(weights[:, None], rows[:, :, None])[:, 0, 0] / weights.sum(axis=1)
        gap, gap_before = new - centre[active], centre[active] - old[active]
        moved = np.abs(gap) >= tolerance * np.maximum(np.abs(new), np.abs(centre[active]))
        with np.errstate(invalid="ignore", divide="ignore"):
            rate = gap / gap_before
        steady = (rate > 0) & (rate < TDDR_LARGEST_RATE)
        old[active] = np.where(steady, np.nan, centre[active])
        centre[active] = np.where(steady, centre[active] + gap / np.where(steady, 1 - rate, 1), new)
        active = active[moved]
        if active.size == 0:
            break
    return _biweight(steps, centre) * (steps - centre[:, None])


def _biweight(steps: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Gives Tukey's weights of the distances from the centre; 1 where their median is 0."""
    share = np.abs(steps - centre[:, None])
    spread = MAD_TO_SD * row_medians(share)
    share *= np.divide(1 / TDDR_TUNING, spread, out=np.zeros_like(spread), where=spread > 0)[:, None]
    np.minimum(share, 1.0, out=share)
    np.square(share, out=share)
    np.subtract(1.0, share, out=share)
    return np.square(share, out=share)


def fill_masked(values: np.ndarray, good: np.ndarray) -> np.ndarray:
    """Gives the values with bad channels replaced by the mean of the good ones: (channel, type, T) alike.

    Args:
        values: (channel, type, T) floating point; what bad channels hold is not looked at.
        good: (channel,) bool with one True or more.
    """
    filled = values.copy()
    filled[~good] = values[good].mean(axis=0)
    return filled


def remove_slope(recording: np.ndarray) -> np.ndarray:
    """Takes off each channel's least-squares slope and keeps the level that its line has at the first sample.

    Why keep the level: the difference from the baseline before the clip is the response that is looked for.
    """
    time = np.arange(len(recording), dtype=np.float64)
    centred = time - time.mean()
    power = float(centred @ centred)
    slope = centred @ recording / power if power else np.zeros(recording.shape[1])
    return recording - time[:, None] * slope


def context_statistics(recording: np.ndarray, rate_hz: float, seconds: int, context_s: float) -> np.ndarray:
    """Gives mean, slope and deviation over the seconds up to each second's end: (T, C) -> (S, C, 3) float32.

    Row s is of the samples with s + 1 - context_s <= time < s + 1. The rows before the first whole context mirror those
    after it: what came later, backwards, with slopes turned round. Why: a model of signals alone must not know how long
    the clip has been running. A shorter context there gives slopes and deviations of another size, which tells each
    row's place; one context for all of them gives equal rows, from which a temporal network learned the first ten
    seconds out of pure noise. What is left is one turn of the slopes, which it did not find.

    The slope is that of the least-squares line, in units per second; the deviation is that of the population.

    Args:
        recording: (T, C) floating point.
        rate_hz: Sampling rate.
        seconds: S.
        context_s: Length of the context, 1 s or more; a shorter recording is one context.
    """
    level = recording.mean(axis=0, dtype=np.float64)
    rows = recording - level
    time = np.arange(len(rows)) / rate_hz
    source, direction = _mirrored_start(seconds, math.ceil(context_s) - 1)
    ends = np.maximum(source + 1.0, context_s)
    stop = np.clip(np.ceil(ends * rate_hz - 1e-6).astype(int), 1, len(rows))
    start = np.clip(np.ceil((ends - context_s) * rate_hz - 1e-6).astype(int), 0, stop - 1)

    def summed(values: np.ndarray) -> np.ndarray:
        total = np.concatenate((np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)))
        return total[stop] - total[start]

    count = (stop - start)[:, None].astype(np.float64)
    mean = summed(rows) / count
    variance = np.maximum(summed(rows**2) / count - mean**2, 0.0)
    middle = summed(time[:, None]) / count
    # Of evenly spaced times the squared deviations sum to n (n^2 - 1) / 12 steps.
    spread = count * (count**2 - 1) / 12 / rate_hz**2
    together = summed(rows * time[:, None]) - middle * summed(rows)
    slope = np.divide(together, spread, out=np.zeros_like(together), where=spread > 0) * direction[:, None]
    return np.stack((mean + level, slope, np.sqrt(variance)), axis=-1).astype(np.float32)


def _mirrored_start(num_rows: int, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Gives the row that stands for each row, and 1 or -1: whether time runs forward there.

    Rows from `first` on stand for themselves; those before it are reflected at it, and again at the last row where
    there are too few. Where there is no row after `first`, all are the first whole one.
    """
    distance = np.arange(num_rows) - first
    span = num_rows - 1 - first
    if span < 1:
        return np.full(num_rows, max(first, 0)), np.ones(num_rows)
    steps = np.abs(distance)
    folded = steps % (2 * span)
    mirrored = first + np.minimum(folded, 2 * span - folded)
    backwards = (distance < 0) & ((steps - 1) // span % 2 == 0)
    return np.where(distance < 0, mirrored, np.arange(num_rows)), np.where(backwards, -1.0, 1.0)


class Haemoglobin(NamedTuple):
    """What light intensity was turned into.

    Attributes:
        data: (T, C) float64, molar; HbO and HbR of each source-detector pair.
        ch_names: "S1_D1 hbo", ...
        ch_types: "hbo" or "hbr", one a channel.
        rate_hz: Sampling rate.
        good: (C,) bool: False where the scalp coupling index of one of the two wavelengths is too low.
    """

    data: np.ndarray
    ch_names: tuple[str, ...]
    ch_types: tuple[str, ...]
    rate_hz: float
    good: np.ndarray


def from_light(raw: mne.io.BaseRaw, *, repair: bool, min_coupling: float, path_factor: float) -> Haemoglobin:
    """Turns light intensity or optical density into haemoglobin: optical density, coupling, TDDR, Beer-Lambert.

    Why TDDR here and not after: it was designed for optical density (Fishburn 2019), and a step that reaches one
    wavelength more than the other leaves no outlier in their mixture.

    Args:
        raw: A recording of MNE with optode positions, intensity or optical density, loaded.
        repair: Whether TDDR is applied.
        min_coupling: Least scalp coupling index of a good channel.
        path_factor: Partial path length factor of the modified Beer-Lambert law.

    Raises:
        ValueError: As MNE does, if wavelengths or positions are missing.
    """
    from mne.preprocessing import nirs

    if "fnirs_cw_amplitude" in raw.get_channel_types():
        raw = nirs.optical_density(raw.copy().pick("fnirs"), verbose="ERROR")
    coupling = nirs.scalp_coupling_index(raw, verbose="ERROR")
    low = {name.rsplit(" ", 1)[0] for name, value in zip(raw.ch_names, coupling, strict=True) if value < min_coupling}
    rate_hz = float(raw.info["sfreq"])
    if repair:
        raw = raw.copy().apply_function(
            lambda rows: repair_motion(rows.T, rate_hz).T, picks="fnirs", channel_wise=False, verbose="ERROR"
        )
    blood = nirs.beer_lambert_law(raw, ppf=path_factor)
    names = tuple(blood.ch_names)
    return Haemoglobin(
        data=blood.get_data().T,
        ch_names=names,
        ch_types=tuple(blood.get_channel_types()),
        rate_hz=rate_hz,
        good=np.array([name.rsplit(" ", 1)[0] not in low for name in names]),
    )
