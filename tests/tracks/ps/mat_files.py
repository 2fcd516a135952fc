"""Faulty .mat files for tests of the reader and of the check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.io


def change(path: Path, key: str, function: Callable[[np.ndarray], np.ndarray | None]) -> None:
    """Rewrites one variable of a .mat file; None takes it out."""
    content = {name: array for name, array in scipy.io.loadmat(path).items() if not name.startswith("__")}
    changed = function(content.pop(key))
    scipy.io.savemat(path, content if changed is None else {**content, key: changed}, do_compression=True)
