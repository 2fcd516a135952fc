from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from clip_sources import face_clip, film_clip, made
from PIL import Image

from mersuite.clip import Clip, Media
from mersuite.errors import ConfigError, DataError
from mersuite.features.eva_clip import EvaClipConfig, EvaClipExtractor

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture
def clips(tmp_path: Path, rng: np.random.Generator) -> list[Clip]:
    return [face_clip(tmp_path, f"clip{index}", num, rng) for index, num in enumerate((5, 9))]


def extractor(folder: Path, **knobs) -> EvaClipExtractor:
    return EvaClipExtractor(EvaClipConfig(model=str(folder), **{"stream": "face.speaker", "image_size": 112, **knobs}))


def with_peak(clip: Clip, peak: str) -> Clip:
    return replace(clip, media={**clip.media, "peak_index": peak})


def faces_of(clip: Clip) -> np.ndarray:
    return np.load(clip.media["face.speaker"].path)[..., ::-1]


@torch.inference_mode()
def tokens_of(folder: Path, image: np.ndarray, side: int) -> np.ndarray:
    """Gives the tokens of one picture in plain lines."""
    tower = transformers.Blip2Model.from_pretrained(folder).eval().vision_model
    small = np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255
    pixels = torch.from_numpy(((small - MEAN) / STD).astype(np.float32)).permute(2, 0, 1)[None]
    embeddings = tower.embeddings
    patches = embeddings.patch_embedding(pixels).flatten(2).transpose(1, 2)
    grid = embeddings.position_embedding[:, 1:].reshape(1, 4, 4, -1).permute(0, 3, 1, 2)
    wide = torch.nn.functional.interpolate(grid, size=(side // 14, side // 14), mode="bicubic", align_corners=False)
    positions = torch.cat([embeddings.position_embedding[:, :1], wide.flatten(2).transpose(1, 2)], dim=1)
    states = torch.cat([embeddings.class_embedding, patches], dim=1) + positions
    for layer in tower.encoder.layers:
        states = layer(states)
        states = states[0] if isinstance(states, tuple) else states
    return tower.post_layernorm(states)[0].numpy()


def test_patches_and_class_token_come_from_interpolated_positions_and_one_last_norm(models, clips):
    out = made(extractor(models("blip2"), frame="first"), clips)
    for clip in clips:
        expected = tokens_of(models("blip2"), faces_of(clip)[0], 112)
        patches, vector = out[clip.clip_id]["blip2-PATCH_speaker"], out[clip.clip_id]["blip2-CLS_speaker"]
        assert (patches.rate_hz, vector.rate_hz) == (1.0, 0.0)
        np.testing.assert_allclose(patches.data, expected[1:], atol=1e-4)
        np.testing.assert_allclose(vector.data, expected[:1], atol=1e-4)


def test_448_pixels_give_1024_patches(models, clips):
    out = made(extractor(models("blip2"), image_size=448), clips[:1])
    assert out["clip0"]["blip2-PATCH_speaker"].data.shape == (1024, 32)


def test_the_tower_alone_gives_the_same_as_the_whole_model(models, clips, tmp_path):
    tower = transformers.Blip2Model.from_pretrained(models("blip2")).vision_model
    tower.save_pretrained(tmp_path / "blip2")
    (tmp_path / "blip2" / "preprocessor_config.json").write_bytes(
        (models("blip2") / "preprocessor_config.json").read_bytes()
    )
    alone = made(extractor(tmp_path / "blip2"), clips[:1])["clip0"]
    whole = made(extractor(models("blip2")), clips[:1])["clip0"]
    assert np.array_equal(alone["blip2-PATCH_speaker"].data, whole["blip2-PATCH_speaker"].data)


def test_the_frame_is_the_first_the_middle_or_a_given_peak(models, clips):
    clip = with_peak(clips[1], "7")
    for knobs, place in (({"frame": "first"}, 0), ({"frame": "middle"}, 4), ({"frame": "peak"}, 7)):
        part = extractor(models("blip2"), **knobs)
        got = made(part, [clip])["clip1"]["blip2-CLS_speaker"].data
        np.testing.assert_allclose(got, tokens_of(models("blip2"), faces_of(clip)[place], 112)[:1], atol=1e-4)
    assert extractor(models("blip2"), frame="first").inputs == ("face.speaker",)
    assert extractor(models("blip2")).inputs == ("face.speaker", "peak_index?")


def test_without_a_given_peak_the_frame_of_strongest_motion_is_taken(models, clips):
    faces = np.full((30, 32, 32, 3), 60, np.uint8)
    for index in range(18, 24):
        faces[index, :, 5 * (index - 18) : 5 * (index - 18) + 6] = 240
    np.save(clips[0].media["face.speaker"].path, faces)
    got = made(extractor(models("blip2")), clips[:1])["clip0"]["blip2-CLS_speaker"].data
    near = {
        place: np.abs(got - tokens_of(models("blip2"), faces[place, ..., ::-1], 112)[:1]).max()
        for place in range(18, 25)
    }
    assert min(near.values()) < 1e-4


def test_films_give_the_same_three_frames(models, tmp_path):
    clip = film_clip(tmp_path, "film", num_frames=60, rate_hz=25, moving=range(30, 40))
    read = {}
    for name, knobs, peak in (
        ("first", {"frame": "first"}, None),
        ("middle", {"frame": "middle"}, None),
        ("given", {}, "45"),
        ("moving", {}, None),
    ):
        part = extractor(models("blip2"), stream="video", **knobs)
        read[name] = int(np.median(part._frame(clip if peak is None else with_peak(clip, peak))))
    assert read["first"] == pytest.approx(20, abs=3)  # brightness is 20 + the frame's number
    assert read["middle"] == pytest.approx(50, abs=3)
    assert read["given"] == pytest.approx(65, abs=3)
    assert 48 <= read["moving"] <= 63


def test_a_peak_that_does_not_exist_is_refused(models, clips, tmp_path):
    part = extractor(models("blip2"))
    with pytest.raises(DataError, match=r"clip0: face.speaker: peak_index: frame 5 of 5 \(counted from 0\)"):
        made(part, [with_peak(clips[0], "5")])
    with pytest.raises(DataError, match=r"clip0: .*peak_index: need a frame number from 0 on, got 'late'"):
        made(part, [with_peak(clips[0], "late")])
    film = film_clip(tmp_path, "film", num_frames=20, rate_hz=25)
    beyond = replace(film, media={"video": Media(path=film.media["video"].path, start_s=5.0)})
    with pytest.raises(DataError, match="film: video: "):
        made(extractor(models("blip2"), stream="video"), [beyond])


def test_estimate_is_what_is_stored(models, clips):
    part = extractor(models("blip2"))
    stored = sum(signal.data.nbytes for streams in made(part, clips).values() for signal in streams.values())
    assert part.estimate_bytes(clips) == stored


def test_what_does_not_fit_the_model_is_refused_in_the_survey(models, clips):
    with pytest.raises(ConfigError, match=r"image_size: need a multiple of 14, the model's patches, got 100"):
        extractor(models("blip2"), image_size=100).survey(clips)
    with pytest.raises(ConfigError, match=r"vit is of the kind vit; give a BLIP-2"):
        extractor(models("vit")).survey(clips)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"image_size": 0}, "image_size: need 1 or more"),
        ({"frames_hz": 0.0}, "frames_hz: need a rate above 0"),
        ({"batch_size": 0}, "batch_size: need 1 or more"),
    ],
)
def test_config_refuses(knobs, message):
    with pytest.raises(ConfigError, match=message):
        EvaClipConfig(**knobs)
