"""Dialogues of the cross track: which turns are asked, and that nothing is seen that may not be."""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dialogue_files import COLUMNS, TURNS, config_of, dialogue_rows, write_csv, write_small

from mersuite import api, registry
from mersuite.config import RunConfig, with_overrides
from mersuite.data.splits import make_folds
from mersuite.errors import ConfigError, DataError
from mersuite.formats.dialogue import Turn
from mersuite.formats.seen_turns import read_seen
from tracks.cross.dialogue import (
    EARLIER,
    LAST_OWN,
    LAST_PARTNER,
    STREAM,
    asked_turns,
    last_emotions,
    read_dialogue_data,
    read_truths,
    seen_turns,
)
from tracks.cross.options import CrossConfig, DialogueConfig
from tracks.cross.submission import read_answers


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_small(tmp_path / "dialogue.csv")


def turns_of(*rows: tuple[str, str, str]) -> tuple[Turn, ...]:
    return tuple(
        Turn(turn_id=f"d_utt{i}", speaker=who, text=text, emotion=emotion, where="x.csv, line 2")
        for i, (who, text, emotion) in enumerate(rows)
    )


EVERY_WAY = [
    DialogueConfig(ask=ask, context=context, words=words, names=names, emotions=emotions)
    for ask, context, words, names, emotions in itertools.product(
        ("next", "current"), (0, 1, 2, 9), (True, False), (True, False), (True, False)
    )
]


# ---- what is asked


def test_next_asks_for_turns_of_another_speaker_than_before():
    assert asked_turns(turns_of(*TURNS), "next") == [1, 3, 4, 5]


def test_current_asks_for_every_turn():
    assert asked_turns(turns_of(*TURNS), "current") == list(range(len(TURNS)))


def test_train_reads_train_and_dev_and_test_reads_test(small: Path):
    train, test, every = (read_dialogue_data(config_of(small), split) for split in ("train", "test", "all"))
    dialogues = [sorted({sample.groups["dialogue"] for sample in data.samples}) for data in (train, test)]
    assert dialogues == [["dev_dia2", "train_dia0", "train_dia1"], ["test_dia3"]]
    assert {item.sample_id for item in every.samples} == {item.sample_id for item in (*train.samples, *test.samples)}
    assert train.notes == (
        "dialogues (train): 3 with 18 turns of 3 speakers; asked: 12 turns (anger 3, surprise 3, neutral 3, joy 3)",
    )


def test_a_sample_is_named_for_turn_and_question_and_knows_its_groups(small: Path):
    sample = read_dialogue_data(config_of(small), "test").samples[0]
    assert sample.sample_id == "test_dia3_utt1.next"
    assert sample.groups == {"clip": "test_dia3_utt1.next", "dialogue": "test_dia3", "speaker": "Bo"}
    assert str(sample.target["emotion"]) == "anger"


def test_dialogue_numbers_that_start_again_in_each_file_are_other_dialogues(tmp_path: Path):
    for split in ("train", "dev", "test"):
        rows = [row[:-1] for row in dialogue_rows(0, split)]
        write_csv(tmp_path / "MELD" / f"{split}_sent_emo.csv", rows, COLUMNS[:-1])
    config = config_of(tmp_path / "MELD")
    found = [
        {item.groups["dialogue"] for item in read_dialogue_data(config, split).samples} for split in ("train", "test")
    ]
    assert found == [{"train_dia0", "dev_dia0"}, {"test_dia0"}]


def test_folds_never_split_a_dialogue(tmp_path: Path):
    path = write_csv(tmp_path / "d.csv", [row for i in range(9) for row in dialogue_rows(i, "train")])
    config = config_of(path)
    samples = read_dialogue_data(config, "train").samples
    groups = {item.sample_id: item.groups["dialogue"] for item in samples}
    for fold in make_folds(samples, by=config.cv.by, num_folds=3, val_fraction=0.3, seed=0):
        sides = [{groups[name] for name in side} for side in (fold.train, fold.val, fold.held_out)]
        assert sum(map(len, sides)) == 9 and len(set.union(*sides)) == 9


# ---- what is seen


