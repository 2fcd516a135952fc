"""The known effect in made-up MER-PS data: ratings, what the signals carry of them, and the errors that are optimal.

Model, for subject s, clip c, second t and dimension d (all Gaussian before rounding):

    label = clip(round(label_mean[d] + curve[c, t, d] + own[s, c, t, d]), 1, 255)    (curve holds the onset)
    latent = (sqrt(snr) * own / own_strength + noise) / sqrt(1 + snr)

`noise` has the temporal covariance of `own`. Why: then E[own | the whole latent] = own_strength * sqrt(snr / (1 + snr))
* latent, second by second, so that smoothing or context cannot help and the optimal errors are known exactly.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from tracks.ps.layout import LABEL_CENTRE, LABEL_MAX, LABEL_MIN

if TYPE_CHECKING:
    from tracks.ps.fake import FakeConfig

DIMENSIONS = ("valence", "arousal")
LEVEL_SHARE = 0.15
"""Share of the variance of `own` that is one level for the whole trial."""
OWN_TIME_S = 3.0
HISTORY_S = 20
"""The latent begins this long before the trial. Why: the slow fNIRS response would otherwise rise from zero at the
start of every trial and tell how much time has passed."""
ONSET_S = 3.0
"""Seconds in which what ratings lack when a clip begins falls to 1 / e; 4 % are left after 10 s."""
CURVE_LEVEL_SHARE = 0.6
CURVE_TIME_S = 12.0
_MAX_DRAWS = 3_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """What is common to everybody.

    Attributes:
        lengths_s: Seconds of each clip.
        curves: One a clip, (second, 2) float64, label points around the label mean.
    """

    lengths_s: tuple[int, ...]
    curves: tuple[np.ndarray, ...]


def draw_clips(config: FakeConfig) -> Clips:
    """Draws lengths and common curves of the clips; they do not depend on the number of subjects."""
    rng = np.random.default_rng([config.seed, 0])
    num = config.num_clips
    choice = np.arange(config.min_clip_s, config.max_clip_s + 1)
    lengths = rng.choice(choice, size=num, replace=len(choice) < num)
    # Why ranks: levels drawn freely would leave a few clips with almost equal levels for some seeds.
    levels = np.stack([rng.permutation(ndtri((np.arange(num) + 0.5) / num)) for _ in DIMENSIONS], axis=1)
    levels /= max(float(levels.std()), 1e-12)
    root = _covariance_root(config.max_clip_s, CURVE_TIME_S)
    curves = []
    for clip, length in enumerate(lengths):
        smooth = root @ rng.standard_normal((config.max_clip_s, 2))
        curve = np.sqrt(CURVE_LEVEL_SHARE) * levels[clip] + np.sqrt(1 - CURVE_LEVEL_SHARE) * smooth[:length]
        curves.append(config.clip_strength * curve - _onset(config, int(length)))
    return Clips(lengths_s=tuple(int(length) for length in lengths), curves=tuple(curves))


def _onset(config: FakeConfig, num_seconds: int) -> np.ndarray:
    """What every clip's ratings lack at its beginning: (second, 1) label points, gone after some 10 s."""
    return config.onset_points * np.exp(-np.arange(num_seconds) / ONSET_S)[:, None]


def draw_trial(config: FakeConfig, clips: Clips, clip: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws one person's ratings of one clip and the latent that the person's signals carry.

    Returns:
        Ratings (second, 2) int64, and the latent (HISTORY_S + second, 2) float64 of unit variance; what the latent is
        at second t of the trial belongs to the rating of second t + label_lag_s.
    """
    length, lag = clips.lengths_s[clip], config.label_lag_s
    own, noise = (_unit_process(HISTORY_S + config.max_clip_s + lag, rng) for _ in range(2))
    latent = (np.sqrt(config.snr) * own + noise) / np.sqrt(1 + config.snr)
    rating = (
        np.asarray(config.label_mean) + clips.curves[clip] + config.own_strength * own[HISTORY_S : HISTORY_S + length]
    )
    return _on_scale(rating).astype(np.int64), latent[lag : lag + HISTORY_S + length]


def bayes_errors(config: FakeConfig, clips: Clips) -> dict[str, dict[str, float | str]]:
    """Gives the optimal error of each system on new people who see the same clips.

    Expectations over people are Monte Carlo with the true curves, rounding and clipping included; the median of a
    clipped, rounded value is the clipped, rounded median, so the predictors below are optimal for the absolute error.

    Returns:
        System name to {"mae", "mae_valence", "mae_arousal", "how"}.
    """
    rng = np.random.default_rng([config.seed, 1])
    curves = np.concatenate(clips.curves)
    onsets = [_onset(config, length) for length in clips.lengths_s]
    draws = max(_MAX_DRAWS // curves.size, 50)
    own, noise = rng.standard_normal((2, draws, *curves.shape))
    latent = (np.sqrt(config.snr) * own + noise) / np.sqrt(1 + config.snr)
    expected_own = config.own_strength * np.sqrt(config.snr / (1 + config.snr)) * latent
    common = np.asarray(config.label_mean) + curves
    truth = _on_scale(common + config.own_strength * own)
    # What is left of a rating once the expected own part is taken off does not depend on the latent.
    rest = np.median(common + config.own_strength * own - expected_own, axis=(0, 1))
    systems = {
        "constant": (np.full(2, float(LABEL_CENTRE)), "128, the middle of the scale, at every second"),
        "median": (np.median(truth, axis=(0, 1)), "the median rating of each dimension, the best constant"),
        "signal": (expected_own + rest, "E[own | latent] plus the median of the rest; clip and second are unknown"),
        "prior": (common, "the true curve of the clip at each second, no signal"),
        "fused": (common + expected_own, "the true curve plus E[own | latent]"),
        "unseen_clips": (
            expected_own + np.asarray(config.label_mean) - np.concatenate(onsets).mean(),
            "E[own | latent] plus the mean of the distribution that clips are drawn from",
        ),
    }
    errors: dict[str, dict[str, float | str]] = {}
    for name, (prediction, how) in systems.items():
        error = np.abs(_on_scale(prediction) - truth).mean(axis=(0, 1))
        errors[name] = {
            "mae": float(error.mean()),
            **{f"mae_{dimension}": float(value) for dimension, value in zip(DIMENSIONS, error, strict=True)},
            "how": how,
        }
    return errors


def describe(config: FakeConfig) -> Mapping[str, str | float]:
    """Gives the facts of the model that a reader of bayes.json needs beside the errors."""
    return {
        "rows": "every second of every clip, for people who are not in the training set and saw the same clips",
        "snr": config.snr,
        "share_of_own_variance_in_signals": config.snr / (1 + config.snr),
        "seconds_of_label_lag": float(config.label_lag_s),
    }


def _on_scale(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), LABEL_MIN, LABEL_MAX)


def _unit_process(num: int, rng: np.random.Generator) -> np.ndarray:
    """A level for the whole trial plus a smooth process: (second, 2) of unit variance."""
    smooth = _covariance_root(num, OWN_TIME_S) @ rng.standard_normal((num, 2))
    return np.sqrt(LEVEL_SHARE) * rng.standard_normal(2) + np.sqrt(1 - LEVEL_SHARE) * smooth


@functools.lru_cache(maxsize=8)
def _covariance_root(num: int, time_s: float) -> np.ndarray:
    """Cholesky factor of a squared-exponential covariance on a grid of one second."""
    seconds = np.arange(num)
    covariance = np.exp(-0.5 * ((seconds[:, None] - seconds) / time_s) ** 2)
    return np.linalg.cholesky(covariance + 1e-8 * np.eye(num))
