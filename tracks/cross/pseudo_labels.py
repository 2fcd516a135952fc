"""Labels guessed for candidates: those of which the network is sure enough, by a rule that validation rows fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mersuite.clip import Prediction
from mersuite.data.unlabelled import Guess
from mersuite.schema import require_all


@dataclass(frozen=True, slots=True, kw_only=True)
class PseudoLabelConfig:
    """When a guess about a candidate is believed.

    Attributes:
        min_accuracy: The confidence from which guesses are believed is the smallest at which this share of the
            validation rows that reach it are answered rightly. Why 0.9: a wrong label in ten is what label smoothing
            does on purpose.
        min_share: At least this share of the validation rows must reach it, else no guess is believed. Why: the
            accuracy of a handful of rows is luck.
        weight: Weight of a guess in the loss; a true label has 1.
        rounds: How often the network is trained again, each time with the guesses of the one before.
    """

    min_accuracy: float = 0.9
    min_share: float = 0.1
    weight: float = 0.5
    rounds: int = 1

    def __post_init__(self) -> None:
        require_all(
            (0 < self.min_accuracy <= 1, f"min_accuracy: need 0 < share <= 1, got {self.min_accuracy}"),
            (0 < self.min_share <= 1, f"min_share: need 0 < share <= 1, got {self.min_share}"),
            (0 < self.weight <= 1, f"weight: need 0 < weight <= 1, got {self.weight}"),
            (self.rounds >= 1, f"rounds: need 1 or more, got {self.rounds}"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one round took.

    Attributes:
        threshold: Confidence from which guesses were believed; None where none was high enough.
        val_accuracy: Share of right answers of the validation rows that reach it; of all of them where None.
        num_val: Validation rows that reach it.
        num_asked: Candidates that were asked.
        labels: Label to how many candidates were given it.
    """

    threshold: float | None
    val_accuracy: float
    num_val: int
    num_asked: int
    labels: Mapping[str, int]

    def sentence(self) -> str:
        """For people."""
        if self.threshold is None:
            return (
                f"no guess about {self.num_asked} candidates was believed: on {self.num_val} validation rows no "
                f"confidence gave the accuracy asked for (all of them: {self.val_accuracy:.2f})"
            )
        counts = ", ".join(f"{label} {count}" for label, count in self.labels.items()) or "none"
        return (
            f"{sum(self.labels.values())} of {self.num_asked} candidates were given a guessed label ({counts}) at a "
            f"confidence of {self.threshold:.3f} or more, which {self.num_val} validation rows reach with an accuracy "
            f"of {self.val_accuracy:.2f}"
        )


def confidences(rows: Sequence[Prediction]) -> np.ndarray:
    """Gives (row,) float64: the probability of each row's answer, softmax over its scores by label."""
    scores = np.array([[float(value) for value in row.outputs.values()] for row in rows], dtype=np.float64)
    if not len(rows):
        return np.zeros(0)
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    answers = [list(row.outputs).index(row.answer) for row in rows]
    return raised[np.arange(len(rows)), answers] / raised.sum(axis=1)


def choose_threshold(
    confidence: np.ndarray, is_right: np.ndarray, *, min_accuracy: float, min_share: float
) -> float | None:
    """Gives the smallest confidence at which enough of the rows that reach it are right; None where there is none.

    Rows of equal confidence stand or fall together. The rows that choose it are few and chose the epoch as well, so
    that their accuracy is somewhat too high for new rows.

    Args:
        confidence: (row,) float.
        is_right: (row,) bool.
        min_accuracy: Share of right rows among those that reach it.
        min_share: Share of all rows that must reach it.

    >>> choose_threshold(np.array([.5, .6, .8, .9]), np.array([0, 1, 0, 1]), min_accuracy=.6, min_share=.25)
    0.6
    """
    if not len(confidence):
        return None
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    num_kept = np.arange(1, len(order) + 1)
    accuracy = np.cumsum(is_right[order]) / num_kept
    ends_a_tie = np.append(sorted_confidence[1:] < sorted_confidence[:-1], True)
    fits = ends_a_tie & (accuracy >= min_accuracy - 1e-12) & (num_kept >= min_share * len(order) - 1e-12)
    return float(sorted_confidence[np.flatnonzero(fits)[-1]]) if fits.any() else None


def take(
    options: PseudoLabelConfig,
    val: Sequence[Prediction],
    asked: Sequence[Prediction],
    *,
    target: str,
    labels: Sequence[str],
) -> tuple[dict[str, Guess], Taken]:
    """Chooses the candidates whose answer is believed.

    Args:
        options: The rule.
        val: Validation rows, asked as listeners are, with their truth.
        asked: Candidates. Nothing but their scores and answers is read.
        target: Name of the target.
        labels: In index order.

    Returns:
        Sample id to guess, and what was taken.
    """
    is_right = np.array([str(row.target[target]) == row.answer for row in val], dtype=bool)
    threshold = choose_threshold(
        confidences(val), is_right, min_accuracy=options.min_accuracy, min_share=options.min_share
    )
    reached = np.ones(len(val), dtype=bool) if threshold is None else confidences(val) >= threshold
    believed = (
        []
        if threshold is None
        else [row for row, sure in zip(asked, confidences(asked) >= threshold, strict=True) if sure]
    )
    counts = Counter(str(row.answer) for row in believed)
    guesses = {row.sample_id: Guess(target={target: np.asarray(row.answer)}, weight=options.weight) for row in believed}
    return guesses, Taken(
        threshold=threshold,
        val_accuracy=float(is_right[reached].mean()) if reached.any() else 0.0,
        num_val=int(reached.sum()),
        num_asked=len(asked),
        labels={label: counts[label] for label in labels if counts[label]},
    )
