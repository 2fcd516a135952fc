"""Detectors of faces by name: OpenCV's cascade, YuNet by path, csv files of OpenFace.

All give boxes in one convention, that of the cascade: a square with the eyes at 0.36 and the mouth at 0.82 of its
height. So what is measured inside of a box means the same whoever found it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from mersuite.errors import ConfigError, DataError
from mersuite.faces.config import FacesConfig
from mersuite.formats.openface import OpenFaceTable, openface_path, openface_places, read_openface

EYES_AT = 0.36
MOUTH_AT = 0.82
_SCALE_STEP = 1.2
_NUM_NEIGHBOURS = 3
_SAME_FACE_IOU = 0.4
_CASCADES = {
    "alt2": ("haarcascade_frontalface_alt2.xml", 53.76, 1.2),
    "default": ("haarcascade_frontalface_default.xml", -2.99, 3.5),
    "profile": ("haarcascade_profileface.xml", -1.27, 1.2),
}
"""File, threshold of its last stage, and how far above it a weight has confidence 0.5."""
_INNER_LIPS = ((61, 67), (62, 66), (63, 65))
"""Pairs of landmarks above and below the opening of the mouth, in the 68-point scheme."""
_EYES = slice(36, 48)
_LIPS = slice(48, 68)


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """One face in one picture.

    Attributes:
        box: x, y (left, top), width, height in pixels of the picture that was searched.
        confidence: 0..1.
        opening: Distance of the inner lips as a share of the box's side, where landmarks tell it; else NaN.
    """

    box: tuple[float, float, float, float]
    confidence: float
    opening: float = float("nan")


class Detector(ABC):
    """Finds faces in the frames of one clip.

    Attributes:
        every_frame: Its answers cost so little that each frame is asked for.
    """

    every_frame: ClassVar[bool] = False

    @abstractmethod
    def detect(self, image: np.ndarray, time_s: float, near: Sequence[Detection] | None) -> list[Detection]:
        """Finds faces.

        Args:
            image: (height, width, 3) uint8, RGB.
            time_s: Time of the frame from the start of the file.
            near: Look only near these faces; None looks everywhere.
        """


def open_detector(config: FacesConfig, *, name: str, scale: float) -> Detector:
    """Makes the detector that a configuration names, for one clip.

    Args:
        config: Names it.
        name: The clip, for detectors that read files.
        scale: Height of the searched picture as a share of the video's own.

    Raises:
        ConfigError: If OpenCV or the model is not there.
        DataError: If an OpenFace csv is missing or has no landmarks.
    """
    if config.detector == "openface":
        table = read_openface(openface_path(_given(config.openface_root), name))
        return OpenFaceDetector(table, scale=scale, min_confidence=config.min_detection)
    if config.detector == "yunet":
        return YunetDetector(_given(config.yunet_path), config)
    return CascadeDetector(config)


def check_detector(config: FacesConfig) -> None:
    """Tells before any work whether the detector can be made.

    Raises:
        ConfigError: If OpenCV, its cascade, the YuNet model or the OpenFace folder is not there.
    """
    if config.detector != "openface":
        open_detector(config, name="", scale=1.0)
    elif not _given(config.openface_root).is_dir():
        raise ConfigError(f"openface_root: {config.openface_root} is no folder")


def detector_files(config: FacesConfig, name: str) -> list[Path]:
    """Files beside the video that a clip's detections depend on, where they are there."""
    if config.detector == "yunet":
        return [_given(config.yunet_path)]
    if config.detector == "openface":
        return [path for path in openface_places(_given(config.openface_root), name) if path.is_file()][:1]
    return []


