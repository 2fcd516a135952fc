"""Which frames of a clip stand for it: evenly spread ones, or the one where most happens."""

from __future__ import annotations

import numpy as np

from mersuite.errors import DataError


def uniform_times(num_frames: int, duration_s: float) -> np.ndarray:
    """Gives the middles of equal parts: (num_frames,) float64, in seconds.

    >>> uniform_times(4, 2.0).tolist()
    [0.25, 0.75, 1.25, 1.75]
    """
    return (np.arange(num_frames) + 0.5) * (duration_s / num_frames)


def uniform_indices(num_frames: int, num_there: int) -> np.ndarray:
    """Gives evenly spread frame numbers, 0-based: (num_frames,) int64, those nearest to the middles of equal parts.

    Numbers come more than once where more frames are wanted than there are.

    >>> uniform_indices(4, 8).tolist(), uniform_indices(4, 2).tolist()
    ([1, 3, 5, 7], [0, 0, 1, 1])

    Raises:
        DataError: If there are no frames, or none are wanted.
    """
    if num_frames < 1 or num_there < 1:
        raise DataError(f"cannot take {num_frames} frames of {num_there}; need at least 1 of at least 1")
    return np.floor(uniform_times(num_frames, num_there)).astype(np.int64)


def peak_frame(scores: np.ndarray) -> int:
    """Gives the number, 0-based, of the frame with the highest score, of equals the first.

    A score is whatever grows with expression, such as summed intensities of action units, or motion energy. NaN marks
    frames without a score, where no face was found.

    >>> peak_frame(np.array([0.5, 2.0, np.nan, 2.0]))
    1

    Args:
        scores: (frame,) numbers.

    Raises:
        DataError: If scores are not one a frame, or no frame has one.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 1 or not np.isfinite(scores).any():
        raise DataError(f"peak frame: need one finite score at least, one a frame; got an array {scores.shape} without")
    return int(np.nanargmax(np.where(np.isfinite(scores), scores, np.nan)))


def motion_energy(images: np.ndarray) -> np.ndarray:
    """Gives how much each frame differs from the one before: (frame,) float64, in grey levels; 0 for the first.

    The mean over pixels of the absolute difference of brightness, which is 0.299 R + 0.587 G + 0.114 B.

    Source: ITU-R BT.601-7, section 2.5.1 (brightness).

    Args:
        images: (frame, height, width, 3) uint8, RGB.

    Raises:
        DataError: If the array has another shape or type.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
        raise DataError(f"motion energy: need uint8 (frame, height, width, 3), got {images.dtype} {images.shape}")
    energy = np.zeros(len(images))
    weights = np.array([0.299, 0.587, 0.114], np.float32)
    last = None
    for index, image in enumerate(images):  # one by one: a clip in floating point is four times as large
        grey = image @ weights
        if last is not None:
            energy[index] = np.abs(grey - last).mean()
        last = grey
    return energy