@pytest.mark.parametrize("config", EVERY_WAY, ids=str)
def test_neither_later_turns_nor_the_asked_emotion_change_what_is_seen(config: DialogueConfig):
    turns = turns_of(*TURNS)
    for index in asked_turns(turns, config.ask):
        own = (TURNS[index][0], TURNS[index][1], "another emotion")
        later = [("Dora", "Other words.", "another emotion")] * 3
        assert seen_turns(turns_of(*TURNS[:index], own, *later), index, config) == seen_turns(turns, index, config)


@pytest.mark.parametrize("config", [item for item in EVERY_WAY if item.ask == "next"], ids=str)
def test_words_of_the_next_turn_are_not_seen(config: DialogueConfig):
    turns = turns_of(*TURNS)
    for index in asked_turns(turns, "next"):
        changed = turns_of(*TURNS[:index], (TURNS[index][0], "Other words.", TURNS[index][2]))
        assert seen_turns(changed, index, config) == seen_turns(turns, index, config)


@pytest.mark.parametrize("config", EVERY_WAY, ids=str)
def test_context_limits_what_is_seen(config: DialogueConfig):
    turns = turns_of(*TURNS)
    for index in asked_turns(turns, config.ask):
        first = max(0, index - config.context)
        hidden = [("Dora", "Other words.", "another emotion")] * first
        seen = seen_turns(turns, index, config)
        assert len(seen) == index - first + 1 and [item.is_asked for item in seen] == [False] * (index - first) + [True]
        assert seen_turns(turns_of(*hidden, *TURNS[first:]), index, config) == seen


def test_current_turn_shows_its_words_and_every_turn_whose_it_is():
    seen = seen_turns(turns_of(*TURNS), 3, DialogueConfig(ask="current", context=3))
    assert [(item.who, item.name, item.words) for item in seen] == [
        ("own", "Ana", "Hello there."),
        ("partner", "Bo", "Go away!"),
        ("partner", "Bo", "Please."),
        ("own", "Ana", "Why me?"),
    ]
    assert [item.emotion for item in seen] == [""] * 4


@pytest.mark.parametrize(
    ("knobs", "hidden"),
    [
        ({"words": False}, [item[1] for item in TURNS]),
        ({"names": False}, ["Ana", "Bo", "Cem"]),
        ({"emotions": False}, [item[2] for item in TURNS]),
    ],
    ids=str,
)
def test_what_is_switched_off_is_nowhere_in_the_text(small: Path, knobs: dict[str, bool], hidden: list[str]):
    shown = {"words": True, "names": True, "emotions": True, "ask": "current"}
    config = with_overrides(
        config_of(small), {f"cross.dialogue.{key}": item for key, item in {**shown, **knobs}.items()}
    )
    texts = [clip.media[STREAM] for clip in read_dialogue_data(config, "all").clips]
    everything = "\n".join(str(text) for text in texts)
    assert not any(json.dumps(item) in everything for item in hidden)
    others = [[item[1] for item in TURNS], ["Ana", "Bo", "Cem"], [item[2] for item in TURNS]]
    assert all(any(json.dumps(item) in everything for item in group) for group in others if group != hidden)


def test_true_emotions_of_earlier_turns_are_shown_where_asked_for():
    seen = seen_turns(turns_of(*TURNS), 3, DialogueConfig(emotions=True))
    assert [item.emotion for item in seen] == ["joy", "anger", "sadness", ""]


def test_text_of_a_clip_is_what_is_seen(small: Path):
    data = read_dialogue_data(config_of(small, "cross.dialogue.context=2"), "test")
    text = data.clips[1].media[STREAM]
    assert read_seen(str(text)) == seen_turns(turns_of(*TURNS), 3, DialogueConfig(context=2))


# ---- what is copied


@pytest.mark.parametrize(
    ("index", "own", "partner"),
    [(0, "", ""), (1, "", "joy"), (2, "anger", "joy"), (3, "joy", "sadness"), (4, "", "surprise")],
)
def test_last_emotions_are_those_before_the_turn(index: int, own: str, partner: str):
    assert last_emotions(turns_of(*TURNS), index) == {LAST_OWN: own, LAST_PARTNER: partner}


