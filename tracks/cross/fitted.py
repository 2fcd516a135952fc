"""What cross learns without gradient steps: which labels there are, and how frequent each is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mersuite.clip import Output, Prediction, Sample, WindowKey
from mersuite.data.collate import IGNORED_CLASS
from mersuite.data.unlabelled import Guess, Teacher
from mersuite.errors import DataError
from mersuite.schema import plain
from mersuite.track import Fitted, ReadFeatures
from tracks.cross.head import LOGITS, TARGET
from tracks.cross.options import CrossConfig
from tracks.cross.pseudo_labels import Taken, take
from tracks.cross.roles import OTHER, ROLE
from tracks.cross.transfer import ROLE_TARGET


class CrossFitted(Fitted, Teacher):
    """Labels and their shares in the training rows, and which labels were guessed for candidates.

    Args:
        options: The system.
    """

    def __init__(self, options: CrossConfig) -> None:
        self.options = options
        self._labels: tuple[str, ...] = options.labels
        self.shares: np.ndarray = np.zeros(len(self._labels), dtype=np.float32)
        self.taken: tuple[Taken, ...] = ()

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
        """Gives {"emotion": index}, int64; where roles are aligned, also {"role": 0 or 1}, and -100 for a candidate."""
        aligns = self.options.align != "none"
        index = IGNORED_CLASS if aligns and not sample.target else self._labels.index(label_of(sample))
        target = {TARGET: np.asarray(index, dtype=np.int64)}
        if aligns:
            target[ROLE_TARGET] = np.asarray(sample.groups.get(ROLE) == OTHER, dtype=np.int64)
        return target

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

    @property
    def num_rounds(self) -> int:
        """As cross.pseudo_labels says."""
        return 0 if self.options.pseudo_labels is None else self.options.pseudo_labels.rounds

    def teach(self, val: Sequence[Prediction], unlabelled: Sequence[Prediction]) -> Mapping[str, Guess]:
        """Gives the labels of the candidates of which the network is sure enough."""
        if self.options.pseudo_labels is None:
            return {}
        guesses, taken = take(self.options.pseudo_labels, val, unlabelled, target=TARGET, labels=self._labels)
        self.taken = (*self.taken, taken)
        return guesses

    def taught(self) -> Sequence[str]:
        """Says what was taken, a line a round."""
        return [f"pseudo-labels, round {number}: {item.sentence()}" for number, item in enumerate(self.taken, start=1)]

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
        """Gives the shares, the labels' names, and what was guessed for candidates."""
        return {"shares": self.shares}, {"labels": list(self._labels), "taken": [plain(item) for item in self.taken]}

    def load_state(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Restores what state gave."""
        self._labels = tuple(values["labels"])
        self.shares = np.asarray(arrays["shares"], dtype=np.float32)
        self.taken = tuple(Taken(**item) for item in values.get("taken", ()))


def label_of(sample: Sample) -> str:
    """Gives a sample's label.

    Raises:
        DataError: If it has none.
    """
    if TARGET not in sample.target:
        raise DataError(f"sample {sample.sample_id!r} has no label; only labelled rows can be learned from")
    return str(sample.target[TARGET])
