import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from mersuite.catalog import find
from mersuite.clip import Clip, Media
from mersuite.errors import ConfigError, DataError
from mersuite.features.ngrams import NgramsConfig, NgramsExtractor, count_ngrams, hash_counts
from mersuite.store_entry import StoreKey, check_signal

STREAM = "ngrams_speaker_zh"


def clip_of(text: str, clip_id: str = "a") -> Clip:
    return Clip(clip_id=clip_id, dataset="d", media={"text.speaker.zh": text}, groups={})


def vector_of(text: str, **knobs) -> np.ndarray:
    ((_, streams),) = NgramsExtractor(NgramsConfig(**knobs)).extract([clip_of(text)])
    return streams[STREAM].data[0]


def test_catalog_finds_the_extractor():
    assert find("extractor", "ngrams") is NgramsExtractor


def test_stream_is_named_for_the_text_that_is_read():
    extractor = NgramsExtractor(NgramsConfig(stream="text.listener.en"))
    assert extractor.inputs == ("text.listener.en",)
    assert extractor.outputs() == ("ngrams_listener_en",)


def test_every_text_gives_one_storable_vector_of_length_1():
    clips = [clip_of("我很高兴!", "a"), clip_of("what a day", "b")]
    made = dict(NgramsExtractor(NgramsConfig()).extract(clips))
    assert list(made) == ["a", "b"]
    for clip_id, streams in made.items():
        signal = streams[STREAM]
        check_signal(StoreKey("d", clip_id, STREAM, "f"), signal)
        assert signal.data.shape == (1, 256)
        assert signal.rate_hz == 0.0
        assert np.linalg.norm(signal.data) == pytest.approx(1)


@pytest.mark.parametrize("text", ["", "  ", "\n\t　"], ids=repr)
def test_blank_text_gives_no_stream(text):
    assert list(NgramsExtractor(NgramsConfig()).extract([clip_of(text)])) == [("a", {})]


@pytest.mark.parametrize(
    ("text", "other"), [("ＡＢＣ！", "abc!"), ("Straße", "STRASSE"), ("a  b\n", "a b"), ("é", "e\u0301")], ids=repr
)
def test_forms_of_one_text_are_one(text, other):
    np.testing.assert_array_equal(vector_of(text), vector_of(other))


def test_counts_are_those_of_all_substrings():
    counts = count_ngrams("好不好", 1, 3)
    assert counts == {
        "好": 2,
        "不": 1,
        " 好": 1,
        "好不": 1,
        "不好": 1,
        "好 ": 1,
        " 好不": 1,
        "好不好": 1,
        "不好 ": 1,
    }


def test_lengths_are_a_knob():
    assert set(count_ngrams("abc", 2, 2)) == {" a", "ab", "bc", "c "}


def test_repeated_ngrams_grow_by_their_logarithm():
    vector = hash_counts({"x": 3, "y": 1}, 4096)
    assert sorted(np.abs(vector[vector != 0])) == pytest.approx(
        np.array([1, 1 + math.log(3)]) / math.hypot(1, 1 + math.log(3))
    )


def test_vectors_are_the_same_in_every_process():
    code = (
        "import numpy as np; from mersuite.features.ngrams import *;"
        "print(np.flatnonzero(hash_counts(count_ngrams('我很高兴', 1, 3), 256)).tolist())"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{np.flatnonzero(vector_of('我很高兴')).tolist()}\n"}


def _cosine(counts: Counter[str], others: Counter[str]) -> float:
    weights, weights_of_other = ({key: 1 + math.log(value) for key, value in item.items()} for item in (counts, others))
    product = sum(value * weights_of_other.get(key, 0.0) for key, value in weights.items())
    return product / math.hypot(*weights.values()) / math.hypot(*weights_of_other.values())


def test_inner_products_are_those_of_the_counts_on_average(rng):
    letters = np.array(list("abcdefgh 我你他很高兴不"))
    texts = ["".join(rng.choice(letters, 40)) for _ in range(60)]
    counts = [count_ngrams(text, 1, 3) for text in texts]
    hashed = np.stack([hash_counts(item, 1024) for item in counts])
    upper = np.triu_indices(len(texts), 1)
    found = (hashed @ hashed.T)[upper]
    wanted = np.array([_cosine(counts[i], counts[j]) for i, j in zip(*upper, strict=True)])
    assert abs((found - wanted).mean()) < 0.01  # without signs they are 0.05 too high
    assert np.sqrt(np.mean((found - wanted) ** 2)) < 1.5 / math.sqrt(1024)


def test_a_file_in_the_place_of_a_text_is_refused():
    clip = Clip(clip_id="a", dataset="d", media={"text.speaker.zh": Media(path=Path("a.txt"))}, groups={})
    with pytest.raises(DataError, match=r"a: text.speaker.zh is a file \(a.txt\); ngrams needs a text stream"):
        list(NgramsExtractor(NgramsConfig()).extract([clip]))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"min_length": 3, "max_length": 2}, "need 1 <= min_length <= max_length, got 3 and 2"),
        ({"num_features": 0}, "num_features: need 1 or more, got 0"),
        ({"stream": ""}, "stream: need the name of a text stream"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs, message):
    with pytest.raises(ConfigError, match=message):
        NgramsConfig(**knobs)
