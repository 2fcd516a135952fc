"""Mean absolute and mean squared error."""

from __future__ import annotations

from typing import Any

from mersuite.metrics.rows import paired


def mae(pred: Any, target: Any) -> Any:
    """Gives the mean absolute error over all values, as a number of the library that pred is of.

    Args:
        pred: (row, ...) numpy array, torch tensor or nested list.
        target: The same shape and scale.

    Raises:
        DataError: If the shapes differ or there is no row.

    >>> float(mae([[1.0, 2.0], [3.0, 4.0]], [[2.0, 2.0], [0.0, 4.0]]))
    1.0
    """
    pred, target = paired(pred, target)
    return abs(pred - target).mean()


def mse(pred: Any, target: Any) -> Any:
    """Gives the mean squared error over all values, as a number of the library that pred is of.

    Args:
        pred: (row, ...) numpy array, torch tensor or nested list.
        target: The same shape and scale.

    Raises:
        DataError: If the shapes differ or there is no row.

    >>> float(mse([1.0, 2.0, 3.0], [1.0, 4.0, 2.0])) == 5 / 3
    True
    """
    pred, target = paired(pred, target)
    return ((pred - target) ** 2).mean()
