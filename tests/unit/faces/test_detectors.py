from pathlib import Path

import numpy as np
import pytest

from mersuite.errors import ConfigError, DataError
from mersuite.faces.config import FacesConfig
from mersuite.faces.detectors import (
    CascadeDetector,
    Detection,
    OpenFaceDetector,
    check_detector,
    distinct,
    iou,
    landmark_detection,
    open_detector,
    yunet_detection,
)
from mersuite.formats.openface import read_openface
from tests.unit.faces.composited import pair_frames

SIDE = 56.0


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return pair_frames((np.zeros(1), np.zeros(1)), seed=0, rate_hz=25.0, sways=(0.0, 0.0), side=SIDE)[0]


def centres(found: list[Detection]) -> list[tuple[float, float]]:
    return sorted((each.box[0] + each.box[2] / 2, each.box[1] + each.box[3] / 2) for each in found)


def landmarks(scale: float = 1.0, shift: float = 0.0, gap: float = 0.0) -> np.ndarray:
    """68 points of a face whose box is (0, 0, 100, 100) before scale and shift."""
    points = np.zeros((68, 2), np.float32)
    points[36:48] = (50, 36)
    points[48:68] = (50, 82)
    points[61:64, 1] -= gap / 2
    points[65:68, 1] += gap / 2
    return points * scale + shift


def openface_csv(path: Path, times_s: list[float], **options: float) -> Path:
    names = [f"{axis}_{index}" for axis in "xy" for index in range(68)]
    lines = ["frame, face_id, timestamp, confidence, success, " + ", ".join(names)]
    for frame, time_s in enumerate(times_s):
        cells = landmarks(**options).T.ravel()
        lines.append(f"{frame + 1}, 0, {time_s}, 0.9, 1, " + ", ".join(map(str, cells)))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("cascade", ["alt2", "default"])
def test_cascade_finds_both_people_where_they_are(picture: np.ndarray, cascade: str):
    found = CascadeDetector(FacesConfig(cascade=cascade)).detect(picture, 0.0, None)  # type: ignore[arg-type]
    assert len(found) == 2
    wanted = [(320 * 0.28, 90), (320 * 0.72, 90)]
    assert np.abs(np.array(centres(found)) - wanted).max() < 0.12 * SIDE
    assert all(0.2 <= each.confidence < 1 and 0.8 < each.box[2] / SIDE < 1.25 for each in found)


def test_cascade_finds_nothing_on_a_wall():
    frames = pair_frames((np.full(1, np.nan), np.full(1, np.nan)), seed=0, rate_hz=25.0)
    assert CascadeDetector(FacesConfig()).detect(frames[0], 0.0, None) == []


def test_search_near_a_face_finds_that_face_only(picture: np.ndarray):
    detector = CascadeDetector(FacesConfig())
    left, right = sorted(detector.detect(picture, 0.0, None), key=lambda each: each.box[0])
    found = detector.detect(np.roll(picture, 4, axis=1), 0.0, [left])
    assert len(found) == 1
    assert iou(found[0].box, left.box) > 0.6 > iou(found[0].box, right.box)


def test_profile_cascade_looks_in_both_directions(picture: np.ndarray):
    detector = CascadeDetector(FacesConfig(profile=True))
    found = detector.detect(picture, 0.0, None)
    mirrored = detector.detect(np.ascontiguousarray(picture[:, ::-1]), 0.0, None)
    assert len(found) == len(mirrored) == 2  # faces from the front are not found twice


def test_opencv_without_cascades_is_refused_with_its_cures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import cv2

    monkeypatch.setattr(cv2.data, "haarcascades", str(tmp_path))
    with pytest.raises(ConfigError, match=r"ships no haarcascade_frontalface_alt2.xml; install .* yunet_path=FILE"):
        check_detector(FacesConfig())


