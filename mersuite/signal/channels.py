"""Channel matrices of EEG: bad channels, spherical splines, average reference, alignment, robust scale.

Every step but the detection is a (channel, channel) matrix, applied to the resampled recording in one product; filters
act along time, matrices along channels, so their order does not matter.
Axes: T samples, C channels, S seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.polynomial.legendre import legval

from mersuite.signal.medians import row_medians
from mersuite.signal.montage import neighbours, sphere_origin
from mersuite.signal.windows import cut_seconds, num_seconds

SPLINE_STIFFNESS = 4
SPLINE_TERMS = 50
SPLINE_SMOOTHING = 1e-5
NUM_NEIGHBOURS = 6
MIN_SCALP_FOR_NEIGHBOURS = 16
"""Why: on sparser caps the nearest electrodes are far apart and differ for good reasons."""
MIN_LOG_VARIANCE_SPREAD = 0.25
MIN_CORRELATION_SPREAD = 0.05
"""Least robust deviation over channels. Why: in a very even recording the smallest oddity would have a huge z."""
MAD_TO_SD = 1.4826
SCALE_ROWS = 20_000
"""Rows that a median is read from. Why: they give it within 1 %, and a full sort would cost more than all filters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BadChannelRule:
    """When a channel counts as bad.

    Attributes:
        max_z: Largest robust z (median and MAD over scalp channels) of the log variance, and of the correlation with
            neighbours below the median.
        flat_uv: Largest deviation within a second, in microvolts, of a channel that is flat.
        min_correlation: Correlation with neighbours from which on a channel is never bad for it.
    """

    max_z: float
    flat_uv: float
    min_correlation: float


class ChannelStatistics(NamedTuple):
    """What bad channels are judged by; each (channel,) float64.

    Attributes:
        deviation_uv: Median over seconds of the deviation within a second.
        correlation: Median over the nearest scalp electrodes of the correlation with them; NaN off the scalp and on
            caps with few electrodes.
    """

    deviation_uv: np.ndarray
    correlation: np.ndarray


def channel_statistics(
    recording: np.ndarray, rate_hz: float, places: np.ndarray, scalp: np.ndarray
) -> ChannelStatistics:
    """Measures every channel of one recording.

    Why within seconds: slow drifts of unfiltered recordings are then no sign of a bad channel, and a short pop moves
    no median.

    Args:
        recording: (T, C) float32, microvolts, before any reference.
        rate_hz: Sampling rate.
        places: (C, 3) positions; NaN where unknown.
        scalp: (C,) bool.
    """
    seconds = cut_seconds(recording, rate_hz, num_seconds(len(recording), rate_hz))
    centred = seconds - seconds.mean(axis=1, keepdims=True)
    variance = np.einsum("swc,swc->sc", centred, centred) / centred.shape[1]
    deviation = np.sqrt(np.median(variance, axis=0)).astype(np.float64)
    correlation = np.full(len(scalp), np.nan)
    on_scalp = np.flatnonzero(scalp)
    if len(on_scalp) >= MIN_SCALP_FOR_NEIGHBOURS:
        flat_time = centred.reshape(-1, centred.shape[2])
        covariance = (flat_time.T @ flat_time)[np.ix_(on_scalp, on_scalp)].astype(np.float64)
        size = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
        near = neighbours(places[on_scalp], NUM_NEIGHBOURS)
        matrix = covariance / np.outer(size, size)
        correlation[on_scalp] = np.median(np.take_along_axis(matrix, near, axis=1), axis=1)
    return ChannelStatistics(deviation, correlation)


def find_bad_channels(statistics: ChannelStatistics, scalp: np.ndarray, rule: BadChannelRule) -> np.ndarray:
    """Gives which channels are bad, (C,) bool.

    Scalp channels are judged by robust z of log variance (both sides), flatness, and correlation with neighbours that
    is both low and far below the median; all others by flatness alone, because mastoids differ for good reasons.

    Source: Bigdely-Shamlo et al. 2015, "The PREP pipeline", for the criteria; the thresholds are the caller's.
    """
    flat = statistics.deviation_uv <= rule.flat_uv
    judged = scalp & ~flat
    bad = flat.copy()
    if judged.sum() < 3:
        return bad
    log_variance = 2 * np.log(statistics.deviation_uv[judged])
    extreme = np.abs(_robust_z(log_variance, MIN_LOG_VARIANCE_SPREAD)) > rule.max_z
    correlation = statistics.correlation[judged]
    if np.isfinite(correlation).all():
        alone = _robust_z(correlation, MIN_CORRELATION_SPREAD) < -rule.max_z
        extreme |= alone & (correlation < rule.min_correlation)
    bad[judged] = extreme
    return bad


