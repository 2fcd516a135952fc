"""What cross learns without gradient steps: which labels there are, and how frequent each is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mersuite.clip import Output, Sample, WindowKey
from mersuite.errors import DataError
from mersuite.track import Fitted, ReadFeatures
from tracks.cross.head import LOGITS, TARGET
from tracks.cross.options import CrossConfig


class CrossFitted(Fitted):
    """Labels and their shares in the training rows.

    Args:
        options: The system.
    """

    def __init__(self, options: CrossConfig) -> None:
        self.options = options
        self._labels: tuple[str, ...] = options.labels
        self.shares: np.ndarray = np.zeros(len(self._labels), dtype=np.float32)

    @property
    def classes(self) -> tuple[str, ...]:
        """The labels, in the order of logits."""
        return self._labels

    def fit(self, train: Sequence[Sample], val: Sequence[Sample], features: ReadFeatures) -> None:
        """Counts the labels of the training rows."""
        found = Counter(label_of(sample) for sample in train)
        if not self.options.labels:
            self._labels = tuple(sorted(found | Counter(label_of(sample) for sample in val)))
        self.shares = np.array([found[label] for label in self._labels], dtype=np.float32) / max(1, found.total())

    def target(self, sample: Sample) -> Mapping[str, np.ndarray]:
        """Gives {"emotion": index}; int64."""
        return {TARGET: np.asarray(self._labels.index(label_of(sample)), dtype=np.int64)}

    @property
    def loss_weights(self) -> np.ndarray | None:
        """Weight of each label in the loss, with a mean of 1 over the training rows; None where all weigh alike."""
        if self.options.class_weights == "none":
            return None
        power = 0.5 if self.options.class_weights == "sqrt" else 1.0
        there = self.shares > 0
        weights = np.where(there, np.where(there, self.shares, 1.0) ** -power, 0.0)
        return (weights / (weights * self.shares).sum()).astype(np.float32)

    def calibrate(self, val: Sequence[tuple[Sample, Output]], train: Sequence[tuple[Sample, Output]] = ()) -> None:
        """Chooses nothing."""

    def apply(self, sample: Sample, output: Output | None) -> Output:
        """Gives a score for each label by name; without a network the logarithm of its share.

        With cross.prior=uniform or estimate the training shares are taken off; estimated ones are put on by the track,
        which sees all rows together.
        """
        known = np.log(np.maximum(self.shares, 1e-6))
        scores = known if output is None else output.values[LOGITS]
        if output is not None and self.options.prior != "train":
            # a label that was never seen has no share to take off, and the network has learned to leave it out
            scores = scores - np.where(self.shares > 0, known, 0.0)
        key = WindowKey(sample.sample_id, 0.0, 0.0) if output is None else output.key
        named = zip(self._labels, np.asarray(scores, dtype=np.float32), strict=True)
        return Output(key=key, values={label: score.reshape(()) for label, score in named})

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Gives the shares, and the labels' names."""
        return {"shares": self.shares}, {"labels": list(self._labels)}

    def load_state(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Restores what state gave."""
        self._labels = tuple(values["labels"])
        self.shares = np.asarray(arrays["shares"], dtype=np.float32)


def label_of(sample: Sample) -> str:
    """Gives a sample's label.

    Raises:
        DataError: If it has none.
    """
    if TARGET not in sample.target:
        raise DataError(f"sample {sample.sample_id!r} has no label; only labelled rows can be learned from")
    return str(sample.target[TARGET])
