from pathlib import Path

import numpy as np
import pytest

from mersuite.clip import Media
from mersuite.errors import DataError
from mersuite.faces.config import FacesConfig
from mersuite.faces.crops import cut, read_crops
from mersuite.faces.scan import Scan
from mersuite.faces.tracks import Track
from tests.unit.faces.composited import write_clip


def ramp(height: int = 60, width: int = 80) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return np.stack([3 * x, 4 * y, np.full_like(x, 7)], axis=2).astype(np.uint8)


@pytest.mark.parametrize("side", [10, 20, 40])
def test_crop_samples_the_middles_of_equal_parts(side: int):
    crop = cut(ramp(), np.array([20.0, 10.0, 20.0, 20.0]), side=side, margin=0.0)
    middles = (np.arange(side) + 0.5) * 20 / side - 0.5
    np.testing.assert_allclose(crop[side // 2, :, 0], 3 * (20 + middles), atol=1.0)
    np.testing.assert_allclose(crop[:, side // 2, 1], 4 * (10 + middles), atol=1.0)


def test_margin_is_added_on_each_side():
    crop = cut(ramp(), np.array([30.0, 20.0, 20.0, 20.0]), side=30, margin=0.25)
    np.testing.assert_allclose(crop[0, [0, -1], 0], [3 * 25, 3 * 54], atol=1.0)


def test_crop_outside_of_the_picture_repeats_its_edge():
    crop = cut(ramp(), np.array([-10.0, 5.0, 20.0, 20.0]), side=20, margin=0.0)
    assert crop.shape == (20, 20, 3)
    assert crop[10, :10, 0].max() <= 1
    assert cut(ramp(), np.array([500.0, 500.0, 20.0, 20.0]), side=20, margin=0.0)[0, 0, 0] == 3 * 79


def test_fine_structure_is_averaged_when_the_crop_is_smaller():
    stripes = np.zeros((200, 200, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = cut(stripes, np.array([20.0, 20.0, 160.0, 160.0]), side=20, margin=0.0)
    assert np.abs(crop.astype(float) - 127.5).max() < 12


@pytest.fixture
def video(tmp_path: Path) -> Media:
    frames = np.stack([np.roll(ramp(64, 96), 2 * index, axis=1) for index in range(10)])
    return Media(path=write_clip(tmp_path / "v.mp4", frames, 25.0, None))


def found(num_frames: int, pictures: list[np.ndarray] | None = None) -> Scan:
    times_s = np.arange(num_frames) / 25
    return Scan(times_s=times_s, scenes=np.zeros(num_frames, int), detections={}, size=(32, 48), pictures=pictures)


def track(seen: list[int], num_frames: int) -> Track:
    boxes = np.full((num_frames, 4), np.nan)
    boxes[seen] = (10, 6, 20, 20)  # of pictures half as high
    opening = np.full(num_frames, np.nan)
    return Track(boxes=boxes, seen=np.isfinite(boxes[:, 0]), opening=opening, confidence=1, num_detections=2, scene=0)


def test_boxes_are_scaled_and_frames_without_a_face_hold_the_nearest(video: Media):
    crops = read_crops(video, found(10), [track([3, 4, 5], 10), track([9], 10)], FacesConfig())
    assert crops.shape == (2, 10, 112, 112, 3)
    assert crops.dtype == np.uint8
    for frame, source in enumerate([3, 3, 3, 3, 4, 5, 5, 5, 5, 5]):
        np.testing.assert_array_equal(crops[0, frame], crops[0, source])
    assert (crops[0, 3] != crops[0, 4]).any()
    expected = cut(np.roll(ramp(64, 96), 18, axis=1), np.array([20.0, 12, 40, 40]), side=112, margin=0.15)
    assert np.abs(crops[1, 0].astype(float) - expected).mean() < 6  # of the codec


def test_kept_pictures_give_the_same_crops_as_reading_again(video: Media):
    from mersuite.media.video import read_frames

    pictures = list(read_frames(video.path, rate_hz=25.0).images)
    tracks = [track([3, 4, 5], 10)]
    again = read_crops(video, found(10), tracks, FacesConfig())
    np.testing.assert_array_equal(read_crops(video, found(10, pictures), tracks, FacesConfig()), again)


@pytest.mark.parametrize("num_frames", [9, 12])
def test_video_that_changed_since_it_was_searched_is_refused(video: Media, num_frames: int):
    with pytest.raises(DataError, match=r"v\.mp4: changed while it was read \(.* run again"):
        read_crops(video, found(num_frames), [track([3], num_frames)], FacesConfig())
