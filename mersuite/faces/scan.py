"""Reads the pictures of a clip once: where scenes are cut, and which faces are found when."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mersuite.clip import Media
from mersuite.errors import DataError
from mersuite.faces.config import FacesConfig
from mersuite.faces.detectors import Detection, Detector, open_detector, opencv
from mersuite.media.video import iter_frames, probe

_COLOUR_LEVELS = 6
_HISTOGRAM_STEP = 4
_LAYOUT_SIZE = (16, 12)
_CUT_LAYOUT = 0.7
_CUT_LEVELS = 6.0
"""Neighbouring frames whose layouts correlate less, and differ by more grey levels, belong to two scenes. Heads that
move keep it above 0.95; people who change places before the same wall, as in shot and reverse shot, do not."""
_EPSILON_S = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """What was seen in a clip.

    Attributes:
        times_s: (frame,) float64, seconds from the start of the clip.
        scenes: (frame,) int64, number of the scene, from 0.
        detections: Frame to what was found in it; frames that were not searched are not there.
        size: Height and width of the pictures that were searched, in pixels.
        pictures: Every frame as it was read, (height, width, 3) uint8, RGB; None where they were too many to keep.
    """

    times_s: np.ndarray
    scenes: np.ndarray
    detections: Mapping[int, list[Detection]]
    size: tuple[int, int]
    pictures: Sequence[np.ndarray] | None


def scan(video: Media, name: str, config: FacesConfig) -> Scan:
    """Reads all frames of a clip, at most rate_hz a second, and looks for faces in some of them.

    The first and last frame of each scene are searched, and one each 1 / detect_rate_hz between; the whole picture at
    each scene's start and each 1 / search_rate_hz, else only near the faces that were found last.

    Raises:
        DataError: If the video cannot be read or has no frames.
        ConfigError: If the detector cannot be made.
    """
    own_height = probe(video.path).height
    height = min(config.height, own_height)
    searcher = _Searcher(open_detector(config, name=name, scale=height / own_height), config, video.start_s)
    pictures: list[np.ndarray] | None = []
    for time_s, image in stretch_frames(video, config.rate_hz, min(config.crop_height, own_height)):
        searcher.take(time_s, _lowered(image, height))
        if pictures is not None:
            pictures.append(image)
            if len(pictures) * image.nbytes > config.keep_mb * 1e6:
                pictures = None
    searcher.finish()
    if not searcher.times_s:
        raise DataError(
            f"{video.path}: no picture in the stretch from {video.start_s:g} s; check start_s and duration_s"
        )
    return Scan(
        times_s=np.array(searcher.times_s),
        scenes=np.array(searcher.scenes),
        detections=searcher.detections,
        size=searcher.size,
        pictures=pictures,
    )


def stretch_frames(video: Media, rate_hz: float, height: int) -> Iterator[tuple[float, np.ndarray]]:
    """Frames of the stretch that a Media names, as `iter_frames` gives them."""
    return iter_frames(video.path, start_s=video.start_s, duration_s=video.duration_s, rate_hz=rate_hz, height=height)


def _lowered(image: np.ndarray, height: int) -> np.ndarray:
    if image.shape[0] <= height:
        return image
    cv2 = opencv()
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)


def colours(image: np.ndarray) -> np.ndarray:
    """The colour histogram of a picture, (216,) float64, sum 1; of each fourth pixel in both directions.

    Args:
        image: (height, width, 3) uint8.
    """
    levels = image[::_HISTOGRAM_STEP, ::_HISTOGRAM_STEP].astype(np.int64) * _COLOUR_LEVELS // 256
    place = (levels[..., 0] * _COLOUR_LEVELS + levels[..., 1]) * _COLOUR_LEVELS + levels[..., 2]
    counts = np.bincount(place.ravel(), minlength=_COLOUR_LEVELS**3)
    return counts / place.size


def layout(image: np.ndarray) -> np.ndarray:
    """Where a picture is light and dark: (12, 16) float64, grey levels with mean 0.

    Args:
        image: (height, width, 3) uint8.
    """
    cv2 = opencv()
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, _LAYOUT_SIZE, interpolation=cv2.INTER_AREA).astype(np.float64)
    return small - small.mean()


def is_other_place(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether two layouts are so different that a scene was cut between them, though their colours may be the same."""
    if np.abs(after - before).mean() <= _CUT_LEVELS:
        return False
    return bool(np.sum(before * after) < _CUT_LAYOUT * np.sqrt(np.sum(before**2) * np.sum(after**2)))


class _Searcher:
    """Takes frames in order and decides what is searched where."""

    def __init__(self, detector: Detector, config: FacesConfig, start_s: float) -> None:
        self._detector = detector
        self._config = config
        self._start_s = start_s
        self._looks: tuple[np.ndarray, np.ndarray] | None = None
        self._image: np.ndarray | None = None
        self._detected_s = self._searched_s = -np.inf
        self._near: list[Detection] = []
        self.times_s: list[float] = []
        self.scenes: list[int] = []
        self.detections: dict[int, list[Detection]] = {}
        self.size = (0, 0)

    def take(self, time_s: float, image: np.ndarray) -> None:
        """Takes the next frame."""
        looks = colours(image), layout(image)
        scene = self.scenes[-1] if self.scenes else 0
        if self._looks is not None and self._is_cut(self._looks, looks):
            self.finish()
            scene += 1
            self._detected_s = self._searched_s = -np.inf
        self._looks, self._image, self.size = looks, image, (image.shape[0], image.shape[1])
        self.times_s.append(time_s)
        self.scenes.append(scene)
        if self._detector.every_frame or self._is_due(self._detected_s, self._config.detect_rate_hz):
            self._search()

    def finish(self) -> None:
        """Searches the last frame, where that was not done."""
        if self._image is not None and len(self.times_s) - 1 not in self.detections:
            self._search()

    def _is_cut(self, before: tuple[np.ndarray, np.ndarray], after: tuple[np.ndarray, np.ndarray]) -> bool:
        changed = 0.5 * np.abs(after[0] - before[0]).sum()
        return changed > self._config.cut_threshold or is_other_place(before[1], after[1])

    def _is_due(self, last_s: float, rate_hz: float) -> bool:
        return self.times_s[-1] - last_s >= 1 / rate_hz - _EPSILON_S

    def _search(self) -> None:
        if self._image is None:
            return
        time_s = self.times_s[-1]
        everywhere = not self._near or self._is_due(self._searched_s, self._config.search_rate_hz)
        near = None if everywhere else self._near
        found = self._detector.detect(self._image, time_s + self._start_s, near)
        self.detections[len(self.times_s) - 1] = found
        self._detected_s = time_s
        if everywhere:
            self._searched_s = time_s
            self._near = found
        else:  # a face that was missed once is looked for where it was, until the next search everywhere
            self._near = found + [face for face in self._near if not _covered(face, found)]


def _covered(face: Detection, found: list[Detection]) -> bool:
    x, y = face.box[0] + face.box[2] / 2, face.box[1] + face.box[3] / 2
    return any(0 <= x - box[0] <= box[2] and 0 <= y - box[1] <= box[3] for box in (each.box for each in found))