def opencv() -> ModuleType:
    """OpenCV, loaded when it is needed.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise ConfigError("faces need OpenCV, which is not installed: pip install 'mersuite[faces]'") from error
    return cv2


class CascadeDetector(Detector):
    """OpenCV's bundled cascades of Haar features.

    The confidence of a box is 1 - 2^(-(w - t) / h), where w is the sum of the last stage, t that stage's threshold and
    h a constant of each cascade: 0 at the threshold, 0.5 at h above it, rising with w.
    Source: Viola, Jones, "Rapid object detection using a boosted cascade of simple features", CVPR 2001.
    """

    def __init__(self, config: FacesConfig) -> None:
        self._cv2 = opencv()
        self._min_face = config.min_face
        self._min_confidence = config.min_detection
        self._parts: list[tuple[str, bool]] = [(config.cascade, False)]
        if config.profile:
            self._parts += [("profile", False), ("profile", True)]
        self._cascades = {part: self._load(_CASCADES[part][0]) for part, _ in self._parts}

    def detect(self, image: np.ndarray, time_s: float, near: Sequence[Detection] | None) -> list[Detection]:
        grey = self._cv2.cvtColor(image, self._cv2.COLOR_RGB2GRAY)
        smallest = self._min_face * grey.shape[0]
        found: list[Detection] = []
        for part, mirrored in self._parts:
            if near is None:
                found += self._search(grey, part, mirrored, (0, 0), smallest, min(grey.shape))
                continue
            for face in near:
                left, top, side, _ = face.box
                x0, y0 = max(0, int(left - 0.4 * side)), max(0, int(top - 0.4 * side))
                x1, y1 = int(left + 1.4 * side), int(top + 1.4 * side)
                window = np.ascontiguousarray(grey[y0:y1, x0:x1])
                found += self._search(window, part, mirrored, (x0, y0), max(smallest, 0.75 * side), 1.4 * side)
        return distinct([each for each in found if each.confidence >= self._min_confidence])

    def _search(
        self, grey: np.ndarray, part: str, mirrored: bool, corner: tuple[int, int], smallest: float, largest: float
    ) -> list[Detection]:
        if min(grey.shape) < smallest:
            return []
        _, threshold, half = _CASCADES[part]
        boxes, _, weights = self._cascades[part].detectMultiScale3(
            np.ascontiguousarray(grey[:, ::-1]) if mirrored else grey,
            scaleFactor=_SCALE_STEP,
            minNeighbors=_NUM_NEIGHBOURS,
            minSize=(round(smallest), round(smallest)),
            maxSize=(round(largest), round(largest)),
            outputRejectLevels=True,
        )
        found = []
        for (x, y, width, height), weight in zip(boxes, np.ravel(weights), strict=True):
            left = grey.shape[1] - x - width if mirrored else x
            box = (float(left + corner[0]), float(y + corner[1]), float(width), float(height))
            found.append(Detection(box=box, confidence=float(1 - 2 ** (-max(0.0, weight - threshold) / half))))
        return found

    def _load(self, file: str) -> Any:
        folder = getattr(getattr(self._cv2, "data", None), "haarcascades", None)
        kind = getattr(self._cv2, "CascadeClassifier", None)
        path = None if folder is None else Path(folder) / file
        cascade = kind(str(path)) if kind is not None and path is not None and path.is_file() else None
        if cascade is None or cascade.empty():
            raise ConfigError(
                f"detector=cascade: OpenCV {self._cv2.__version__} ships no {file}; install"
                " opencv-python-headless>=4.10,<5, or give"
                " detector=yunet yunet_path=FILE.onnx, or detector=openface openface_root=FOLDER"
            )
        return cascade


class YunetDetector(Detector):
    """The YuNet network, through OpenCV.

    Source: Wu, Peng, Yu, "YuNet: a tiny millisecond-level face detector", Machine Intelligence Research 2023.
    """

    def __init__(self, path: Path, config: FacesConfig) -> None:
        self._cv2 = opencv()
        if not path.is_file():
            raise ConfigError(
                f"yunet_path: no such file: {path}; the model is face_detection_yunet_*.onnx of OpenCV Zoo"
            )
        self._min_face = config.min_face
        try:
            self._network = self._cv2.FaceDetectorYN.create(str(path), "", (320, 320), config.min_detection)
        except self._cv2.error as error:
            raise ConfigError(
                f"yunet_path: OpenCV cannot load {path} as YuNet ({error.err}); fetch it again"
            ) from error

    def detect(self, image: np.ndarray, time_s: float, near: Sequence[Detection] | None) -> list[Detection]:
        self._network.setInputSize((image.shape[1], image.shape[0]))
        _, rows = self._network.detect(np.ascontiguousarray(image[..., ::-1]))
        found = [] if rows is None else [yunet_detection(row) for row in rows]
        return distinct([each for each in found if each.box[2] >= self._min_face * image.shape[0]])


class OpenFaceDetector(Detector):
    """Looks faces up in a csv file of OpenFace, the row nearest in time.

    Raises:
        DataError: If the file holds no landmarks.
    """

    every_frame = True

    def __init__(self, table: OpenFaceTable, *, scale: float, min_confidence: float) -> None:
        if table.landmarks is None:
            raise DataError(f"{table.path}: holds no landmarks (x_0 ... y_67); run OpenFace with -2Dfp")
        self._scale = scale
        self._faces = list(table.reliable(min_confidence).by_face().values())
        times = np.unique(table.times_s)
        self._reach_s = 0.6 * float(np.median(np.diff(times))) if len(times) > 1 else 0.02

    def detect(self, image: np.ndarray, time_s: float, near: Sequence[Detection] | None) -> list[Detection]:
        found = []
        for face in self._faces:
            row = int(np.argmin(np.abs(face.times_s - time_s)))
            points = face.landmarks[row] if face.landmarks is not None else None
            if points is None or abs(face.times_s[row] - time_s) > self._reach_s or not np.isfinite(points).all():
                continue
            if np.ptp(points[:, 1]) > 0:  # some versions write zeros for a face that was not found
                found.append(landmark_detection(points * self._scale, float(face.confidences[row])))
        return found


def yunet_detection(row: np.ndarray) -> Detection:
    """A row of YuNet, (15,): box, then right eye, left eye, nose, right and left corner of the mouth, then score."""
    points = np.asarray(row[4:14], np.float64).reshape(5, 2)
    return Detection(box=box_of(points[:2].mean(0), points[3:].mean(0)), confidence=float(np.clip(row[14], 0, 1)))


def landmark_detection(points: np.ndarray, confidence: float) -> Detection:
    """A face from 68 landmarks, (68, 2) in pixels of the picture."""
    box = box_of(points[_EYES].mean(0), points[_LIPS].mean(0))
    gaps = [float(np.hypot(*(points[lower] - points[upper]))) for upper, lower in _INNER_LIPS]
    return Detection(box=box, confidence=confidence, opening=float(np.mean(gaps)) / box[2])


def box_of(eyes: np.ndarray, mouth: np.ndarray) -> tuple[float, float, float, float]:
    """The square of the common convention from the middle of the eyes and of the mouth, each (2,) x and y.

    >>> box_of(np.array([50.0, 36.0]), np.array([50.0, 82.0]))
    (0.0, 0.0, 100.0, 100.0)
    """
    down = (np.asarray(mouth, np.float64) - eyes) / (MOUTH_AT - EYES_AT)
    side = float(np.hypot(*down))
    centre = eyes + (0.5 - EYES_AT) * down
    left, top = (round(float(each), 9) + 0.0 for each in centre - side / 2)
    return left, top, round(side, 9), round(side, 9)


def iou(one: Sequence[float] | np.ndarray, other: Sequence[float] | np.ndarray) -> float:
    """Intersection over union of two boxes.

    >>> iou((0, 0, 2, 2), (1, 0, 2, 2))
    0.3333333333333333
    """
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    whole = one[2] * one[3] + other[2] * other[3] - shared
    return float(shared / whole) if whole > 0 else 0.0


def distinct(found: Sequence[Detection]) -> list[Detection]:
    """Keeps the most confident of boxes that cover each other."""
    kept: list[Detection] = []
    for each in sorted(found, key=lambda detection: -detection.confidence):
        if all(iou(each.box, other.box) < _SAME_FACE_IOU for other in kept):
            kept.append(each)
    return kept


def _given(path: Path | None) -> Path:
    if path is None:  # FacesConfig asks for it
        raise ConfigError("faces: this detector needs a path")
    return path
