from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from clip_sources import face_clip, film_clip, made, vectors

from mersuite.clip import Clip, Media
from mersuite.errors import ConfigError, DataError
from mersuite.features import picture_input
from mersuite.features.picture import PictureConfig, PictureExtractor

SIZES = (5, 19, 12)


@pytest.fixture
def clips(tmp_path: Path, rng: np.random.Generator) -> list[Clip]:
    return [face_clip(tmp_path, f"clip{index}", num, rng) for index, num in enumerate(SIZES)]


def extractor(folder: Path, **knobs) -> PictureExtractor:
    return PictureExtractor(PictureConfig(model=str(folder), **knobs))


def faces_of(clip: Clip) -> np.ndarray:
    """Stored BGR, given as RGB."""
    return np.load(clip.media["face.speaker"].path)[..., ::-1]


def pixels_of(folder: Path, faces: np.ndarray) -> torch.Tensor:
    from PIL import Image

    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    return processor(images=[Image.fromarray(face) for face in faces], return_tensors="pt")["pixel_values"]


# ---- the organisers' rules, each against a few plain lines, one picture at a time


@torch.inference_mode()
def test_clip_gives_the_projected_embedding_of_each_face_and_their_mean(models, clips):
    out = made(extractor(models("clip"), pooling=("utt", "fra")), clips)
    model = transformers.CLIPModel.from_pretrained(models("clip")).eval()
    for clip in clips:
        rows = [
            model.visual_projection(model.vision_model(pixels_of(models("clip"), face[None])).pooler_output)[0]
            for face in faces_of(clip)
        ]
        expected = torch.stack(rows).numpy()
        np.testing.assert_allclose(out[clip.clip_id]["clip-FRA_speaker"].data, expected, atol=1e-5)
        np.testing.assert_allclose(out[clip.clip_id]["clip-UTT_speaker"].data, expected.mean(0)[None], atol=1e-5)


@torch.inference_mode()
def test_a_vision_tower_alone_is_projected_too(models, clips):
    out = made(extractor(models("clip-vision"), pooling=("fra",)), clips[:1])
    model = transformers.CLIPVisionModelWithProjection.from_pretrained(models("clip-vision")).eval()
    expected = model(pixels_of(models("clip-vision"), faces_of(clips[0]))).image_embeds
    np.testing.assert_allclose(out["clip0"]["clip-vision-FRA_speaker"].data, expected, atol=1e-5)


