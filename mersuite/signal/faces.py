"""Pictures over time as small arrays: size, light, motion of the parts of a face, opening of the mouth.

Axes: F frames, H x W pixels of a frame, S the side of a small picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

GREY = np.array([0.299, 0.587, 0.114], np.float32)
"""Share of red, green and blue in brightness. Source: ITU-R BT.601."""
MIN_DEVIATION = 1.0
"""Deviation of a picture, in steps of 0 to 255, below which it shows nothing. Why: rounding alone gives 0.3."""
BLOCK_FRAMES = 128
"""Frames that are worked on at once; bounds the memory of long clips."""
REGIONS: Mapping[str, tuple[float, float, float, float]] = {
    "brows": (0.10, 0.42, 0.10, 0.90),
    "eyes": (0.34, 0.56, 0.10, 0.90),
    "mouth": (0.62, 0.92, 0.25, 0.75),
    "cheeks": (0.50, 0.75, 0.00, 1.00),
    "all": (0.0, 1.0, 0.0, 1.0),
}
"""Part to top, bottom, left and right, as shares of an upright face that fills the picture, as OpenFace aligns it."""
MOUTH_COLUMNS = (0.40, 0.60)
"""Left and right of where an open mouth is dark."""


@lru_cache(maxsize=32)
def shrink_matrix(num_pixels: int, num_cells: int) -> np.ndarray:
    """Gives what averages pixels into cells of equal size: (cell, pixel) float32; pixels on a border count in parts.

    >>> shrink_matrix(4, 2).tolist(), shrink_matrix(1, 2).tolist()
    ([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 0.5, 0.5]], [[1.0], [1.0]])
    """
    ends = np.linspace(0, num_pixels, num_cells + 1)[:, None]
    pixels = np.arange(num_pixels)
    inside = np.minimum(ends[1:], pixels + 1) - np.maximum(ends[:-1], pixels)
    return (np.maximum(inside, 0) * num_cells / num_pixels).astype(np.float32)


def grey_pictures(frames: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Gives small grey pictures by averaging areas: (F, H, W, 3) uint8, RGB -> (F, rows, columns) float32, 0 to 255."""
    height, width = frames.shape[1:3]
    down, across = shrink_matrix(height, rows), shrink_matrix(width, columns).T
    small = np.empty((len(frames), rows, columns), np.float32)
    for start in range(0, len(frames), BLOCK_FRAMES):
        part = frames[start : start + BLOCK_FRAMES]
        grey = part[..., 0] * GREY[0]
        grey += part[..., 1] * GREY[1]
        grey += part[..., 2] * GREY[2]
        small[start : start + BLOCK_FRAMES] = down @ (grey @ across)
    return small


def normalise_pictures(pictures: np.ndarray) -> np.ndarray:
    """Takes brightness and contrast out of each picture: mean 0 and deviation 1; a blank one becomes zeros."""
    centred = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(axis=(1, 2), keepdims=True))
    return np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > MIN_DEVIATION)


def region(pictures: np.ndarray, name: str) -> np.ndarray:
    """Gives a part of each picture, a view: (F, S, S) -> (F, rows, columns), one row and one column at least."""
    side = pictures.shape[1]
    top, bottom, left, right = REGIONS[name]
    rows, columns = _span(top, bottom, side), _span(left, right, side)
    return pictures[:, rows, columns]


def _span(start: float, end: float, side: int) -> slice:
    first = min(round(start * side), side - 1)
    return slice(first, max(round(end * side), first + 1))


def motion_energy(pictures: np.ndarray) -> np.ndarray:
    """Gives the mean absolute difference from frame to frame in each of REGIONS: (F, S, S) -> (F - 1, region)."""
    changes = np.abs(np.diff(pictures, axis=0))
    return np.stack([region(changes, name).mean(axis=(1, 2)) for name in REGIONS], axis=1)


def mouth_opening(pictures: np.ndarray) -> np.ndarray:
    """Gives how dark and how high the gap between the lips is, as far as a picture tells: (F, S, S) -> (F,), 0 or more.

    It is the mean, over the rows of the mouth's region, of how much darker its middle columns are than their median.
    """
    side = pictures.shape[1]
    mouth = region(pictures, "mouth")
    left = round(REGIONS["mouth"][2] * side)
    columns = _span(MOUTH_COLUMNS[0], MOUTH_COLUMNS[1], side)
    profile = mouth[:, :, columns.start - left : columns.stop - left].mean(axis=2)
    return np.maximum(np.median(profile, axis=1, keepdims=True) - profile, 0).mean(axis=1)
