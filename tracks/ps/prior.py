"""The stimulus prior of ps: what other people said about the same clip at the same second. A lookup, and called one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mersuite.clip import Sample
from tracks.ps.head import TARGET


def moving_average(values: np.ndarray, num_seconds: int) -> np.ndarray:
    """Smooths (second, dimension) with a centred window that shrinks at the ends; num_seconds is odd.

    >>> moving_average(np.array([[0.0], [3.0], [6.0]]), 3).ravel().tolist()
    [1.5, 3.0, 4.5]
    """
    if num_seconds <= 1:
        return values
    half = min(num_seconds // 2, len(values) - 1)
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0, dtype=np.float64)])
    index = np.arange(len(values))
    low, high = np.maximum(index - half, 0), np.minimum(index + half + 1, len(values))
    return ((sums[high] - sums[low]) / (high - low)[:, None]).astype(values.dtype)


def midmean(table: np.ndarray) -> np.ndarray:
    """Mean of the middle half of people: (subject, second, dimension) -> (second, dimension), NaN ignored.

    Why: nearly as steady as the mean, nearly as robust as the median (Tukey's midmean).

    >>> midmean(np.array([0.0, 4.0, 6.0, 100.0]).reshape(4, 1, 1)).item()
    5.0
    """
    ordered = np.sort(table, axis=0)  # NaN sorts last
    counts = (~np.isnan(table)).sum(0)
    trimmed = counts // 4
    rows = np.arange(len(table)).reshape(-1, 1, 1)
    kept = (rows >= trimmed) & (rows < counts - trimmed)
    middle = np.where(kept, np.nan_to_num(ordered), 0.0).sum(0) / np.maximum(counts - 2 * trimmed, 1)
    return middle.astype(table.dtype)  # as the state keeps it: a loaded prior answers the same to the last bit


STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "median": lambda table: np.nanmedian(table, axis=0),
    "midmean": midmean,
    "mean": lambda table: np.nanmean(table, axis=0),
}
"""(subject, second, dimension) with NaN -> (second, dimension)."""


class StimulusPrior:
    """Median label of the training subjects by stimulus clip and second.

    Attributes:
        median: (2,) float32, the training median of valence and arousal over all seconds.
        curves: Stimulus clip to (subject, second, 2) float32 labels; NaN after a subject's last second.
        subjects: Stimulus clip to the subjects in the order of its rows.
        samples: Stimulus clip to the sample ids in the same order; a subject may have seen a clip twice.
        explained: As curves: what signals explain of the labels, which is taken off before people are averaged; empty
            for the plain prior.
        statistic: How people are averaged, a key of STATISTICS.
    """

    def __init__(self) -> None:
        self.statistic = "median"
        self.explained: dict[str, np.ndarray] = {}
        self.median = np.zeros(2, dtype=np.float32)
        self.curves: dict[str, np.ndarray] = {}
        self.subjects: dict[str, list[str]] = {}
        self.samples: dict[str, list[str]] = {}

    def fit(self, train: Sequence[Sample]) -> None:
        """Collects the labels of training samples."""
        rows = [sample.target[TARGET] for sample in train]
        self.median = np.median(np.concatenate(rows), axis=0).astype(np.float32)
        self.curves, self.subjects, self.samples, self.explained = {}, {}, {}, {}
        self.add([(sample, None) for sample in train])

    def add(self, more: Sequence[tuple[Sample, np.ndarray | None]]) -> None:
        """Puts the labels of more samples into the curves.

        Args:
            more: Samples, each with what signals explain of its labels, (second, 2); None counts as nothing.
        """
        by_clip: dict[str, list[tuple[Sample, np.ndarray | None]]] = {}
        for sample, correction in more:
            by_clip.setdefault(stimulus_of(sample), []).append((sample, correction))
        is_refined = bool(self.explained)
        for clip, rows in by_clip.items():
            labels = [sample.target[TARGET] for sample, _ in rows]
            zeros = [
                np.zeros_like(label) if taken is None else taken for label, (_, taken) in zip(labels, rows, strict=True)
            ]
            self.curves[clip] = _stacked([*self.curves.get(clip, ()), *labels], fill=np.nan)
            if is_refined:
                self.explained[clip] = _stacked([*self.explained.get(clip, ()), *zeros], fill=0.0)
            names = [sample.groups.get("subject", sample.sample_id) for sample, _ in rows]
            self.subjects[clip] = [*self.subjects.get(clip, ()), *names]
            self.samples[clip] = [*self.samples.get(clip, ()), *[sample.sample_id for sample, _ in rows]]

    def curve(self, sample: Sample, num_seconds: int, *, leave_out_own: bool, smoothing_s: int) -> np.ndarray:
        """Gives the prior of a sample: (second, 2) float32, raw label scale.

        Args:
            sample: Its groups say which stimulus and which subject.
            num_seconds: Length wanted; a longer one than was seen goes on with the last value.
            leave_out_own: Leave the sample's own subject out. Why: a network that corrects the prior must be trained
                on errors of the size that it will meet on people whose labels it does not know.
            smoothing_s: Odd width of a moving average over seconds; 1 leaves the medians as they are.

        An unseen stimulus gives the training median.
        """
        clip = stimulus_of(sample)
        table = self.curves.get(clip)
        if table is not None and clip in self.explained:
            table = table - self.explained[clip]
        if table is not None and leave_out_own:
            own = sample.groups.get("subject", sample.sample_id)
            table = table[[row for row, subject in enumerate(self.subjects[clip]) if subject != own]]
        if table is None or len(table) == 0:
            return np.tile(self.median, (num_seconds, 1))
        seen = ~np.isnan(table).all(axis=(0, 2))  # the one left out may have been the only one to go on so long
        middle = moving_average(STATISTICS[self.statistic](table[:, seen]), smoothing_s)
        index = np.minimum(np.arange(num_seconds), len(middle) - 1)
        return middle[index].astype(np.float32)

    def explain(self, train: Sequence[tuple[Sample, np.ndarray]]) -> None:
        """Notes what signals explain of the training labels: one (second, 2) correction a sample.

        Why: what a person's own signals explain is no part of the stimulus; without it the same number of people gives
        a steadier curve. Backfitting of additive models (Hastie & Tibshirani 1986), one round.
        """
        self.explained = {clip: np.zeros_like(table) for clip, table in self.curves.items()}
        for sample, correction in train:
            clip = stimulus_of(sample)
            self.explained[clip][self.samples[clip].index(sample.sample_id), : len(correction)] = correction

    def knows(self, sample: Sample) -> bool:
        """Whether training samples of the same stimulus were seen."""
        return stimulus_of(sample) in self.curves


def _stacked(rows: Sequence[np.ndarray], *, fill: float) -> np.ndarray:
    """(second, 2) arrays of unequal lengths as one (row, second, 2) float32 table; what is missing becomes fill."""
    table = np.full((len(rows), max(map(len, rows)), 2), fill, dtype=np.float32)
    for index, row in enumerate(rows):
        table[index, : len(row)] = row
    return table


def stimulus_of(sample: Sample) -> str:
    """Name of the stimulus clip that a sample's person watched."""
    return sample.groups.get("clip", sample.sample_id)