def _robust_z(values: np.ndarray, min_spread: float) -> np.ndarray:
    centre = np.median(values)
    return (values - centre) / max(MAD_TO_SD * float(np.median(np.abs(values - centre))), min_spread)


def spline_weights(sources: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Gives the weights of spherical spline interpolation, (target, source) float64.

    Equal to what `Raw.interpolate_bads` of MNE applies.

    Source: Perrin, Pernier, Bertrand, Echallier 1989, "Spherical splines for scalp potential and current density
    mapping", with the regularisation of MNE on the diagonal.

    Args:
        sources: (source, 3) places of the good electrodes, seen from the sphere's centre.
        targets: (target, 3) places to interpolate at.
    """
    sources = sources / np.linalg.norm(sources, axis=1, keepdims=True)
    targets = targets / np.linalg.norm(targets, axis=1, keepdims=True)
    order = np.arange(1, SPLINE_TERMS + 1, dtype=np.float64)
    series = np.concatenate(([0.0], (2 * order + 1) / (4 * np.pi * (order * (order + 1)) ** SPLINE_STIFFNESS)))
    num_sources = len(sources)
    system = np.ones((num_sources + 1, num_sources + 1))
    system[:-1, :-1] = legval(sources @ sources.T, series) + SPLINE_SMOOTHING * np.eye(num_sources)
    system[-1, -1] = 0.0
    right = np.column_stack((legval(targets @ sources.T, series), np.ones(len(targets))))
    return np.linalg.solve(system, right.T).T[:, :-1]


def interpolation_matrix(places: np.ndarray, scalp: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Gives (C, C) float64 that replaces bad channels by spherical splines through the good scalp channels.

    A bad channel whose place is unknown becomes zero.

    Args:
        places: (C, 3) positions; NaN where unknown.
        scalp: (C,) bool; only these are sources.
        bad: (C,) bool.
    """
    matrix = np.eye(len(bad))
    matrix[bad] = 0.0
    targets = np.flatnonzero(bad & np.isfinite(places).all(axis=1))
    sources = np.flatnonzero(scalp & ~bad)
    if targets.size and sources.size:
        origin = sphere_origin(places[scalp])
        matrix[np.ix_(targets, sources)] = spline_weights(places[sources] - origin, places[targets] - origin)
    return matrix


def average_reference(scalp: np.ndarray) -> np.ndarray:
    """Gives (C, C) float64 that subtracts the mean over the scalp channels from every channel."""
    return np.eye(len(scalp)) - np.outer(np.ones(len(scalp)), scalp / max(scalp.sum(), 1))


def alignment_matrix(covariances: np.ndarray, scalp: np.ndarray) -> np.ndarray:
    """Gives (C, C) float64 that makes the mean covariance over a person's trials the identity on the scalp channels.

    No label is used, but all trials of the person are: it is transductive. Directions without power (one after average
    reference, more after interpolation) stay zero. Channels off the scalp are divided by the scalp's mean deviation.

    Source: He & Wu 2020, "Transfer learning for brain-computer interfaces: a Euclidean space data alignment approach",
    eq. 9-11.

    Args:
        covariances: (trial, C, C), each X X^T / T of one trial.
        scalp: (C,) bool.
    """
    mean = covariances.mean(axis=0)[np.ix_(scalp, scalp)]
    values, vectors = np.linalg.eigh(mean)
    real = values > 1e-6 * values[-1]
    inverse_root = (vectors[:, real] / np.sqrt(values[real])) @ vectors[:, real].T
    matrix = np.eye(len(scalp)) / np.sqrt(values[real].mean())
    matrix[np.ix_(scalp, scalp)] = inverse_root
    return matrix


def median_and_deviation(recordings: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Gives each channel's median and robust deviation (1.4826 MAD) over all recordings, (C,) float32 each."""
    step = max(1, sum(len(recording) for recording in recordings) // SCALE_ROWS)
    rows = np.ascontiguousarray(np.concatenate([recording[::step] for recording in recordings]).T)
    centre = row_medians(rows)
    deviation = MAD_TO_SD * row_medians(np.abs(rows - centre[:, None]))
    return centre.astype(np.float32), deviation.astype(np.float32)
