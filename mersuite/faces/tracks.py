"""Links faces that were found in single frames to tracks over time."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import linear_sum_assignment

from mersuite.faces.config import FacesConfig
from mersuite.faces.detectors import Detection, iou

_LONGEST_FORECAST_S = 0.4
_REACH = 0.6
_LEAST_IOU_AFTER_GAP = 0.3
_SIZE_RATIO = 1.7
_FORBIDDEN = 1e6
_MIN_DETECTIONS = 2
_WHOLE_SHARE = 0.8
"""A track of this share of a clip lasts long enough, however short the clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One face over time, within one scene.

    Attributes:
        boxes: (frame, 4) float64, x, y, width, height in pixels of the searched picture; NaN where it is not seen.
        seen: (frame,) bool, found or interpolated.
        opening: (frame,) float64, opening of the mouth as a share of the box's side; NaN where no landmarks tell it.
        confidence: Mean over its detections.
        num_detections: How often it was found.
        scene: Number of the scene.
    """

    boxes: np.ndarray
    seen: np.ndarray
    opening: np.ndarray
    confidence: float
    num_detections: int
    scene: int

    @property
    def weight(self) -> float:
        """Frames in which it is seen, times the mean side of the box."""
        return float(np.sum(self.boxes[self.seen, 2]))


@dataclass(slots=True)
class _Open:
    """A track that may go on."""

    scene: int
    frames: list[int] = field(default_factory=list)
    found: list[Detection] = field(default_factory=list)

    def forecast(self, times_s: np.ndarray, frame: int) -> np.ndarray:
        """Where the face should be, (4,): it keeps its speed for a while."""
        last = np.array(self.found[-1].box)
        if len(self.frames) < 2:
            return last
        past_s = times_s[self.frames[-1]] - times_s[self.frames[-2]]
        ahead_s = min(times_s[frame] - times_s[self.frames[-1]], _LONGEST_FORECAST_S)
        step = (last - np.array(self.found[-2].box)) * ahead_s / past_s
        step[:2] += step[2:] / 2
        return np.array([*(last[:2] + step[:2]), *last[2:]])


def link(
    detections: Mapping[int, Sequence[Detection]], times_s: np.ndarray, scenes: np.ndarray, config: FacesConfig
) -> list[Track]:
    """Gives the tracks of a clip, the largest weight first.

    In each searched frame detections are assigned to open tracks at the least total cost, which is 1 - IoU with the
    forecast box plus half the distance of centres in sides; a track never goes on over a scene cut. After a gap of more
    than max_gap_s it goes on only where it was, and is not interpolated between.

    Args:
        detections: Searched frame to what was found in it.
        times_s: (frame,) float64, seconds.
        scenes: (frame,) int, number of the scene.
        config: Its max_gap_s, min_track_s, smooth_s.
    """
    every: list[_Open] = []
    for frame in sorted(detections):
        scene = int(scenes[frame])
        usable = [track for track in every if track.scene == scene]
        found = list(detections[frame])
        taken = _assign(usable, found, times_s, frame, config.max_gap_s)
        for index, detection in enumerate(found):
            if index in taken:
                track = taken[index]
            else:
                track = _Open(scene=scene)
                every.append(track)
            track.frames.append(frame)
            track.found.append(detection)
    searched = np.array(sorted(detections))
    least_s = min(config.min_track_s, _WHOLE_SHARE * float(times_s[-1] - times_s[0])) if len(times_s) else 0.0
    least = min(_MIN_DETECTIONS, len(searched))
    lasting = [track for track in every if len(track.frames) >= least and _length_s(track, times_s) >= least_s]
    closed = [_closed(track, times_s, scenes, searched, config) for track in lasting]
    return sorted(closed, key=lambda track: -track.weight)


def choose(tracks: Sequence[Track], num_people: int) -> list[Track]:
    """Keeps the people: the tracks of largest weight in one scene, the scene that shows most people (up to num_people).

    Why one scene: tracks of two scenes may be the same person. Among scenes with as many people the largest sum of
    weights wins.

    Args:
        tracks: As `link` gives them.
        num_people: At most so many are kept.
    """
    best: list[Track] = []
    for scene in sorted({track.scene for track in tracks}):
        there = [track for track in tracks if track.scene == scene][:num_people]
        if (len(there), _total(there)) > (len(best), _total(best)):
            best = there
    return best


def _total(tracks: Sequence[Track]) -> float:
    return sum(track.weight for track in tracks)


def _assign(
    tracks: Sequence[_Open], found: Sequence[Detection], times_s: np.ndarray, frame: int, max_gap_s: float
) -> dict[int, _Open]:
    """Index of a detection to the track that goes on with it."""
    if not tracks or not found:
        return {}
    costs = np.full((len(tracks), len(found)), _FORBIDDEN)
    for row, track in enumerate(tracks):
        is_fresh = times_s[frame] - times_s[track.frames[-1]] <= max_gap_s
        expected = track.forecast(times_s, frame) if is_fresh else np.array(track.found[-1].box)
        for column, detection in enumerate(found):
            costs[row, column] = _cost(expected, np.array(detection.box), is_fresh)
    rows, columns = linear_sum_assignment(costs)
    pairs = zip(rows, columns, strict=True)
    return {int(column): tracks[row] for row, column in pairs if costs[row, column] < _FORBIDDEN}


def _cost(expected: np.ndarray, box: np.ndarray, is_fresh: bool) -> float:
    overlap = iou(expected, box)
    ratio = box[2] / expected[2]
    apart = float(np.hypot(*(box[:2] + box[2:] / 2 - expected[:2] - expected[2:] / 2))) / expected[2]
    allowed = apart <= _REACH if is_fresh else overlap >= _LEAST_IOU_AFTER_GAP
    if not allowed or not 1 / _SIZE_RATIO < ratio < _SIZE_RATIO:
        return _FORBIDDEN
    return 1 - overlap + 0.5 * apart


def _length_s(track: _Open, times_s: np.ndarray) -> float:
    return float(times_s[track.frames[-1]] - times_s[track.frames[0]])


def _closed(track: _Open, times_s: np.ndarray, scenes: np.ndarray, searched: np.ndarray, config: FacesConfig) -> Track:
    """Fills the frames between detections and smooths."""
    num_frames = len(times_s)
    boxes = np.full((num_frames, 4), np.nan)
    opening = np.full(num_frames, np.nan)
    points = np.array([detection.box for detection in track.found])
    opening[track.frames] = [detection.opening for detection in track.found]
    for start, stop in _runs(np.array(track.frames), times_s, config.max_gap_s):
        frames = np.array(track.frames[start:stop])
        first, last = _hold(frames, searched, scenes, track.scene)
        inside = np.arange(first, last + 1)
        filled = np.stack([np.interp(times_s[inside], times_s[frames], column) for column in points[start:stop].T], 1)
        boxes[inside] = _smoothed(filled, times_s, config.smooth_s)
    seen = ~np.isnan(boxes[:, 0])
    confidence = float(np.mean([detection.confidence for detection in track.found]))
    return Track(
        boxes=boxes,
        seen=seen,
        opening=opening,
        confidence=confidence,
        num_detections=len(track.frames),
        scene=track.scene,
    )


def _runs(frames: np.ndarray, times_s: np.ndarray, max_gap_s: float) -> list[tuple[int, int]]:
    """Stretches of detections without a gap longer than max_gap_s, as (start, stop)."""
    breaks = np.flatnonzero(np.diff(times_s[frames]) > max_gap_s + 1e-6) + 1
    edges = [0, *breaks.tolist(), len(frames)]
    return list(itertools.pairwise(edges))


def _hold(frames: np.ndarray, searched: np.ndarray, scenes: np.ndarray, scene: int) -> tuple[int, int]:
    """First and last frame of a run: it is held half way to the searched frame before and after, within its scene."""
    inside = np.flatnonzero(scenes == scene)
    before, after = searched[searched < frames[0]], searched[searched > frames[-1]]
    first = inside[0] if not len(before) else max(int(inside[0]), int(before[-1] + frames[0] + 1) // 2)
    last = inside[-1] if not len(after) else min(int(inside[-1]), int(frames[-1] + after[0]) // 2)
    return int(first), int(last)


def _smoothed(boxes: np.ndarray, times_s: np.ndarray, smooth_s: float) -> np.ndarray:
    step_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 0.0
    if smooth_s == 0 or step_s == 0:
        return boxes
    return gaussian_filter1d(boxes, smooth_s / step_s, axis=0, mode="nearest")
