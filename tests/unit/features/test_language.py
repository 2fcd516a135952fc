from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from clip_sources import made, vectors

from mersuite.clip import Clip, Media
from mersuite.errors import ConfigError, DataError
from mersuite.features.language import LanguageConfig, LanguageExtractor

TEXTS = ("今天天气真好", "你好", "hello 我很高兴 you are here now", "谢谢")
STREAM = "text.speaker.zh"


def text_clips(*texts: str) -> list[Clip]:
    return [Clip(clip_id=f"clip{i}", dataset="d", media={STREAM: text}, groups={}) for i, text in enumerate(texts)]


def extractor(folder: Path, **knobs) -> LanguageExtractor:
    return LanguageExtractor(LanguageConfig(model=str(folder), **knobs))


# ---- the organisers' rules, against a few plain lines, one text at a time


@torch.inference_mode()
@pytest.mark.parametrize("special_tokens", ["drop", "keep"])
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_rows_are_the_sum_of_the_last_four_layers_of_the_texts_own_tokens(models, name, special_tokens):
    part = extractor(models(name), pooling=("utt", "fra"), special_tokens=special_tokens)
    out = made(part, text_clips(*TEXTS))
    model = transformers.AutoModel.from_pretrained(models(name)).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(models(name))
    for index, text in enumerate(TEXTS):
        states = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        total = torch.stack(states)[-4:].sum(dim=0)[0]
        expected = (total[1:-1] if special_tokens == "drop" else total).numpy()
        rows = out[f"clip{index}"][f"{name}-FRA_speaker_zh"]
        assert rows.rate_hz == 1.0
        np.testing.assert_allclose(rows.data, expected, atol=1e-5)
        np.testing.assert_allclose(
            out[f"clip{index}"][f"{name}-UTT_speaker_zh"].data[0], expected.mean(axis=0), atol=1e-5
        )


def test_chinese_characters_are_tokens_of_their_own(models):
    rows = made(extractor(models("bert"), pooling=("fra",)), text_clips("今天天气真好", "hello你好"))
    assert [rows[f"clip{i}"]["bert-FRA_speaker_zh"].data.shape[0] for i in range(2)] == [6, 3]


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_padding_in_a_batch_changes_nothing(models, name):
    clips = text_clips(*TEXTS)
    together = made(extractor(models(name), pooling=("utt", "fra"), batch_size=4), clips)
    for clip in clips:
        alone = made(extractor(models(name), pooling=("utt", "fra"), batch_size=1), [clip])
        for stream, rows in vectors(alone[clip.clip_id]).items():
            np.testing.assert_allclose(together[clip.clip_id][stream].data, rows, atol=1e-5)


# ---- empty and long texts


def test_empty_texts_are_refused_in_the_survey_or_become_zeros(models):
    clips = text_clips("你好", "", "  ")
    with pytest.raises(DataError, match=r"2 of 3 clips: text.speaker.zh is empty \(clip1, clip2\); set empty=zeros"):
        extractor(models("bert")).survey(clips)
    part = extractor(models("bert"), empty="zeros", pooling=("utt", "fra"), special_tokens="keep")
    part.survey(clips)
    out = made(part, clips)
    assert out["clip1"]["bert-UTT_speaker_zh"].data.shape == out["clip2"]["bert-FRA_speaker_zh"].data.shape == (1, 32)
    assert not out["clip1"]["bert-UTT_speaker_zh"].data.any()
    assert out["clip0"]["bert-UTT_speaker_zh"].data.any()


@torch.inference_mode()
def test_texts_that_are_too_long_are_refused_in_the_survey_or_cut(models):
    clips = text_clips("好" * 38, "好" * 39)  # and two special tokens: the model has 40 places
    with pytest.raises(DataError, match=r"1 of 2 clips: .* more than 40 tokens \(clip1\); set long_text=cut"):
        extractor(models("bert")).survey(clips)
    part = extractor(models("bert"), long_text="cut", pooling=("fra",))
    part.survey(clips)
    rows = [streams["bert-FRA_speaker_zh"].data for streams in made(part, clips).values()]
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-5)


def test_roberta_has_as_many_places_as_its_positions_minus_those_for_padding(models):
    text = " ".join(["hello"] * 39)
    with pytest.raises(DataError, match="more than 40 tokens"):
        extractor(models("roberta")).survey(text_clips(text))
    out = made(extractor(models("roberta"), long_text="cut", pooling=("fra",)), text_clips(text))
    assert out["clip0"]["roberta-FRA_speaker_zh"].data.shape == (38, 32)


def test_survey_looks_only_at_clips_with_the_text(models):
    silent = Clip(clip_id="silent", dataset="d", media={}, groups={})
    extractor(models("bert")).survey([silent, *text_clips("你好")])
    with pytest.raises(
        DataError, match=r"silent: there is no text 'text.speaker.zh'; the streams that are there: none"
    ):
        made(extractor(models("bert")), [silent])
    wrong = Clip(clip_id="wrong", dataset="d", media={STREAM: Media(path=Path("a.txt"))}, groups={})
    with pytest.raises(DataError, match="wrong: there is no text"):
        made(extractor(models("bert")), [wrong])


def test_estimate_is_what_is_stored(models):
    part = extractor(models("bert"), pooling=("utt", "fra"))
    clips = text_clips(*TEXTS)
    stored = sum(signal.data.nbytes for streams in made(part, clips).values() for signal in streams.values())
    assert part.estimate_bytes(clips) == pytest.approx(stored, rel=0.01)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"pooling": ()}, "pooling: need utt, fra or both"),
        ({"layers": 0}, "layers: need 1 or more"),
        ({"batch_size": 0}, "batch_size: need 1 or more"),
    ],
)
def test_config_refuses(knobs, message):
    with pytest.raises(ConfigError, match=message):
        LanguageConfig(**knobs)


@pytest.mark.gpu
def test_bfloat16_on_a_gpu_is_near_float32_on_the_processor(models):
    part = extractor(models("bert"))
    on_gpu = made(part, text_clips(*TEXTS))
    part.accelerator = "cpu"
    for clip_id, streams in made(part, text_clips(*TEXTS)).items():
        expected = streams["bert-UTT_speaker_zh"].data
        difference = np.abs(on_gpu[clip_id]["bert-UTT_speaker_zh"].data - expected).max()
        assert 0 < difference < 0.05 * np.abs(expected).max()
