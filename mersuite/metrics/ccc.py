"""Lin's concordance correlation coefficient."""

from __future__ import annotations

from typing import Any

from mersuite.metrics.moments import Moments, moments


def ccc(pred: Any, target: Any) -> Any:
    """Gives the concordance correlation coefficient along the rows, one a column, in [-1, 1].

    2 cov / (var_pred + var_target + (mean_pred - mean_target)^2), with population moments (divided by the number of
    rows). It is defined everywhere: 0 where either side is constant, except that two identical constants agree fully
    and give 1.

    Why our own: torchmetrics divides by rows minus one beside an unscaled gap of means, so its value depends on the
    number of rows, and gives NaN on constants, which a system that answers 128 must be able to be scored with.

    Args:
        pred: (row,) or (row, column) numpy array, torch tensor or nested list.
        target: The same shape and scale.

    Raises:
        DataError: If the shapes differ or there is no row.

    Source:
        Lin (1989), A concordance correlation coefficient to evaluate reproducibility, Biometrics 45(1), equation for
        rho_c with the 1/n moments of section 3.

    >>> float(ccc([1.0, 2.0, 3.0], [1.0, 2.0, 3.0]))
    1.0
    >>> round(float(ccc([1.0, 2.0, 3.0], [2.0, 3.0, 4.0])), 6)
    0.571429
    >>> float(ccc([128.0, 128.0], [100.0, 150.0])), float(ccc([5.0, 5.0], [5.0, 5.0]))
    (0.0, 1.0)
    """
    return ccc_of(moments(pred, target))


def ccc_of(of: Moments) -> Any:
    """Gives the coefficient from population moments, with the same rule for constants as `ccc`."""
    below = of.var_pred + of.var_target + of.mean_gap**2
    identical = below == 0
    return 2 * of.cov / (below + identical) + identical * 1.0
