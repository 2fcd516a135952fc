"""Medians of many rows at once."""

from __future__ import annotations

import numpy as np


def row_medians(values: np.ndarray) -> np.ndarray:
    """Gives each row's median: (row, value) floating point without NaN -> (row,).

    Why one place and a maximum: NumPy selects a single place with vector instructions, many times faster than the two
    that `numpy.median` asks for.

    >>> row_medians(np.array([[3.0, 1.0, 2.0, 10.0], [0.0, 0.0, 5.0, 1.0]]))
    array([2.5, 0.5])
    """
    half = values.shape[1] // 2
    parted = np.partition(values, half, axis=1)
    if values.shape[1] % 2:
        return parted[:, half]
    return (parted[:, half] + parted[:, :half].max(axis=1)) / 2
