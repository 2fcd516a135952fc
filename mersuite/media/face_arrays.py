"""Face pictures that are stored as one array a clip."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from mersuite.errors import DataError


def read_faces(path: Path, *, channel_order: Literal["rgb", "bgr"]) -> np.ndarray:
    """Gives the faces of one file: (frame, height, width, 3) uint8, RGB.

    Args:
        path: A .npy file, uint8 (frame, height, width, 3).
        channel_order: How the file orders its channels.

    Raises:
        DataError: If the file is missing, empty, broken, or no array of that form.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        faces = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: not a readable .npy file ({error}); make or copy it again") from error
    if faces.dtype != np.uint8 or faces.ndim != 4 or faces.shape[-1] != 3 or 0 in faces.shape:
        raise DataError(f"{path}: need uint8 (frame, height, width, 3), got {faces.dtype} {faces.shape}")
    return np.array(faces if channel_order == "rgb" else faces[..., ::-1], order="C")