def test_missing_opencv_is_refused_with_its_cure(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(ConfigError, match=r"pip install 'mersuite\[faces\]'"):
        check_detector(FacesConfig())


def test_yunet_model_that_is_missing_or_broken_is_refused(tmp_path: Path):
    path = tmp_path / "yunet.onnx"
    config = FacesConfig(detector="yunet", yunet_path=path)
    with pytest.raises(ConfigError, match=r"yunet_path: no such file: .*yunet\.onnx; the model is"):
        check_detector(config)
    path.write_bytes(b"no model")
    with pytest.raises(ConfigError, match=r"yunet_path: OpenCV cannot load .*yunet\.onnx as YuNet"):
        check_detector(config)


def test_yunet_row_gives_the_box_of_the_common_convention():
    row = np.array([20, 5, 60, 90, 30, 36, 70, 36, 50, 60, 35, 82, 65, 82, 0.93], np.float32)
    found = yunet_detection(row)
    assert found.box == pytest.approx((0, 0, 100, 100), abs=1e-4)
    assert found.confidence == pytest.approx(0.93)


def test_landmarks_give_box_and_opening_of_the_mouth():
    found = landmark_detection(landmarks(scale=0.5, shift=10.0, gap=12.0), 0.9)
    assert found.box == pytest.approx((10, 10, 50, 50))
    assert found.opening == pytest.approx(0.12)


def test_openface_detector_gives_the_row_nearest_in_time_scaled(tmp_path: Path):
    path = openface_csv(tmp_path / "s.csv", [0.0, 0.04, 0.08, 0.12])
    config = FacesConfig(detector="openface", openface_root=tmp_path)
    detector = open_detector(config, name="s", scale=0.25)
    image = np.zeros((10, 10, 3), np.uint8)
    (found,) = detector.detect(image, 0.05, None)
    assert found.box == pytest.approx((0, 0, 25, 25))
    assert detector.every_frame
    assert detector.detect(image, 0.2, None) == []
    assert OpenFaceDetector(read_openface(path), scale=1.0, min_confidence=0.95).detect(image, 0.04, None) == []


def test_landmarks_that_are_all_zero_are_no_face(tmp_path: Path):
    names = ",".join(f"{axis}_{index}" for axis in "xy" for index in range(68))
    (tmp_path / "s.csv").write_text(f"frame,timestamp,{names}\n1,0.0,{','.join(['0'] * 136)}\n")
    detector = open_detector(FacesConfig(detector="openface", openface_root=tmp_path), name="s", scale=1.0)
    assert detector.detect(np.zeros((10, 10, 3), np.uint8), 0.0, None) == []


def test_openface_without_landmarks_or_folder_is_refused(tmp_path: Path):
    (tmp_path / "s.csv").write_text("frame,timestamp,AU01_r\n1,0,1\n")
    with pytest.raises(DataError, match=r"s\.csv: holds no landmarks .*run OpenFace with -2Dfp"):
        open_detector(FacesConfig(detector="openface", openface_root=tmp_path), name="s", scale=1.0)
    with pytest.raises(ConfigError, match=r"openface_root: .*none is no folder"):
        check_detector(FacesConfig(detector="openface", openface_root=tmp_path / "none"))


def test_boxes_that_cover_each_other_are_one_face():
    sure = Detection(box=(0, 0, 10, 10), confidence=0.9)
    unsure = Detection(box=(1, 1, 10, 10), confidence=0.5)
    other = Detection(box=(30, 0, 10, 10), confidence=0.3)
    assert distinct([unsure, other, sure]) == [sure, other]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"detector": "yunet"}, "yunet_path: detector=yunet needs"),
        ({"detector": "openface"}, "openface_root: detector=openface needs"),
        ({"min_confidence": 1.5}, "min_confidence: need 0 to 1, got 1.5"),
        ({"height": 20}, "height: need 32 or more, got 20"),
        ({"rate_hz": 0.0}, "rate_hz: need more than 0, got 0"),
        ({"max_gap_s": -1.0}, "max_gap_s: need 0 or more, got -1"),
        ({"num_people": 0}, "num_people: need 1 or more"),
        ({"min_shift_s": 0.3}, "min_shift_s: need more than twice max_lag_s=0.2, got 0.3"),
        ({"detect_rate_hz": 50.0}, "each must be at most the next, got 1, 50, 25"),
    ],
)
def test_knobs_that_cannot_work_are_refused(values: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        FacesConfig(**values)
