from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mersuite.catalog import find
from mersuite.clip import Clip, Media, Signal
from mersuite.data.fake_faces import draw_crop, draw_look, express
from mersuite.errors import ConfigError, DataError
from mersuite.features.face import FaceConfig, FaceExtractor
from mersuite.store_entry import StoreKey, check_signal

STREAM = "face_speaker"


def clip_of(folder: Path, pictures: np.ndarray, **facts) -> Clip:
    np.save(folder / "a.npy", pictures)
    media = {"face.speaker": Media(path=folder / "a.npy", **facts)}
    return Clip(clip_id="clip_1", dataset="d", media=media, groups={})


def signal_of(clip: Clip, **knobs) -> Signal:
    extractor = FaceExtractor(FaceConfig(**knobs))
    ((_, streams),) = extractor.extract([clip])
    signal = streams[STREAM]
    check_signal(StoreKey("d", clip.clip_id, STREAM, "f"), signal)
    assert len(signal.ch_names) == len(set(signal.ch_names)) == signal.data.shape[1]
    assert extractor.estimate_bytes([clip]) == signal.data.nbytes
    return signal


def named(signal: Signal) -> dict[str, float]:
    return dict(zip(signal.ch_names, signal.data[0].tolist(), strict=True))


def drawn(rng: np.random.Generator, *, num_frames: int = 30, opening: np.ndarray | None = None, latent=None):
    latent = rng.standard_normal(4) if latent is None else latent
    return draw_crop(draw_look(rng), express(latent, opening, num_frames, 12.5, rng))


def test_catalog_finds_the_extractor():
    assert find("extractor", "face") is FaceExtractor


def test_stream_is_named_for_whose_face_it_is():
    extractor = FaceExtractor(FaceConfig(stream="face.listener"))
    assert extractor.inputs == ("face.listener",)
    assert extractor.outputs() == ("face_listener",)


def test_channels_are_the_mean_face_deviation_motion_and_opening(tmp_path, rng):
    signal = signal_of(clip_of(tmp_path, drawn(rng)))
    assert signal.data.shape == (1, 28 * 7 + 49 + 10 + 4)
    assert signal.rate_hz == 0.0
    assert signal.ch_names[0] == "mean 0 0"
    assert signal.ch_names[-14:-12] == ("motion brows mean", "motion brows deviation")
    assert signal.ch_names[-1] == "opening change"


@pytest.mark.parametrize("shape", [(1, 112, 112), (7, 96, 64), (3, 1, 1), (2, 5, 9), (4, 300, 200)], ids=str)
def test_pictures_of_any_size_and_number_give_finite_values(tmp_path, rng, shape):
    assert signal_of(clip_of(tmp_path, rng.integers(0, 256, (*shape, 3)).astype(np.uint8))).data.shape == (1, 259)


def test_a_single_picture_has_neither_motion_nor_deviation(tmp_path, rng):
    found = named(signal_of(clip_of(tmp_path, drawn(rng, num_frames=1))))
    moving = [value for name, value in found.items() if name.startswith(("motion", "deviation"))]
    assert moving == [0.0] * len(moving)
    assert found["opening deviation"] == found["opening change"] == 0.0


def test_blank_pictures_are_zero(tmp_path):
    assert not signal_of(clip_of(tmp_path, np.full((5, 40, 40, 3), 90, np.uint8))).data.any()


def test_brightness_and_contrast_change_nothing(tmp_path, rng):
    pictures = drawn(rng)
    plain = signal_of(clip_of(tmp_path, pictures)).data
    dim = np.rint(pictures * np.linspace(0.5, 0.9, len(pictures))[:, None, None, None] + 20).astype(np.uint8)
    np.testing.assert_allclose(signal_of(clip_of(tmp_path, dim)).data, plain, atol=0.03)


def test_size_of_the_pictures_changes_little(tmp_path, rng):
    pictures = drawn(rng)
    plain = signal_of(clip_of(tmp_path, pictures)).data
    larger = signal_of(clip_of(tmp_path, pictures.repeat(2, axis=1).repeat(2, axis=2))).data
    np.testing.assert_allclose(larger, plain, atol=1e-3)


