from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from clip_sources import made, read_wave, sound_clip, vectors

from mersuite.clip import Clip, Media
from mersuite.errors import ConfigError, DataError
from mersuite.features.batched import length_batches
from mersuite.features.speech import SpeechConfig, SpeechExtractor, bears_padding

WAVES = ("hubert-base", "hubert-large", "wav2vec2-base", "wav2vec2-large", "wavlm-base", "wavlm-large")


@pytest.fixture
def clips(tmp_path: Path, rng: np.random.Generator) -> list[Clip]:
    return [sound_clip(tmp_path, f"clip{index}", seconds, rng) for index, seconds in enumerate((0.7, 1.31, 0.4, 1.31))]


def extractor(folder: Path, **knobs) -> SpeechExtractor:
    return SpeechExtractor(SpeechConfig(model=str(folder), **knobs))


def last_four(model, wave: torch.Tensor) -> np.ndarray:
    """Sums what the last four layers put out, the last after the norm that follows it where there is one."""
    seen: list[torch.Tensor] = []
    hooks = [
        layer.register_forward_hook(
            lambda module, inputs, output: seen.append(output[0] if isinstance(output, tuple) else output)
        )
        for layer in model.encoder.layers[-4:]
    ]
    model(wave[None])
    for hook in hooks:
        hook.remove()
    if model.config.do_stable_layer_norm:
        seen[-1] = model.encoder.layer_norm(seen[-1])
    return sum(seen)[0].numpy()


