"""Seconds of a recording: how many there are, and each one's samples.

Axes: T samples, W samples of a second, S seconds, C channels.
"""

from __future__ import annotations

import numpy as np

LAST_SECOND_SLACK = 0.05
"""Share of the last second that may be missing. Why: 1000/21 Hz does not divide a second; readers count alike."""


def num_seconds(num_samples: int, rate_hz: float) -> int:
    """Gives the whole seconds of a recording.

    >>> num_seconds(135_000, 1000.0), num_seconds(6428, 1000 / 21), num_seconds(199, 200.0), num_seconds(150, 200.0)
    (135, 135, 1, 0)
    """
    return int(num_samples / rate_hz + LAST_SECOND_SLACK)


def cut_seconds(recording: np.ndarray, rate_hz: float, seconds: int) -> np.ndarray:
    """Gives the samples of each second: (T, C) -> (S, W, C), a view where seconds are whole numbers of samples.

    Second s begins at the sample nearest to s / rate; the last one is moved forward where samples are missing at the
    end.

    Raises:
        ValueError: If there is not one whole second.
    """
    width = round(rate_hz)
    if seconds < 1 or len(recording) < width:
        raise ValueError(f"need a second of {width} samples or more, got {len(recording)} samples")
    if seconds * width <= len(recording) and width == rate_hz:
        return recording[: seconds * width].reshape(seconds, width, recording.shape[1])
    starts = np.minimum(np.round(np.arange(seconds) * rate_hz).astype(int), len(recording) - width)
    return recording[starts[:, None] + np.arange(width)]
