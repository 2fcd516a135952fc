from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mersuite.catalog import find
from mersuite.clip import Clip, Media
from mersuite.errors import ConfigError, DataError
from mersuite.features.ngrams import count_ngrams, hash_counts
from mersuite.features.turns import TurnsConfig, TurnsExtractor, sign_code
from mersuite.formats.seen_turns import SeenTurn, write_seen
from mersuite.store_entry import StoreKey, check_signal

SMALL = {"num_features": 32, "num_names": 8, "num_emotions": 6}
EARLIER = SeenTurn(who="partner", name="Bo", words="Oh no.", emotion="sad")
ASKED = SeenTurn(who="own", is_asked=True, name="Ana")


def clip_of(*turns: SeenTurn) -> Clip:
    return Clip(clip_id="a", dataset="d", media={"text.dialogue": write_seen(turns)}, groups={})


def rows_of(*turns: SeenTurn, **knobs) -> dict[str, np.ndarray]:
    """Part of the channels -> (turn, channel)."""
    extractor = TurnsExtractor(TurnsConfig(**{**SMALL, **knobs}))
    ((_, streams),) = extractor.extract([clip_of(*turns)])
    signal = streams["turns_dialogue"]
    check_signal(StoreKey("d", "a", "turns_dialogue", "f"), signal)
    assert signal.ch_names == extractor.ch_names
    first = np.array([name.split()[0] for name in signal.ch_names])
    return {name: signal.data[:, first == name] for name in dict.fromkeys(first)}


def test_catalog_finds_the_extractor():
    assert find("extractor", "turns") is TurnsExtractor


def test_stream_is_named_for_the_text_that_is_read():
    extractor = TurnsExtractor(TurnsConfig(stream="text.call"))
    assert extractor.inputs == ("text.call",) and extractor.outputs() == ("turns_call",)


def test_a_row_tells_whose_turn_it_is_which_is_asked_and_how_long_ago():
    rows = rows_of(EARLIER, SeenTurn(who="own"), EARLIER, ASKED)
    assert rows["own"][:, 0].tolist() == [0, 1, 0, 1]
    assert rows["partner"][:, 0].tolist() == [1, 0, 1, 0]
    assert rows["asked"][:, 0].tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(rows["recency"][:, 0], [1 / 4, 1 / 3, 1 / 2, 1])


def test_words_are_hashed_as_subtitles_are():
    expected = hash_counts(count_ngrams("Oh no.", 2, 3), 32)
    np.testing.assert_array_equal(rows_of(EARLIER, ASKED, min_length=2, max_length=3)["words"][0], expected)


def test_what_is_hidden_is_zero():
    rows = rows_of(EARLIER, SeenTurn(who="own", is_asked=True))
    for part in ("words", "name", "emotion"):
        assert rows[part][0].any() and not rows[part][1].any()


def test_one_name_has_one_code_in_every_turn_and_text():
    rows = rows_of(SeenTurn(who="own", name="Ana"), EARLIER, ASKED)["name"]
    np.testing.assert_array_equal(rows[0], rows[2])
    assert (rows[0] != rows[1]).any()


def test_without_codes_there_are_no_channels_of_them():
    assert rows_of(EARLIER, ASKED, num_names=0, num_emotions=0).keys() == {
        "own",
        "partner",
        "asked",
        "recency",
        "words",
    }


def test_estimate_is_what_the_rows_take():
    extractor = TurnsExtractor(TurnsConfig(**SMALL))
    clips = [clip_of(EARLIER, ASKED), clip_of(ASKED)]
    made = [streams["turns_dialogue"].data.nbytes for _, streams in extractor.extract(clips)]
    assert extractor.estimate_bytes(clips) == sum(made)


def test_codes_of_seven_emotions_are_linearly_independent():
    emotions = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
    codes = np.stack([sign_code(name, TurnsConfig().num_emotions) for name in emotions])
    assert set(np.unique(codes)) == {-1.0, 1.0}
    assert np.linalg.matrix_rank(codes) == len(emotions)


def test_codes_differ_in_about_half_of_their_signs():
    codes = np.stack([sign_code(f"person {i}", 64) for i in range(200)])
    overlaps = (codes @ codes.T / 64)[~np.eye(200, dtype=bool)]
    assert abs(overlaps.mean()) < 0.01 and overlaps.std() == pytest.approx(64**-0.5, rel=0.05)


def test_file_in_place_of_a_text_is_refused():
    clip = Clip(clip_id="a", dataset="d", media={"text.dialogue": Media(path=Path("x.json"))}, groups={})
    with pytest.raises(DataError, match=r"a: text\.dialogue is a file \(x\.json\); turns needs a text"):
        list(TurnsExtractor(TurnsConfig()).extract([clip]))


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"stream": ""}, "stream: need the name of a text stream"),
        ({"min_length": 3, "max_length": 2}, "need 1 <= min_length <= max_length, got 3 and 2"),
        ({"num_features": 0}, "num_features: need 1 or more, got 0"),
        ({"num_names": -1}, "need num_names and num_emotions of 0 to 512, got -1 and 16"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        TurnsConfig(**knobs)