def test_order_of_colours_is_a_knob(tmp_path, rng):
    pictures = drawn(rng)
    swapped = signal_of(clip_of(tmp_path, pictures[..., ::-1])).data
    np.testing.assert_array_equal(signal_of(clip_of(tmp_path, pictures), channel_order="rgb").data, swapped)
    assert not np.array_equal(signal_of(clip_of(tmp_path, pictures)).data, swapped)


def test_folding_averages_both_halves(tmp_path, rng):
    clip = clip_of(tmp_path, drawn(rng))
    whole = signal_of(clip, rows=6, columns=5, fold=False).data[0, :30].reshape(6, 5)
    folded = signal_of(clip, rows=6, columns=5).data[0, :18].reshape(6, 3)
    np.testing.assert_allclose(folded, ((whole + whole[:, ::-1]) / 2)[:, :3], atol=1e-5)


def test_a_talking_mouth_moves_and_opens(tmp_path, rng):
    for _ in range(5):
        opening = np.clip(np.sin(np.arange(30) * 0.7), 0, 1)
        latent = rng.standard_normal(4)
        talking = named(signal_of(clip_of(tmp_path, drawn(rng, opening=opening, latent=latent))))
        silent = named(signal_of(clip_of(tmp_path, drawn(rng, latent=latent))))
        for name in ("motion mouth mean", "opening deviation", "opening range", "opening change"):
            assert talking[name] > 2 * silent[name]


def test_expressions_of_drawn_faces_can_be_read_from_the_vector(tmp_path, rng):
    latents = rng.standard_normal((110, 4))
    rows = [signal_of(clip_of(tmp_path, drawn(rng, latent=latent, num_frames=3))).data[0] for latent in latents]
    values = np.stack(rows).astype(np.float64)
    values = (values - values[:80].mean(axis=0)) / (values[:80].std(axis=0) + 1e-6)
    kernel = values @ values[:80].T
    weights = np.linalg.solve(kernel[:80] + 2 * np.eye(80), latents[:80])
    unexplained = ((kernel[80:] @ weights - latents[80:]) ** 2).mean(axis=0) / latents[80:].var(axis=0)
    assert (unexplained[:3] < 0.5).all(), unexplained  # the fourth is energy, which three frames hardly show


def test_a_stretch_takes_its_frames(tmp_path, rng):
    pictures = drawn(rng)
    wanted = signal_of(clip_of(tmp_path, pictures[5:20])).data
    clip = clip_of(tmp_path, pictures, rate_hz=10.0, start_s=0.5, duration_s=1.5)
    np.testing.assert_array_equal(signal_of(clip).data, wanted)


def test_stretches_that_cannot_be_taken_are_refused(tmp_path, rng):
    clip = clip_of(tmp_path, drawn(rng), start_s=9.0)
    with pytest.raises(
        DataError, match=r"clip_1: face.speaker: the clip is a stretch of .*a.npy, which takes the rate"
    ):
        signal_of(clip)
    media = replace(clip.media["face.speaker"], rate_hz=10.0)
    with pytest.raises(DataError, match=r"begins at 9 s, and .*a.npy ends before \(30 frames at 10 Hz\)"):
        signal_of(replace(clip, media={"face.speaker": media}))


def test_a_file_that_is_no_array_of_pictures_is_refused_with_its_clip(tmp_path):
    with pytest.raises(DataError, match=r"clip_1: face.speaker: .*a.npy"):
        signal_of(clip_of(tmp_path, np.zeros((3, 4))))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"stream": ""}, "stream: need the name of a stream of faces"),
        ({"rows": 0}, "rows: need 1 to 56, got 0"),
        ({"columns": 57}, "columns: need 1 to 56, got 57"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message):
    with pytest.raises(ConfigError, match=message):
        FaceConfig(**knobs)
