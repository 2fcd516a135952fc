"""Population moments of paired rows, with constants told from noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mersuite.metrics.rows import paired


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """Population moments along the rows: divided by the number of rows, not by one less.

    Attributes:
        mean_gap: Mean of pred minus mean of target; one a column.
        var_pred: Variance of pred; exactly 0 for a constant column.
        var_target: Variance of target; exactly 0 for a constant column.
        cov: Covariance; exactly 0 where either column is constant.
    """

    mean_gap: Any
    var_pred: Any
    var_target: Any
    cov: Any


def moments(pred: Any, target: Any) -> Moments:
    """Gives the moments of pred (row, ...) and target (row, ...) in float64, one a column.

    Why constants are looked for: the mean of equal values may be off by a last digit, and the "variance" of 1e-30 that
    follows would turn a ratio of two such numbers into any correlation between -1 and 1.

    Raises:
        DataError: If the shapes differ or there is no row.
    """
    pred, target = paired(pred, target)
    varies_pred = (pred != pred[0]).any(0)
    varies_target = (target != target[0]).any(0)
    mean_pred, mean_target = pred.mean(0), target.mean(0)
    return Moments(
        mean_gap=mean_pred - mean_target,
        var_pred=((pred - mean_pred) ** 2).mean(0) * varies_pred,
        var_target=((target - mean_target) ** 2).mean(0) * varies_target,
        cov=((pred - mean_pred) * (target - mean_target)).mean(0) * varies_pred * varies_target,
    )
