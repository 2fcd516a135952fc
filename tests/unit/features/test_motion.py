from pathlib import Path

import numpy as np
import pytest

from mersuite.catalog import find
from mersuite.clip import Clip, Media, Signal
from mersuite.data.fake_movies import write_mp4
from mersuite.errors import ConfigError, DataError
from mersuite.features.motion import MotionConfig, MotionExtractor, motion_statistics
from mersuite.store_entry import StoreKey, check_signal

RATE_HZ = 10


def film(folder: Path, images: np.ndarray) -> Path:
    pytest.importorskip("av")
    path = folder / "a.mp4"
    with path.open("wb") as file:
        write_mp4(file, images, RATE_HZ, np.zeros(16_000, np.int16), 16_000)
    return path


def clip_of(path: Path, **stretch) -> Clip:
    return Clip(clip_id="clip_1", dataset="d", media={"video": Media(path=path, **stretch)}, groups={})


def signal_of(clip: Clip, **knobs) -> Signal:
    extractor = MotionExtractor(MotionConfig(**knobs))
    ((_, streams),) = extractor.extract([clip])
    signal = streams["motion"]
    check_signal(StoreKey("d", clip.clip_id, "motion", "f"), signal)
    assert len(signal.ch_names) == len(set(signal.ch_names)) == signal.data.shape[1]
    assert extractor.estimate_bytes([clip]) == signal.data.nbytes
    return signal


def named(signal: Signal) -> dict[str, float]:
    return dict(zip(signal.ch_names, signal.data[0].tolist(), strict=True))


def statistics(images: np.ndarray, rows: int = 4, columns: int = 6) -> np.ndarray:
    return motion_statistics(images, rows=rows, columns=columns)


def scene(num_frames: int, height: int = 64, width: int = 96) -> np.ndarray:
    """A still picture of soft waves."""
    y, x = np.mgrid[:height, :width]
    wave = 128 + 50 * np.sin(x / 9) + 40 * np.cos(y / 7)
    return np.repeat(np.rint(wave).astype(np.uint8)[None, ..., None], num_frames, axis=0).repeat(3, axis=3)


def test_catalog_finds_the_extractor():
    assert find("extractor", "motion") is MotionExtractor


@pytest.mark.parametrize(("stream", "wanted"), [("video", "motion"), ("video.listener", "motion_listener")])
def test_stream_is_named_for_what_is_read(stream, wanted):
    extractor = MotionExtractor(MotionConfig(stream=stream))
    assert extractor.inputs == (stream,)
    assert extractor.outputs() == (wanted,)


def test_motion_is_found_in_its_cell_of_a_film(tmp_path):
    images = scene(20, 128, 192)
    images[1::4, 40:56, 10:22] = 255  # rows 1 of 4, columns 0 of 6, every other frame at 5 Hz
    images[0::4, 40:56, 10:22] = 255
    signal = signal_of(clip_of(film(tmp_path, images)))
    assert signal.data.shape == (1, 2 * 24 + 6)
    assert signal.rate_hz == 0.0
    found = named(signal)
    cells = {name: value for name, value in found.items() if name.startswith("mean ")}
    assert max(cells, key=cells.__getitem__) == "mean 1 0"
    assert cells["mean 1 0"] > 10 * cells["mean 3 5"]
    assert found["motion still_share"] < 0.5


def test_a_still_film_is_still(tmp_path):
    found = named(signal_of(clip_of(film(tmp_path, scene(20)))))
    assert found["motion still_share"] == 1.0
    assert found["motion mean"] < 0.02


def test_a_stretch_of_a_film_is_what_is_looked_at(tmp_path):
    images = scene(30)
    images[0:10:2, :32] = 250
    path = film(tmp_path, images)
    moving = named(signal_of(clip_of(path, duration_s=1.0), rate_hz=10.0))
    still = named(signal_of(clip_of(path, start_s=1.2, duration_s=1.5), rate_hz=10.0))
    assert moving["motion mean"] > 10 * still["motion mean"]
    assert still["motion still_share"] == 1.0


def test_statistics_are_those_of_differences(rng):
    images = rng.integers(0, 256, (6, 8, 12, 3)).astype(np.uint8)
    values = statistics(images, 2, 3)
    grey = images @ np.array([0.299, 0.587, 0.114])
    normal = (grey - grey.mean(axis=(1, 2), keepdims=True)) / grey.std(axis=(1, 2), keepdims=True)
    changes = np.abs(np.diff(normal, axis=0))
    cells = changes.reshape(5, 2, 4, 3, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(values[:6], cells.mean(axis=0).ravel(), rtol=1e-4)
    np.testing.assert_allclose(values[6:12], cells.std(axis=0).ravel(), rtol=1e-3)
    np.testing.assert_allclose(values[12:14], [changes.mean(), changes.mean(axis=(1, 2)).std()], rtol=1e-3)
    np.testing.assert_allclose(values[-2:], [grey.mean() / 255, grey.std(axis=(1, 2)).mean() / 255], rtol=1e-4)


def test_brightness_changes_no_motion(rng):
    images = rng.integers(0, 200, (6, 16, 16, 3)).astype(np.uint8)
    brighter = images + np.array([0, 40, 10, 50, 30, 20], np.uint8)[:, None, None, None]
    np.testing.assert_allclose(statistics(brighter)[:-2], statistics(images)[:-2], atol=1e-4)


def test_a_single_frame_is_still():
    values = statistics(scene(1))
    assert not values[:-3].any()
    assert values[-3] == 1.0


def test_blank_frames_are_still():
    values = statistics(np.zeros((3, 10, 10, 3), np.uint8))
    assert not values[:-3].any()
    assert (values[-3:] == [1.0, 0.0, 0.0]).all()


def test_a_broken_film_is_refused_with_its_clip(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "a.mp4").write_bytes(b"no film")
    with pytest.raises(DataError, match=r"clip_1: video: .*a.mp4"):
        signal_of(clip_of(tmp_path / "a.mp4"))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"stream": ""}, "stream: need the name of a video stream"),
        ({"rate_hz": 0.0}, "rate_hz: need a rate above 0, got 0.0"),
        ({"height": 4}, "height: need 8 pixels or more, got 4"),
        ({"rows": 65}, r"rows: need 1 to 64 \(height\), got 65"),
        ({"columns": 0}, "columns: need 1 or more, got 0"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message):
    with pytest.raises(ConfigError, match=message):
        MotionConfig(**knobs)