def test_an_unknown_emotion_is_passed_over_when_copying():
    turns = turns_of(("Ana", "a", "joy"), ("Bo", "b", "anger"), ("Bo", "c", ""), ("Ana", "d", "joy"))
    assert last_emotions(turns, 3) == {LAST_OWN: "joy", LAST_PARTNER: "anger"}


def test_emotions_of_earlier_turns_go_no_further_than_the_context(small: Path):
    samples = read_dialogue_data(config_of(small, "cross.dialogue.context=2"), "test").samples
    assert [json.loads(item.texts[EARLIER]) for item in samples[:2]] == [["joy"], ["anger", "sadness"]]


# ---- truths


@pytest.mark.parametrize("ask", ["next", "current"])
def test_truths_are_the_asked_turns_of_the_test_rows(small: Path, ask: str):
    samples = read_dialogue_data(config_of(small, f"cross.dialogue.ask={ask}"), "test").samples
    expected = {item.sample_id: str(item.target["emotion"]) for item in samples}
    found = read_truths(small)
    assert {name: emotion for name, emotion in found.items() if name.endswith(ask)} == expected
    assert read_answers(small) == found


def test_without_labelled_test_rows_all_rows_are_the_truth(tmp_path: Path):
    turns = [(who, text, "") for who, text, _ in TURNS]
    path = write_csv(tmp_path / "d.csv", [*dialogue_rows(0, "dev"), *dialogue_rows(1, "test", turns)])
    assert {name.partition("_")[0] for name in read_truths(path)} == {"dev"}
    with pytest.raises(DataError, match=r"no turn has an emotion \(column emotion\)"):
        read_truths(write_csv(tmp_path / "none.csv", dialogue_rows(0, "test", turns)))


# ---- refusals


def read(config: RunConfig, split: str = "train") -> None:
    registry.load("cross").read(config, split)


def test_label_outside_a_fixed_set_is_refused(small: Path):
    config = config_of(small, "cross.labels=joy,anger,surprise,neutral")
    with pytest.raises(DataError, match=r"line 4: the emotion is 'sadness'; expected one of joy, .*cross\.labels=\[\]"):
        read(config)


def test_split_without_an_asked_turn_is_refused(tmp_path: Path):
    alone = [("Ana", "Hello.", "joy"), ("Ana", "Hello?", "joy")]
    config = config_of(write_csv(tmp_path / "d.csv", dialogue_rows(0, "train", alone)))
    with pytest.raises(DataError, match=r"no turn of split 'train' is asked \(cross\.dialogue\.ask=next\)"):
        read(config)
    with pytest.raises(DataError, match="no turn of split 'test' is asked"):
        read(config, "test")


def test_training_rows_without_any_emotion_are_refused(tmp_path: Path):
    rows = [(text, who, 0, i) for i, (who, text, _) in enumerate(TURNS)]
    path = write_csv(tmp_path / "d.csv", rows, ("Utterance", "Speaker", "Dialogue_ID", "Utterance_ID"))
    with pytest.raises(DataError, match="no asked turn of train or dev has an emotion; fill in the column emotion"):
        read(config_of(path))


def test_rows_without_emotions_can_be_predicted(tmp_path: Path):
    turns = [(who, text, "") for who, text, _ in TURNS]
    config = config_of(write_csv(tmp_path / "d.csv", dialogue_rows(0, "test", turns)))
    assert all(not item.target for item in read_dialogue_data(config, "test").samples)


def test_dialogues_without_the_recipe_are_refused_with_it(small: Path):
    with pytest.raises(ConfigError, match=r"holds dialogues; add config=recipe/cross_dialogue\.yaml"):
        read(api.config("cross", overrides=[f"data.manifest={small}"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dialogue": DialogueConfig()}, "system: for dialogues need one of dialogue, copy_partner, .*, got listener"),
        ({"system": "copy_own"}, "system: copy_own is for dialogues; add config=recipe/cross_dialogue.yaml"),
    ],
)
def test_system_and_data_must_fit(options: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        CrossConfig(**options)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"context": -1}, "context: need 0 or more earlier turns, got -1"),
        ({"earlier_weight": -0.5}, r"earlier_weight: need 0 or more, got -0\.5"),
    ],
)
def test_knobs_out_of_range_are_refused(knobs: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        DialogueConfig(**knobs)
