"""Bootstrap over groups: how far a metric, or the difference of two systems, would move with other people."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mersuite.errors import DataError

Score = Callable[[np.ndarray], Mapping[str, float]]
"""(row,) int64 indices of rows, repeats allowed -> metrics of those rows. The order of rows must not matter."""


class RowScorer:
    """Metrics of chosen rows of one system.

    Why arrays where the truth is one: turning nested lists into arrays would be most of a bootstrap's time.

    Args:
        metrics: (answers, truths) -> metrics, as Track.metrics.
        answers: One a row, in JSON types.
        truths: One a row.
    """

    def __init__(
        self,
        metrics: Callable[[Sequence[Any], Sequence[Any]], Mapping[str, float]],
        answers: Sequence[Any],
        truths: Sequence[Any],
    ) -> None:
        self._metrics, self._truths = metrics, truths
        self._answers = [
            np.asarray(answer, dtype=np.float64) if isinstance(truth, np.ndarray) else answer
            for answer, truth in zip(answers, truths, strict=True)
        ]

    def __call__(self, rows: Sequence[int] | np.ndarray) -> Mapping[str, float]:
        """Scores rows by their index; repeats count as often as they are named."""
        return self._metrics([self._answers[row] for row in rows], [self._truths[row] for row in rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A metric and its percentile interval.

    Attributes:
        value: On all rows, each once.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How two systems differ on the same rows: first minus second.

    Attributes:
        value: On all rows, each once.
        low: Lower end of the percentile interval.
        high: Upper end of the percentile interval.
        p_value: Two-sided: twice the smaller share of resamples on either side of zero, in (0, 1].
    """

    value: float
    low: float
    high: float
    p_value: float


def bootstrap_intervals(
    score: Score, groups: Sequence[str], *, seed: int, num_resamples: int = 1000, level: float = 0.95
) -> dict[str, Interval]:
    """Gives the percentile interval of every metric when whole groups are drawn with replacement.

    Why groups and not rows: seconds of one person depend on each other; resampling them one by one would give intervals
    several times too narrow.

    Args:
        score: Metrics of chosen rows.
        groups: The group of each row, such as its subject.
        seed: Seed of the draws.
        num_resamples: How many draws.
        level: Coverage, such as 0.95.

    Returns:
        Metric name to interval; {} where there are fewer than two groups, because then nothing can vary.

    Raises:
        DataError: If level is not between 0 and 1 or num_resamples is below 1.

    Source:
        Efron (1979), Bootstrap methods: another look at the jackknife, Annals of Statistics 7(1); percentile
        interval of Efron and Tibshirani (1993), chapter 13.

    >>> values = np.array([1.0, 2.0, 3.0, 6.0])
    >>> found = bootstrap_intervals(lambda rows: {"mean": values[rows].mean()}, ["a", "a", "b", "b"], seed=0)
    >>> found["mean"]
    Interval(value=3.0, low=1.5, high=4.5)
    """
    _check(num_resamples, level)
    draws = _draws(groups, seed=seed, num_resamples=num_resamples)
    if draws is None:
        return {}
    whole = dict(score(np.arange(len(groups))))
    table = _over_draws(score, groups, draws, list(whole))
    low, high = np.percentile(table, _ends(level), axis=0)
    return {
        name: Interval(value=float(whole[name]), low=float(low[column]), high=float(high[column]))
        for column, name in enumerate(whole)
    }


def paired_bootstrap(
    first: Score, second: Score, groups: Sequence[str], *, seed: int, num_resamples: int = 1000, level: float = 0.95
) -> dict[str, Difference]:
    """Gives how first differs from second in every metric that both have, with the same groups drawn for both.

    Why paired: people differ far more than systems do, and that part cancels when both are scored on the same draw.
    With fewer than about ten groups percentile intervals are too narrow and p-values too small: read them as hints.

    Args:
        first: Metrics of chosen rows of one system.
        second: Metrics of the same rows of the other.
        groups: The group of each row.
        seed: Seed of the draws.
        num_resamples: How many draws.
        level: Coverage of the interval.

    Returns:
        Metric name to difference; {} where there are fewer than two groups.

    Raises:
        DataError: If level is not between 0 and 1 or num_resamples is below 1.

    >>> a, b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 3.0, 4.0])
    >>> scores = [lambda rows: {"mean": a[rows].mean()}, lambda rows: {"mean": b[rows].mean()}]
    >>> round(paired_bootstrap(*scores, ["x", "y", "z"], seed=0)["mean"].high, 9)
    -1.0
    """
    _check(num_resamples, level)
    draws = _draws(groups, seed=seed, num_resamples=num_resamples)
    if draws is None:
        return {}
    rows = np.arange(len(groups))
    whole_first, whole_second = first(rows), second(rows)
    names = [name for name in whole_first if name in whole_second]
    table = _over_draws(first, groups, draws, names) - _over_draws(second, groups, draws, names)
    low, high = np.percentile(table, _ends(level), axis=0)
    below, above = (table <= 0).sum(axis=0), (table >= 0).sum(axis=0)
    p_values = np.minimum(1.0, 2.0 * (np.minimum(below, above) + 1) / (num_resamples + 1))
    return {
        name: Difference(
            value=float(whole_first[name] - whole_second[name]),
            low=float(low[column]),
            high=float(high[column]),
            p_value=float(p_values[column]),
        )
        for column, name in enumerate(names)
    }


def _check(num_resamples: int, level: float) -> None:
    if num_resamples < 1:
        raise DataError(f"bootstrap: num_resamples: need at least 1, got {num_resamples}")
    if not 0.0 < level < 1.0:
        raise DataError(f"bootstrap: level: need a number between 0 and 1, got {level}")


def _ends(level: float) -> tuple[float, float]:
    return 50.0 * (1.0 - level), 50.0 * (1.0 + level)


def _draws(groups: Sequence[str], *, seed: int, num_resamples: int) -> np.ndarray | None:
    """Gives (resample, draw) int64, sorted along draws: indices into the sorted names of the groups."""
    num_groups = len(set(groups))
    if num_groups < 2:
        return None
    draws = np.random.default_rng(seed).integers(num_groups, size=(num_resamples, num_groups))
    return np.sort(draws, axis=1)


def _over_draws(score: Score, groups: Sequence[str], draws: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Gives (resample, metric) float64.

    Why np.unique: the order of draws does not matter, so a handful of groups has few distinct draws (6 groups: 462) and
    each is scored once.
    """
    members = np.asarray(groups)
    rows_of = [np.flatnonzero(members == name) for name in sorted(set(groups))]
    distinct, where = np.unique(draws, axis=0, return_inverse=True)
    table = np.empty((len(distinct), len(names)))
    for index, draw in enumerate(distinct):
        scores = score(np.concatenate([rows_of[group] for group in draw]))
        table[index] = [scores[name] for name in names]
    return table[where.reshape(-1)]
