"""Decoded frames as RGB arrays, the way a player shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from av import VideoFrame

_ONE = 1 << 16
"""1.0 in the display matrix of a film: 16 binary places."""


def shown_size(frame: VideoFrame) -> tuple[int, int]:
    """Gives (width, height) of a frame as shown."""
    swaps = _turn(frame)[0]
    return (frame.height, frame.width) if swaps else (frame.width, frame.height)


def shown_picture(frame: VideoFrame, height: int | None = None) -> np.ndarray:
    """Gives a frame as (height, width, 3) uint8 RGB, turned and mirrored as the file asks for.

    Why one thread for the colours: with a thread a processor, handing out the work takes longer than the work, and
    features are made by many processes at once.

    Args:
        frame: The decoded frame.
        height: Height as shown; the width follows, at least 1. None keeps the size.
    """
    swaps, flips_rows, flips_columns = _turn(frame)
    width, tall = shown_size(frame)
    if height is not None:
        width, tall = max(1, round(width * height / tall)), height
    if swaps:
        width, tall = tall, width
    image = frame.reformat(width=width, height=tall, format="rgb24", interpolation="BICUBIC", threads=1).to_ndarray()
    if swaps:
        image = image.transpose(1, 0, 2)
    return np.ascontiguousarray(image[:: -1 if flips_rows else 1, :: -1 if flips_columns else 1])


def _turn(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """Gives whether rows and columns change places, and then whether rows and columns run backwards.

    The display matrix (a b . / c d . / ...) maps a point (x, y) to (a x + c y, b x + d y). Only quarter turns and
    mirrors are followed; other angles leave the frame as it is.
    """
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].tolist()
    if (a, d) == (0, 0) and (abs(b), abs(c)) == (_ONE, _ONE):
        return True, b < 0, c < 0
    if (b, c) == (0, 0) and (abs(a), abs(d)) == (_ONE, _ONE):
        return False, d < 0, a < 0
    return False, False, False
