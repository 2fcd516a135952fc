"""How much a mouth moves, head motion left out."""

from __future__ import annotations

import numpy as np

_SIDE = 56
_NUM_STEPS = 4
_BLOCK = 128
_RIGID = (0.10, 0.06, 0.90, 0.62)
_MOUTH = (0.22, 0.66, 0.78, 1.06)
"""Left, top, right, bottom in shares of the detector's box (eyes at 0.36, mouth at 0.82)."""


def mouth_motion(crops: np.ndarray, seen: np.ndarray, *, margin: float) -> np.ndarray:
    """Motion of the mouth between each frame and the one before, (frame,) float64, NaN where either is not seen.

    The upper face is registered to the frame before by a similarity (shift, turn, scale; Gauss-Newton on all pairs at
    once), the whole crop follows, and what then still differs in the upper face (turning, blinks, light, noise) is
    taken from what differs in the mouth's region. Both are mean absolute differences in units of the crop's contrast.
    Source: Lucas, Kanade, "An iterative image registration technique", IJCAI 1981.

    Args:
        crops: (frame, side, side, 3) uint8, as `read_crops` gives one track.
        seen: (frame,) bool.
        margin: What `read_crops` added around the box.
    """
    motion = np.full(len(crops), np.nan)
    is_pair = np.append(False, seen[1:] & seen[:-1])
    rigid, mouth = _region(_RIGID, margin), _region(_MOUTH, margin)
    for start in range(1, len(crops), _BLOCK):  # in blocks: a minute at once would take a gigabyte
        later = start + np.flatnonzero(is_pair[start : start + _BLOCK])
        if not len(later):
            continue
        grey = _small(crops[start - 1 : start + _BLOCK])
        before, after = grey[later - start], grey[later - start + 1]
        moved = _registered(before, after, rigid)
        contrast = np.maximum(after.std(axis=(1, 2)), 1.0)
        motion[later] = (_difference(before, moved, mouth) - _difference(before, moved, rigid)) / contrast
    return motion


def opening_motion(opening: np.ndarray) -> np.ndarray:
    """Motion of a mouth whose opening landmarks tell, (frame,) float64: its change plus how far it is opened.

    Both are shares of the box's side; 0 is the usual opening. Why not standardised: jitter of a still mouth would be
    as large as speech.

    Args:
        opening: (frame,) float64, NaN where it is not known; then the result is NaN too.
    """
    change = np.abs(np.diff(opening, prepend=np.nan))
    known = np.isfinite(change)
    usual = np.median(opening[known]) if known.any() else np.nan
    return np.where(known, change + opening - usual, np.nan)


def _small(crops: np.ndarray) -> np.ndarray:
    """(frame, 56, 56) float32, grey, of crops whose side is a multiple of 56 by averaging, else by nearest areas."""
    grey = crops.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    edges = np.linspace(0, grey.shape[1], _SIDE + 1).astype(int)
    starts = np.minimum(edges[:-1], grey.shape[1] - 1)
    widths = np.maximum(np.diff(edges), 1).astype(np.float32)
    rows = np.add.reduceat(grey, starts, axis=1) / widths[:, None]
    return np.add.reduceat(rows, starts, axis=2) / widths


def _region(place: tuple[float, float, float, float], margin: float) -> tuple[slice, slice]:
    """Rows and columns of a part of the box in the small crop."""
    left, top, right, bottom = (round((edge + margin) / (1 + 2 * margin) * _SIDE) for edge in place)
    return slice(max(top, 1), min(bottom, _SIDE - 1)), slice(max(left, 1), min(right, _SIDE - 1))


def _difference(one: np.ndarray, other: np.ndarray, region: tuple[slice, slice]) -> np.ndarray:
    """Mean absolute difference in a region, (pair,); a change of the region's brightness does not count."""
    apart = one[:, *region] - other[:, *region]
    return np.abs(apart - apart.mean(axis=(1, 2), keepdims=True)).mean(axis=(1, 2))


def _registered(before: np.ndarray, after: np.ndarray, region: tuple[slice, slice]) -> np.ndarray:
    """The later pictures moved onto the earlier ones, (pair, 56, 56), by the similarity that fits a region best."""
    y, x = (each.astype(np.float32) for each in np.mgrid[:_SIDE, :_SIDE])
    centre_y, centre_x = (0.5 * (part.start + part.stop - 1) for part in region)
    from_y, from_x = (y - centre_y) / _SIDE, (x - centre_x) / _SIDE
    slope_y, slope_x = np.gradient(before, axis=(1, 2))
    steps = np.stack(
        [slope_y, slope_x, slope_y * from_y + slope_x * from_x, slope_y * from_x - slope_x * from_y], axis=-1
    )[:, *region].reshape(len(before), -1, 4)
    normal = np.einsum("pni,pnj->pij", steps, steps) + 1e-2 * np.eye(4, dtype=np.float32)
    place = np.zeros((len(before), 4), np.float32)  # shift down, shift right, growth, turn
    moved = after
    for _ in range(_NUM_STEPS):
        error = (before - moved)[:, *region]
        error = (error - error.mean(axis=(1, 2), keepdims=True)).reshape(len(before), -1)
        place += np.linalg.solve(normal, np.einsum("pni,pn->pi", steps, error)[..., None])[..., 0]
        place = np.clip(place, -0.25 * _SIDE, 0.25 * _SIDE)
        down, right, grow, turn = (each[:, None, None] for each in place.T)
        moved = _sampled(after, y + down + grow * from_y + turn * from_x, x + right + grow * from_x - turn * from_y)
    return moved


def _sampled(pictures: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Pictures (pair, 56, 56) at fractional places, bilinear; places outside take the edge."""
    y, x = np.clip(y, 0, _SIDE - 1.001), np.clip(x, 0, _SIDE - 1.001)
    top, left = y.astype(np.intp), x.astype(np.intp)
    down, right = y - top, x - left
    flat = pictures.reshape(-1)
    corner = np.arange(len(pictures))[:, None, None] * _SIDE**2 + top * _SIDE + left
    upper = flat[corner] * (1 - right) + flat[corner + 1] * right
    lower = flat[corner + _SIDE] * (1 - right) + flat[corner + _SIDE + 1] * right
    return upper * (1 - down) + lower * down
