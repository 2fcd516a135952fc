"""Pearson's correlation coefficient."""

from __future__ import annotations

from typing import Any

from mersuite.metrics.moments import Moments, moments


def pearson(pred: Any, target: Any) -> Any:
    """Gives Pearson's correlation along the rows, one a column, in [-1, 1]; 0 where either side is constant.

    Why 0 for constants: the coefficient is undefined there, and a constant answer carries no information on the order
    of the targets; NaN would spread through means over subjects.

    Args:
        pred: (row,) or (row, column) numpy array, torch tensor or nested list.
        target: The same shape.

    Raises:
        DataError: If the shapes differ or there is no row.

    Source:
        Pearson (1895), Notes on regression and inheritance in the case of two parents, Proc. R. Soc. London 58.

    >>> round(float(pearson([1.0, 2.0, 3.0], [1.0, 2.0, 4.0])), 6)
    0.981981
    >>> float(pearson([7.0, 7.0, 7.0], [1.0, 2.0, 4.0]))
    0.0
    """
    return pearson_of(moments(pred, target))


def pearson_of(of: Moments) -> Any:
    """Gives the correlation from population moments, with the same rule for constants as `pearson`."""
    below = of.var_pred**0.5 * of.var_target**0.5
    return of.cov / (below + (below == 0))
