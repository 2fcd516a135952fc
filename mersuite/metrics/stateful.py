"""The same metrics collected over batches and processes, for training loops.

Every state is a sum, a smallest or a largest value, so that processes are reduced exactly and memory does not grow.
"""

from __future__ import annotations

import torch
from torchmetrics import Metric

from mersuite.metrics.ccc import ccc_of
from mersuite.metrics.moments import Moments
from mersuite.metrics.pearson import pearson_of
from mersuite.metrics.rows import paired


class _MeanOfErrors(Metric):
    full_state_update = False
    is_differentiable = True
    higher_is_better = False
    total: torch.Tensor
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def _add(self, errors: torch.Tensor) -> None:
        self.total = self.total + errors.sum()
        self.count = self.count + errors.numel()

    def compute(self) -> torch.Tensor:
        """Gives the mean over all values seen by all processes; NaN before the first one."""
        return self.total / self.count

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:
        """Keeps the sums in float64. Why: half-precision sums stop growing after a few thousand rows."""
        return self


class MeanAbsolute(_MeanOfErrors):
    """Mean absolute error over all values of all batches; lower is better."""

    def update(self, pred: torch.Tensor, target: torch.Tensor) -> None:
        """Adds pred and target, both (row, ...), on one scale."""
        pred, target = paired(pred, target)
        self._add((pred - target).abs())


class MeanSquared(_MeanOfErrors):
    """Mean squared error over all values of all batches; lower is better."""

    def update(self, pred: torch.Tensor, target: torch.Tensor) -> None:
        """Adds pred and target, both (row, ...), on one scale."""
        pred, target = paired(pred, target)
        self._add((pred - target) ** 2)


class _OfMoments(Metric):
    full_state_update = False
    is_differentiable = True
    higher_is_better = True
    count: torch.Tensor
    sums: torch.Tensor
    lowest: torch.Tensor
    highest: torch.Tensor

    def __init__(self, num_columns: int, center: float = 0.0) -> None:
        """Prepares the sums.

        Args:
            num_columns: Columns of pred and target.
            center: Taken off both before summing; near the data's mean it keeps the digits of the variance.
        """
        super().__init__()
        self.center = center
        self.add_state("count", default=torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("sums", default=torch.zeros(5, num_columns, dtype=torch.float64), dist_reduce_fx="sum")
        low = torch.full((2, num_columns), float("inf"), dtype=torch.float64)
        self.add_state("lowest", default=low, dist_reduce_fx="min")
        self.add_state("highest", default=-low, dist_reduce_fx="max")

    def update(self, pred: torch.Tensor, target: torch.Tensor) -> None:
        """Adds pred and target, both (row, column)."""
        pred, target = paired(pred - self.center, target - self.center)
        self.count = self.count + pred.shape[0]
        self.sums = self.sums + torch.stack([pred, target, pred * pred, target * target, pred * target]).sum(1)
        both = torch.stack([pred, target])
        self.lowest = torch.minimum(self.lowest, both.amin(1))
        self.highest = torch.maximum(self.highest, both.amax(1))

    def moments(self) -> Moments:
        """Gives the population moments of everything seen, one a column."""
        mean_pred, mean_target, square_pred, square_target, product = self.sums / self.count
        varies = self.highest > self.lowest
        return Moments(
            mean_gap=mean_pred - mean_target,
            var_pred=(square_pred - mean_pred**2).clamp(min=0) * varies[0],
            var_target=(square_target - mean_target**2).clamp(min=0) * varies[1],
            cov=(product - mean_pred * mean_target) * varies.all(0),
        )

    def set_dtype(self, dst_type: str | torch.dtype) -> Metric:
        """Keeps the sums in float64. Why: the variance is a small difference of large sums."""
        return self


class Concordance(_OfMoments):
    """Lin's concordance correlation coefficient, one a column; higher is better. See `mersuite.metrics.ccc.ccc`."""

    def compute(self) -> torch.Tensor:
        """Gives (column,) float64 over everything seen by all processes."""
        return ccc_of(self.moments())


class Correlation(_OfMoments):
    """Pearson's correlation coefficient, one a column; higher is better. See `mersuite.metrics.pearson.pearson`."""

    def compute(self) -> torch.Tensor:
        """Gives (column,) float64 over everything seen by all processes."""
        return pearson_of(self.moments())
