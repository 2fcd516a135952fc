"""Paired rows: what every metric on numbers begins with."""

from __future__ import annotations

from typing import Any

import numpy as np

from mersuite.errors import DataError


def paired(pred: Any, target: Any) -> tuple[Any, Any]:
    """Gives both in float64, in the library of pred, after checking that they fit.

    Why: float32 sums over 37,000 rows of values near 128 lose the fourth digit; metrics are compared at the second.

    Args:
        pred: (row, ...) numpy array, torch tensor or nested list.
        target: The same shape.

    Raises:
        DataError: If the shapes differ or there is no row.

    >>> paired([1, 2], [3.0, 4.0])
    (array([1., 2.]), array([3., 4.]))
    """
    pred, target = _in_float64(pred), _in_float64(target)
    if tuple(pred.shape) != tuple(target.shape):
        raise DataError(
            f"metric: predictions have shape {tuple(pred.shape)}, targets {tuple(target.shape)}; "
            "both need one value for the same rows"
        )
    if pred.ndim == 0 or pred.shape[0] == 0:
        raise DataError(f"metric: need at least one row, got shape {tuple(pred.shape)}")
    return pred, target


def _in_float64(values: Any) -> Any:
    """Why the attribute: a tensor is known by it without importing torch, which costs seconds on the command line."""
    return values.double() if hasattr(values, "double") else np.asarray(values, dtype=np.float64)
