"""How frequent labels are among the rows that are asked: estimated from the answers themselves.

Source: Saerens, Latinne, Decaestecker 2002, "Adjusting the outputs of a classifier to new a priori probabilities",
equations 2.4 and 2.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mersuite.clip import Output

MAX_STEPS = 200
TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Frequencies of labels.

    Attributes:
        before: (label,) what the scores take labels to be as frequent as: all alike.
        after: (label,) after expectation maximisation.
    """

    before: np.ndarray
    after: np.ndarray


def estimate_shares(outputs: Mapping[str, Output]) -> Shares:
    """Estimates the label shares of all rows together by expectation maximisation over their posteriors.

    Args:
        outputs: Sample id to scores by label: logits, less the logarithm of the training shares, so that their
            posteriors are those under labels of equal share.
    """
    posteriors = _softmax(_scores(outputs))
    before = np.full(posteriors.shape[1], 1.0 / posteriors.shape[1])
    shares = before.copy()
    for _ in range(MAX_STEPS):
        weighted = posteriors * (shares / before)
        moved = (weighted / weighted.sum(axis=1, keepdims=True)).mean(axis=0)
        done = np.abs(moved - shares).max() < TOLERANCE
        shares = np.clip(moved, 1e-9, None)
        if done:
            break
    return Shares(before=before, after=shares)


def shifted(outputs: Mapping[str, Output], shares: Shares) -> dict[str, Output]:
    """Moves every row's scores by the logarithm of the ratio of the shares."""
    gaps = (np.log(shares.after) - np.log(shares.before)).astype(np.float32)
    return {
        name: replace(
            output,
            values={label: value + gap for (label, value), gap in zip(output.values.items(), gaps, strict=True)},
        )
        for name, output in outputs.items()
    }


def _scores(outputs: Mapping[str, Output]) -> np.ndarray:
    return np.array([[float(value) for value in output.values.values()] for output in outputs.values()])


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)
