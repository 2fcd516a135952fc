"""Face pictures that are stored as one array a clip, as the organisers' OpenFace folders hold them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from mersuite.errors import DataError

_FORM = "uint8 (frame, height, width, 3)"


def read_faces(
    path: Path, *, channel_order: Literal["rgb", "bgr"], frames: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """Gives the faces of one file, or some of them; only these are read from the disk.

    Why the order of channels must be said: of the organisers' own programs one swaps the channels and another does not,
    and no file says which it holds.

    Args:
        path: A .npy file, uint8 (frame, height, width, 3).
        channel_order: The order in which the file holds red, green and blue.
        frames: Numbers of the wanted frames, 0-based, in any order; None gives all.

    Returns:
        (frame, height, width, 3) uint8, RGB, in memory of its own.

    Raises:
        DataError: If the file is missing, empty, cut off or no .npy file; if it holds objects, another type or shape,
            or no frame; if a wanted frame is not there.
    """
    if channel_order not in ("rgb", "bgr"):
        raise DataError(f"{path}: channel_order={channel_order!r}: need 'rgb' or 'bgr'")
    faces = _mapped(Path(path))
    if frames is not None:
        wanted = np.asarray(frames, np.int64).reshape(-1)
        wrong = wanted[(wanted < 0) | (wanted >= len(faces))]
        if wrong.size:
            raise DataError(f"{path}: there is no frame {wrong[0]}; it holds frames 0 to {len(faces) - 1}")
        faces = faces[wanted]
    return np.array(faces if channel_order == "rgb" else faces[..., ::-1], order="C")


def face_shape(path: Path) -> tuple[int, int, int]:
    """Gives (frames, height, width) of a file of faces from its header.

    Raises:
        DataError: As read_faces does.
    """
    frames, height, width, _ = _mapped(Path(path)).shape
    return frames, height, width


def _mapped(path: Path) -> np.ndarray:
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder, need a .npy file' if path.is_dir() else 'no such file'}")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty (0 bytes); extract the faces again")
    try:
        faces = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"{path}: not a readable .npy file of numbers ({error}); extract the faces again") from error
    if not isinstance(faces, np.ndarray):
        faces.close()
        raise DataError(f"{path}: is an npz file, need one .npy array: {_FORM}")
    if faces.dtype != np.uint8 or faces.ndim != 4 or faces.shape[-1] != 3:
        raise DataError(f"{path}: need {_FORM}, got {faces.dtype} {faces.shape}; extract the faces again")
    if 0 in faces.shape:
        raise DataError(
            f"{path}: holds no face: {faces.shape}; leave the clip out or give the faces of another tracker"
        )
    return faces