@torch.inference_mode()
def test_dinov2_sums_all_tokens_before_the_last_norm_over_64_frames(models, clips):
    out = made(extractor(models("dinov2"), num_frames=64), clips[:1])
    model = transformers.Dinov2Model.from_pretrained(models("dinov2")).eval()
    last: list[torch.Tensor] = []
    model.encoder.layer[-1].register_forward_hook(lambda module, inputs, output: last.append(output))
    places = [0, 1, 2, 3, *[4] * 60]  # five faces: the last again up to 64
    model(pixels_of(models("dinov2"), faces_of(clips[0])[places]))
    expected = last[0].sum(dim=1).mean(dim=0)
    np.testing.assert_allclose(out["clip0"]["dinov2-UTT_speaker"].data[0], expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_vit_mae_sees_all_patches_in_order_and_gives_their_mean(models, clips):
    out = made(extractor(models("vitmae"), pooling=("fra",)), clips[:1])
    assert np.array_equal(
        out["clip0"]["vitmae-FRA_speaker"].data,
        made(extractor(models("vitmae"), pooling=("fra",)), clips[:1])["clip0"]["vitmae-FRA_speaker"].data,
    )
    model = transformers.ViTMAEModel.from_pretrained(models("vitmae")).eval()
    pixels = pixels_of(models("vitmae"), faces_of(clips[0]))
    patches = model.embeddings.patch_embeddings(pixels) + model.embeddings.position_embeddings[:, 1:]
    first = (model.embeddings.cls_token + model.embeddings.position_embeddings[:, :1]).expand(len(pixels), -1, -1)
    states = torch.cat([first, patches], dim=1)
    for layer in model.layers:
        states = layer(states)
    expected = model.layernorm(states)[:, 1:].mean(dim=1)
    np.testing.assert_allclose(out["clip0"]["vitmae-FRA_speaker"].data, expected, atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("layers", [1, 3])
def test_any_other_model_gives_the_mean_of_its_patches_or_its_class_token(models, clips, layers):
    model = transformers.AutoModel.from_pretrained(models("vit")).eval()
    output = model(pixels_of(models("vit"), faces_of(clips[0])), output_hidden_states=True)
    total = sum([output.last_hidden_state, *output.hidden_states[-layers:-1]])
    for tokens, expected in {"auto": total[:, 1:].mean(dim=1), "cls": total[:, 0]}.items():
        out = made(extractor(models("vit"), pooling=("fra",), tokens=tokens, layers=layers), clips[:1])
        np.testing.assert_allclose(out["clip0"]["vit-FRA_speaker"].data, expected, atol=1e-5)


# ---- batches, rows, names


def test_size_of_batches_changes_nothing(models, clips):
    big = made(extractor(models("clip"), pooling=("fra",), batch_size=16), clips)
    for clip in clips:
        alone = made(extractor(models("clip"), pooling=("fra",), batch_size=1), [clip])
        for name, rows in vectors(alone[clip.clip_id]).items():
            np.testing.assert_allclose(big[clip.clip_id][name].data, rows, atol=1e-5)


def test_faces_are_taken_as_the_channel_order_says(models, clips):
    bgr = made(extractor(models("vit"), channel_order="bgr"), clips[:1])
    rgb = made(extractor(models("vit"), channel_order="rgb"), clips[:1])
    assert np.abs(bgr["clip0"]["vit-UTT_speaker"].data - rgb["clip0"]["vit-UTT_speaker"].data).max() > 1e-3
    path = clips[0].media["face.speaker"].path
    np.save(path, np.load(path)[..., ::-1])
    turned = made(extractor(models("vit"), channel_order="rgb"), clips[:1])
    assert np.array_equal(bgr["clip0"]["vit-UTT_speaker"].data, turned["clip0"]["vit-UTT_speaker"].data)


def test_rows_are_averaged_to_the_wanted_rate(models, clips):
    full = made(extractor(models("vit"), pooling=("fra",)), clips)["clip1"]["vit-FRA_speaker"]
    pooled = made(extractor(models("vit"), pooling=("fra",), rate_hz=5.0), clips)["clip1"]["vit-FRA_speaker"]
    assert (full.rate_hz, pooled.rate_hz, pooled.data.shape) == (25.0, 5.0, (4, 32))  # 19 faces: 5 + 5 + 5 + 4
    np.testing.assert_allclose(pooled.data[3], full.data[15:].mean(axis=0), atol=1e-6)


def test_a_stretch_of_a_longer_face_array_is_cut_out(models, clips, tmp_path):
    media = clips[1].media["face.speaker"]
    part = Media(path=media.path, start_s=0.2, duration_s=0.4)
    clip = Clip(clip_id="part", dataset="d", media={"face.speaker": part}, groups={})
    rows = made(extractor(models("vit"), pooling=("fra",)), [clip])["part"]["vit-FRA_speaker"].data
    full = made(extractor(models("vit"), pooling=("fra",)), [clips[1]])["clip1"]["vit-FRA_speaker"].data
    np.testing.assert_allclose(rows, full[5:15], atol=1e-5)
    beyond = Clip(clip_id="beyond", dataset="d", media={"face.speaker": Media(path=media.path, start_s=9.0)}, groups={})
    with pytest.raises(DataError, match=r"beyond: face.speaker: .*holds 19 faces, and the stretch asks for 225 to 19"):
        made(extractor(models("vit")), [beyond])


def test_film_frames_are_sampled_or_taken_at_the_rate(models, tmp_path):
    clip = film_clip(tmp_path, "film", num_frames=30, rate_hz=15)
    sampled = made(extractor(models("vit"), stream="video", num_frames=4, pooling=("fra",)), [clip])["film"]["vit-FRA"]
    assert (sampled.data.shape, sampled.rate_hz) == ((4, 32), 1.0)
    thinned = made(extractor(models("vit"), stream="video", frames_hz=5.0, pooling=("fra",)), [clip])["film"]["vit-FRA"]
    assert (thinned.data.shape, thinned.rate_hz) == ((10, 32), 5.0)


def test_rows_of_a_slow_film_stand_at_the_rate_that_is_told(models, tmp_path):
    clip = film_clip(tmp_path, "film", num_frames=16, rate_hz=8)  # 2 s
    every = extractor(models("vit"), stream="video", pooling=("utt", "fra"))
    own = extractor(models("vit"), stream="video", pooling=("utt", "fra"), frames_hz=8.0)
    signals, expected = (vectors(made(part, [clip])["film"]) for part in (every, own))
    assert (expected["vit-FRA"].shape, signals["vit-FRA"].shape) == ((16, 32), (50, 32))
    on_show = np.ceil((np.arange(50) + 1) * 8 / 25).astype(int) - 1  # the last frame that begins before a step ends
    np.testing.assert_allclose(signals["vit-FRA"], expected["vit-FRA"][on_show], atol=1e-5)
    np.testing.assert_allclose(signals["vit-UTT"], expected["vit-UTT"], atol=1e-5)  # the mean is over frames
    pooled = extractor(models("vit"), stream="video", pooling=("fra",), rate_hz=1.0)
    assert made(pooled, [clip])["film"]["vit-FRA"].data.shape == (2, 32)
    assert pooled.estimate_bytes([clip]) == 2 * 32 * 4


def test_no_more_than_a_batch_of_film_is_held(models, tmp_path, monkeypatch):
    clip = film_clip(tmp_path, "film", num_frames=20, rate_hz=10)
    read, encoded = [], []
    frames = picture_input.iter_frames
    monkeypatch.setattr(
        picture_input, "iter_frames", lambda *a, **k: (read.append(1) or pair for pair in frames(*a, **k))
    )
    part = extractor(models("vit"), stream="video", batch_size=4)
    encode = part._encode
    monkeypatch.setattr(part, "_encode", lambda images: encoded.append(len(read)) or encode(images))
    made(part, [clip])
    assert encoded == [4, 8, 12, 16, 20]


def test_peak_of_motion_is_where_most_moves_and_no_cut():
    images = np.zeros((40, 32, 32, 3), np.uint8)
    images[30:] = 200  # a cut
    for index in range(12, 18):
        images[index, :, 4 * (index - 12) : 4 * (index - 12) + 8] = 90
    assert 12 <= picture_input.peak_of_motion(images, 25.0) <= 18
    assert picture_input.peak_of_motion(np.zeros((9, 16, 16, 3), np.uint8), 25.0) == 4


def test_streams_are_named_by_model_and_role(models):
    assert extractor(models("clip"), stream="face.listener", pooling=("fra", "utt")).outputs() == (
        "clip-FRA_listener",
        "clip-UTT_listener",
    )
    assert extractor(models("clip"), stream="video", output="faces").outputs() == ("faces-UTT",)
    assert extractor(models("clip"), stream="face.listener").inputs == ("face.listener",)


# ---- what it says before the work


@pytest.mark.parametrize("knobs", [{}, {"num_frames": 6}, {"rate_hz": 5.0}], ids=str)
def test_estimate_is_what_is_stored(models, clips, knobs):
    part = extractor(models("clip"), pooling=("utt", "fra"), **knobs)
    stored = sum(signal.data.nbytes for streams in made(part, clips).values() for signal in streams.values())
    assert part.estimate_bytes(clips) == pytest.approx(stored, rel=0.05)


def test_a_class_token_that_a_model_has_not_is_refused(models, tmp_path, rng):
    clip = face_clip(tmp_path, "clip", 2, rng)
    assert made(extractor(models("siglip"), tokens="mean"), [clip])["clip"]["siglip-UTT_speaker"].data.shape == (1, 32)
    with pytest.raises(ConfigError, match="a model of the kind siglip_vision_model has no class token; choose mean"):
        made(extractor(models("siglip"), tokens="cls"), [clip])


def test_knobs_that_do_not_fit_the_model_are_refused_in_the_survey(models, clips):
    with pytest.raises(ConfigError, match="tokens: a model of the kind vit has no projection"):
        extractor(models("vit"), tokens="projection").survey(clips)
    with pytest.raises(ConfigError, match="layers: a projection stands on the last layer"):
        extractor(models("clip"), layers=4).survey(clips)
    with pytest.raises(ConfigError, match="layers: need 5 or fewer, the layers of this model, got 9"):
        made(extractor(models("vit"), layers=9), clips)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"pooling": ()}, "pooling: need utt, fra or both"),
        ({"num_frames": 0}, "num_frames: need 1 or more"),
        ({"frames_hz": 0.0}, "frames_hz: need a rate above 0"),
        ({"rate_hz": 30.0}, r"rate_hz: need a rate above 0 and at most frames_hz \(25\), got 30"),
        ({"rate_hz": 2.0, "num_frames": 8}, "rate_hz: sampled frames have no common rate"),
        ({"layers": 0}, "layers: need 1 or more"),
        ({"batch_size": 0}, "batch_size: need 1 or more"),
        ({"model": " "}, "model: need a folder or a hub id"),
        ({"output": "a/b"}, "output: need a name without /"),
    ],
)
def test_config_refuses(knobs, message):
    with pytest.raises(ConfigError, match=message):
        PictureConfig(**knobs)


def test_an_unreadable_face_file_is_named(models, clips):
    clips[1].media["face.speaker"].path.write_bytes(b"")
    with pytest.raises(DataError, match=r"clip1: face.speaker: .*clip1.npy"):
        made(extractor(models("vit")), clips)


@pytest.mark.gpu
def test_bfloat16_on_a_gpu_is_near_float32_on_the_processor(models, clips):
    part = extractor(models("clip"), pooling=("fra",))
    on_gpu = made(part, clips)
    part.accelerator = "cpu"
    for clip_id, streams in made(part, clips).items():
        expected = streams["clip-FRA_speaker"].data
        difference = np.abs(on_gpu[clip_id]["clip-FRA_speaker"].data - expected).max()
        assert 0 < difference < 0.03 * np.abs(expected).max()