def normalised(wave: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((wave - wave.mean()) / np.sqrt(wave.var() + 1e-7))


# ---- the organisers' rules, each against a few plain lines, one sound at a time


@torch.inference_mode()
@pytest.mark.parametrize("name", WAVES)
def test_rows_are_the_sum_of_the_last_four_layers_and_utt_their_mean(models, clips, name):
    out = made(extractor(models(name), pooling=("utt", "fra")), clips)
    model = transformers.AutoModel.from_pretrained(models(name)).eval()
    for clip in clips:
        expected = last_four(model, normalised(read_wave(clip)))
        rows = out[clip.clip_id][f"{name}-FRA_speaker"]
        assert rows.rate_hz == 50.0
        np.testing.assert_allclose(rows.data, expected, atol=1e-4)
        np.testing.assert_allclose(out[clip.clip_id][f"{name}-UTT_speaker"].data[0], expected.mean(0), atol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("tail", ["pad", "keep"])
@pytest.mark.parametrize("name", ["hubert-base", "hubert-large"])
def test_long_sound_is_normalised_whole_and_cut_in_pieces(models, tmp_path, rng, name, tail):
    clip = sound_clip(tmp_path, "long", 2.6, rng)
    out = made(extractor(models(name), piece_s=1.0, tail=tail, pooling=("utt", "fra")), [clip])["long"]
    wave = normalised(read_wave(clip))
    if tail == "pad":
        wave = torch.nn.functional.pad(wave, (0, 3 * 16000 - len(wave)))
    model = transformers.AutoModel.from_pretrained(models(name)).eval()
    expected = np.concatenate([last_four(model, piece) for piece in wave.split(16000)])
    np.testing.assert_allclose(out[f"{name}-FRA_speaker"].data, expected, atol=1e-4)
    np.testing.assert_allclose(out[f"{name}-UTT_speaker"].data[0], expected.mean(0), atol=1e-4)


def test_a_last_piece_too_short_for_the_model_is_joined_to_the_one_before(models, tmp_path, rng):
    clip = sound_clip(tmp_path, "long", 2.01, rng)
    rows = made(extractor(models("hubert-large"), piece_s=1.0, tail="keep", pooling=("fra",)), [clip])["long"]
    assert rows["hubert-large-FRA_speaker"].data.shape == (49 + 50, 32)


@torch.inference_mode()
def test_whisper_gives_the_encoders_rows_of_real_sound(models, tmp_path, rng):
    clips = [sound_clip(tmp_path, f"clip{index}", seconds, rng) for index, seconds in enumerate((0.5, 5.01, 2.0))]
    out = made(extractor(models("whisper"), pooling=("utt", "fra")), clips)
    model = transformers.WhisperModel.from_pretrained(models("whisper")).eval()
    prepare = transformers.WhisperFeatureExtractor.from_pretrained(models("whisper"))
    for clip, num_rows in zip(clips, ((25,), (100, 100, 51), (100,)), strict=True):  # pieces of 2 s, rows of 20 ms
        wave = read_wave(clip)
        rows = []
        for start, count in zip(range(0, len(wave), 32000), num_rows, strict=True):
            features = prepare(wave[start : start + 32000], sampling_rate=16000, return_tensors="pt").input_features
            rows.append(model.encoder(features).last_hidden_state[0, :count].numpy())
        expected = np.concatenate(rows)
        np.testing.assert_allclose(out[clip.clip_id]["whisper-FRA_speaker"].data, expected, atol=1e-5)
        np.testing.assert_allclose(out[clip.clip_id]["whisper-UTT_speaker"].data[0], expected.mean(0), atol=1e-5)


@torch.inference_mode()
def test_whispers_decoder_gives_the_two_start_tokens_as_the_organisers_do(models, clips):
    out = made(extractor(models("whisper"), whisper="decoder", pooling=("utt", "fra")), clips)
    model = transformers.WhisperModel.from_pretrained(models("whisper")).eval()
    prepare = transformers.WhisperFeatureExtractor.from_pretrained(models("whisper"))
    for clip in clips:
        features = prepare(read_wave(clip), sampling_rate=16000, return_tensors="pt").input_features
        expected = model(features, decoder_input_ids=torch.tensor([[3, 3]])).last_hidden_state[0].numpy()
        np.testing.assert_allclose(out[clip.clip_id]["whisper-FRA_speaker"].data, expected, atol=1e-5)
        np.testing.assert_allclose(out[clip.clip_id]["whisper-UTT_speaker"].data[0], expected.mean(0), atol=1e-5)


# ---- batches


@pytest.mark.parametrize("name", [*WAVES, "wav2vec2-conformer", "whisper"])
def test_padding_in_a_batch_changes_nothing(models, tmp_path, rng, name):
    seconds = (1.31, 1.2, 1.31, 1.0)  # so much alike that they share a batch where padding is allowed
    clips = [sound_clip(tmp_path, f"clip{index}", length, rng) for index, length in enumerate(seconds)]
    together = made(extractor(models(name), pooling=("utt", "fra"), batch_size=4), clips)
    for clip in clips:
        alone = made(extractor(models(name), pooling=("utt", "fra"), batch_size=1), [clip])
        for stream, rows in vectors(alone[clip.clip_id]).items():
            np.testing.assert_allclose(together[clip.clip_id][stream].data, rows, atol=1e-4)


def test_models_that_padding_would_change_get_batches_of_one_length(models):
    def config(name: str, **changes):
        found = transformers.AutoConfig.from_pretrained(models(name))
        for key, value in changes.items():
            setattr(found, key, value)
        return found

    assert [name for name in WAVES if bears_padding(config(name))] == [name for name in WAVES if "large" in name]
    assert not bears_padding(config("hubert-large", conv_pos_batch_norm=True))
    assert not bears_padding(transformers.Data2VecAudioConfig())
    assert not bears_padding(config("wav2vec2-conformer"))
    assert length_batches([7, 5, 7, 5, 7], 2, least_share=1.0) == [[0, 2], [4], [1, 3]]


@torch.inference_mode()
def test_padding_would_change_a_model_normalised_over_time(models):
    model = transformers.AutoModel.from_pretrained(models("hubert-base")).eval()
    wave = torch.randn(1, 8000)
    mask = (torch.arange(16000) < 8000).long()[None]
    padded = model(torch.nn.functional.pad(wave, (0, 8000)), attention_mask=mask).last_hidden_state
    alone = model(wave).last_hidden_state
    assert (padded[:, : alone.shape[1]] - alone).abs().max() > 1e-3


# ---- rates, stretches, sizes


def test_rows_are_averaged_to_the_wanted_rate(models, clips):
    full = made(extractor(models("hubert-base"), pooling=("fra",)), clips)["clip1"]["hubert-base-FRA_speaker"]
    pooled = made(extractor(models("hubert-base"), pooling=("fra",), rate_hz=5.0), clips)
    rows = pooled["clip1"]["hubert-base-FRA_speaker"]
    assert (rows.rate_hz, rows.data.shape) == (5.0, (7, 32))  # 65 rows of 20 ms
    np.testing.assert_allclose(rows.data[1], full.data[10:20].mean(axis=0), atol=1e-5)


def test_a_stretch_of_a_longer_file_is_read(models, clips):
    media = clips[1].media["voice.speaker"]
    part = Media(path=media.path, start_s=0.5, duration_s=0.4)
    clip = Clip(clip_id="part", dataset="d", media={"voice.speaker": part}, groups={})
    rows = made(extractor(models("hubert-base"), pooling=("fra",)), [clip])["part"]["hubert-base-FRA_speaker"].data
    model = transformers.AutoModel.from_pretrained(models("hubert-base")).eval()
    with torch.inference_mode():
        expected = last_four(model, normalised(read_wave(clips[1])[8000:14400]))
    np.testing.assert_allclose(rows, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["hubert-large", "whisper"])
@pytest.mark.parametrize("rate_hz", [None, 4.0])
def test_estimate_is_near_what_is_stored(models, clips, name, rate_hz):
    part = extractor(models(name), pooling=("utt", "fra"), rate_hz=rate_hz)
    stored = sum(signal.data.nbytes for streams in made(part, clips).values() for signal in streams.values())
    assert part.estimate_bytes(clips) == pytest.approx(stored, rel=0.1)


# ---- refused


def test_sound_shorter_than_a_row_is_refused(models, tmp_path, rng):
    with pytest.raises(DataError, match=r"short: voice.speaker: 320 samples of sound are too short.*needs 400"):
        made(extractor(models("hubert-base")), [sound_clip(tmp_path, "short", 0.02, rng)])


def test_a_file_without_sound_is_named(models, tmp_path):
    path = tmp_path / "broken.wav"
    path.write_bytes(b"no sound")
    clip = Clip(clip_id="broken", dataset="d", media={"voice.speaker": Media(path=path)}, groups={})
    with pytest.raises(DataError, match=r"broken: voice.speaker: .*broken.wav"):
        made(extractor(models("hubert-base")), [clip])


def test_what_does_not_fit_the_model_is_refused_in_the_survey(models, clips):
    with pytest.raises(ConfigError, match="rate_hz: need at most 50 Hz, the rate of the model, got 80"):
        extractor(models("hubert-base"), rate_hz=80.0).survey(clips)
    with pytest.raises(ConfigError, match="rate_hz: rows of Whisper's decoder have no clock"):
        extractor(models("whisper"), whisper="decoder", rate_hz=2.0).survey(clips)
    with pytest.raises(ConfigError, match=r"model: .*vit is of the kind vit, without conv_kernel"):
        extractor(models("vit")).survey(clips)
    with pytest.raises(ConfigError, match="layers: the organisers' rule for Whisper's decoder"):
        made(extractor(models("whisper"), whisper="decoder", layers=2), clips)
    with pytest.raises(ConfigError, match="layers: need 5 or fewer, the layers of this model, got 6"):
        made(extractor(models("hubert-base"), layers=6), clips)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"pooling": ()}, "pooling: need utt, fra or both"),
        ({"layers": 0}, "layers: need 1 or more or null"),
        ({"piece_s": 0.5}, "piece_s: need 1 s or more"),
        ({"batch_size": 0}, "batch_size: need 1 or more"),
        ({"rate_hz": 0.0}, "rate_hz: need a rate above 0 or null"),
    ],
)
def test_config_refuses(knobs, message):
    with pytest.raises(ConfigError, match=message):
        SpeechConfig(**knobs)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["hubert-base", "wavlm-large", "whisper"])
def test_bfloat16_on_a_gpu_is_near_float32_on_the_processor(models, clips, name):
    part = extractor(models(name))
    on_gpu = made(part, clips)
    part.accelerator = "cpu"
    for clip_id, streams in made(part, clips).items():
        expected = streams[f"{name}-UTT_speaker"].data
        difference = np.abs(on_gpu[clip_id][f"{name}-UTT_speaker"].data - expected).max()
        assert 0 < difference < 0.05 * np.abs(expected).max()
