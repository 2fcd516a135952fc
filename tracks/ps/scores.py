"""The metrics of ps: overall MAE ranks, the rest explains it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mersuite.errors import DataError
from mersuite.metrics.ccc import ccc_of
from mersuite.metrics.mae import mae, mse
from mersuite.metrics.moments import moments
from mersuite.metrics.pearson import pearson_of

DIMENSIONS = ("valence", "arousal")


def valence_arousal_metrics(pred: Any, target: Any) -> dict[str, float]:
    """Gives every metric of the track; training logs and `mersuite score` both call it.

    The overall MAE and MSE are means over all rows and both dimensions. CCC and Pearson are over all rows at once, per
    dimension; 0 for constants.

    Args:
        pred: (row, 2) valence and arousal on the raw scale of 1 to 255.
        target: (row, 2), the same.

    Raises:
        DataError: If the shapes are not (row, 2) with the same number of rows, or a value is not finite.

    Source:
        MER-PS task page for the ranking metric; the others as in `mersuite.metrics`.

    >>> found = valence_arousal_metrics([[100, 120], [110, 130]], [[104, 120], [110, 128]])
    >>> found["mae"], found["mae_valence"], found["mae_arousal"], found["num_rows"]
    (1.5, 2.0, 1.0, 2.0)
    """
    pred, target = (_rows(values, name) for values, name in ((pred, "predictions"), (target, "targets")))
    # Why contiguous columns: along the rows of a narrow table numpy is eight times slower, and a bootstrap comes here
    # thousands of times.
    columns = [(np.ascontiguousarray(pred[:, dim]), np.ascontiguousarray(target[:, dim])) for dim in range(2)]
    absolute = [float(mae(*column)) for column in columns]
    of = [moments(*column) for column in columns]
    return {
        "mae": (absolute[0] + absolute[1]) / 2,
        "mae_valence": absolute[0],
        "mae_arousal": absolute[1],
        "mse": float(np.mean([mse(*column) for column in columns])),
        "ccc_valence": float(ccc_of(of[0])),
        "ccc_arousal": float(ccc_of(of[1])),
        "pearson_valence": float(pearson_of(of[0])),
        "pearson_arousal": float(pearson_of(of[1])),
        "num_rows": float(len(pred)),
    }


def metrics_of_answers(answers: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
    """Gives the metrics of whole trials: the rows of all of them together, so that a long trial counts for more.

    Args:
        answers: One a trial, (second, 2) on the raw scale.
        targets: The same.

    Raises:
        DataError: If there is no trial, or an answer does not fit its target.

    >>> metrics_of_answers([[[1, 1]], [[5, 5], [5, 5]]], [[[1, 4]], [[5, 5], [5, 5]]])["mae"]
    0.5
    """
    if len(answers) != len(targets) or not len(answers):
        raise DataError(f"ps metrics: need one answer a target, got {len(answers)} answers for {len(targets)} targets")
    pairs = [
        (np.asarray(answer, dtype=np.float64), np.asarray(target, dtype=np.float64))
        for answer, target in zip(answers, targets, strict=True)
    ]
    for index, (answer, target) in enumerate(pairs):
        if answer.shape != target.shape:
            raise DataError(f"ps metrics: answer {index} has shape {answer.shape}, its target {target.shape}")
    preds, truths = zip(*pairs, strict=True)
    return valence_arousal_metrics(np.concatenate(preds), np.concatenate(truths))


def _rows(values: Any, name: str) -> np.ndarray:
    rows = np.asarray(values, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != len(DIMENSIONS):
        raise DataError(f"ps metrics: {name}: need (row, 2) valence and arousal, got shape {rows.shape}")
    if not np.isfinite(rows).all():
        raise DataError(f"ps metrics: {name}: {int((~np.isfinite(rows)).sum())} of {rows.size} values are not finite")
    return rows
