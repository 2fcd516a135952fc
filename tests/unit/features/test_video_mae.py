from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from clip_sources import face_clip, film_clip, made

from mersuite.clip import Clip
from mersuite.errors import ConfigError
from mersuite.features.video_mae import VideoMaeConfig, VideoMaeExtractor


@pytest.fixture
def clips(tmp_path: Path, rng: np.random.Generator) -> list[Clip]:
    return [face_clip(tmp_path, f"clip{index}", num, rng) for index, num in enumerate((40, 16, 3))]


def extractor(folder: Path, **knobs) -> VideoMaeExtractor:
    return VideoMaeExtractor(VideoMaeConfig(model=str(folder), **knobs))


@torch.inference_mode()
def test_16_frames_give_8_segments_each_the_mean_of_its_patches_and_utt_their_mean(models, clips):
    out = made(extractor(models("videomae"), pooling=("utt", "fra"), batch_size=2), clips)
    model = transformers.VideoMAEModel.from_pretrained(models("videomae")).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(models("videomae"), backend="pil")
    places = (range(0, 40, 1), range(16), [0, 1, *[2] * 14])
    for clip, rows in zip(clips, places, strict=True):
        faces = np.load(clip.media["face.speaker"].path)[..., ::-1]
        chosen = [int(index * 40 / 16) for index in range(16)] if len(rows) == 40 else list(rows)
        pixels = processor(list(faces[chosen]), return_tensors="pt")["pixel_values"]
        tokens = model(pixels).last_hidden_state[0]
        assert tokens.shape == (8 * 16, 32)  # 8 tubelets of 4 x 4 patches
        expected = tokens.view(8, 16, 32).mean(dim=1).numpy()
        made_rows = out[clip.clip_id]["videomae-FRA_speaker"]
        assert made_rows.rate_hz == 1.0
        np.testing.assert_allclose(made_rows.data, expected, atol=1e-5)
        np.testing.assert_allclose(out[clip.clip_id]["videomae-UTT_speaker"].data[0], expected.mean(axis=0), atol=1e-5)


@torch.inference_mode()
def test_segments_come_in_the_order_of_time(models, clips):
    faces = np.zeros((16, 32, 32, 3), np.uint8)
    faces[8:] = 255
    np.save(clips[0].media["face.speaker"].path, faces)
    rows = made(extractor(models("videomae"), pooling=("fra",)), clips[:1])["clip0"]["videomae-FRA_speaker"].data
    within = max(np.abs(rows[i] - rows[j]).max() for i in range(4) for j in range(4))
    across = np.abs(rows[3] - rows[4]).max()
    assert across > 2 * within


def test_films_are_read_too(models, tmp_path):
    clip = film_clip(tmp_path, "film", num_frames=25, rate_hz=25)
    out = made(extractor(models("videomae"), stream="video"), [clip])
    assert out["film"]["videomae-UTT"].data.shape == (1, 32)


def test_estimate_is_what_is_stored(models, clips):
    part = extractor(models("videomae"), pooling=("utt", "fra"))
    stored = sum(signal.data.nbytes for streams in made(part, clips).values() for signal in streams.values())
    assert part.estimate_bytes(clips) == stored


def test_another_kind_of_model_is_refused_in_the_survey(models, clips):
    with pytest.raises(ConfigError, match=r"vit is of the kind vit; give a VideoMAE, or use the extractor picture"):
        extractor(models("vit")).survey(clips)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"pooling": ()}, "pooling: need utt, fra or both"),
        ({"frames_hz": 0.0}, "frames_hz: need a rate above 0"),
        ({"batch_size": 0}, "batch_size: need 1 or more"),
    ],
)
def test_config_refuses(knobs, message):
    with pytest.raises(ConfigError, match=message):
        VideoMaeConfig(**knobs)
