"""csv files of dialogues: which columns mean what, which split a line is in, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from mersuite.errors import DataError
from mersuite.formats.dialogue import is_dialogues, read_dialogues, split_of_name

MELD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,StartTime,EndTime"


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def meld_line(utterance: str, speaker: str, emotion: str, dialogue: int, order: int) -> str:
    return f'1,"{utterance}",{speaker},{emotion},neutral,{dialogue},{order},4,7,"00:20:57,256","00:21:00,049"'


@pytest.fixture
def meld(tmp_path: Path) -> Path:
    """Three files as MELD has them; dialogue 0 is another one in each."""
    folder = tmp_path / "MELD"
    write(
        folder / "train_sent_emo.csv",
        MELD,
        meld_line("Hi, you.", "Joe", "joy", 0, 0),
        meld_line("Oh?", "Ann", "surprise", 0, 1),
    )
    write(folder / "dev_sent_emo.csv", MELD, meld_line("No.", "Ann", "anger", 0, 0))
    write(
        folder / "test_sent_emo.csv",
        MELD,
        meld_line("“Yes”…", "Guy", "neutral", 0, 0),
        meld_line("A", "Guy", "joy", 1, 0),
    )
    return folder


def test_folder_of_meld_gives_the_dialogues_of_every_split_apart(meld: Path):
    found = read_dialogues(meld)
    assert [(item.name, item.split) for item in found] == [
        ("train_dia0", "train"),
        ("dev_dia0", "dev"),
        ("test_dia0", "test"),
        ("test_dia1", "test"),
    ]
    first = found[0].turns[0]
    assert (first.turn_id, first.speaker, first.text, first.emotion) == ("train_dia0_utt0", "Joe", "Hi, you.", "joy")
    assert found[2].turns[0].text == "“Yes”…"


def test_one_file_names_its_turns_as_its_folder_does(meld: Path):
    alone = read_dialogues(meld / "test_sent_emo.csv")
    assert [turn.turn_id for item in alone for turn in item.turns] == ["test_dia0_utt0", "test_dia1_utt0"]


def test_turns_are_sorted_by_number_and_gaps_are_allowed(tmp_path: Path):
    lines = ["c,X,d,10", "a,X,d,2", "other,X,e,0", "b,Y,d,9"]
    (first, second) = read_dialogues(write(tmp_path / "x.csv", "utterance,speaker,dialogue,order", *lines))
    assert [turn.text for turn in first.turns] == ["a", "b", "c"]
    assert [turn.turn_id for turn in first.turns] == ["train_diad_utt2", "train_diad_utt9", "train_diad_utt10"]
    assert second.name == "train_diae"


def test_columns_go_by_name_in_any_case_and_order(tmp_path: Path):
    path = write(tmp_path / "x.csv", "ORDER,Dialogue,junk,emotion,Speaker,UTTERANCE", "0,d,,sad,X,Oh.")
    ((turn,),) = [item.turns for item in read_dialogues(path)]
    assert (turn.speaker, turn.text, turn.emotion) == ("X", "Oh.", "sad")


@pytest.mark.parametrize(("emotion", "rest"), [("", ""), (",Emotion", ",")], ids=["no column", "empty"])
def test_an_emotion_may_be_unknown(tmp_path: Path, emotion: str, rest: str):
    path = write(tmp_path / "x.csv", "Utterance,Speaker,Dialogue_ID,Utterance_ID" + emotion, "Oh.,X,0,0" + rest)
    assert read_dialogues(path)[0].turns[0].emotion == ""


@pytest.mark.parametrize(
    ("cell", "split"), [("", "train"), ("train", "train"), ("Dev", "dev"), ("validation", "dev"), ("test", "test")]
)
def test_the_split_column_goes_before_the_file_name(tmp_path: Path, cell: str, split: str):
    path = write(tmp_path / "test.csv", "Utterance,Speaker,Dialogue_ID,Utterance_ID,Split", f"Oh.,X,0,0,{cell}")
    assert [(item.split, item.name) for item in read_dialogues(path)] == [(split, f"{split}_dia0")]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("emorynlp_dev_final.csv", "dev"),
        ("val.csv", "dev"),
        ("TEST-2.csv", "test"),
        ("contest.csv", None),
        ("x.csv", None),
    ],
)
def test_a_file_name_says_its_split_by_a_whole_word(name: str, split: str | None):
    assert split_of_name(Path(name)) == split


def test_dialogues_are_told_from_other_files(meld: Path, tmp_path: Path):
    assert is_dialogues(meld) and is_dialogues(meld / "dev_sent_emo.csv")
    other = write(tmp_path / "train.csv", "name,discrete", "a,sad")
    assert not is_dialogues(other) and not is_dialogues(tmp_path) and not is_dialogues(tmp_path / "absent.csv")
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04\xff\xfe")
    assert not is_dialogues(tmp_path / "x.zip")


HEADER = "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID,Split"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["Utterance,Emotion,Dialogue_ID,Utterance_ID", "a,b,0,0"],
            r"x\.csv: no column speaker; the columns are Utterance",
        ),
        (["Utterance,Speaker,Utterance_ID", "a,b,0"], "no column dialogue_id or dialogue"),
        (
            ["Utterance,Speaker,Dialogue,Dialogue_ID,order", "a,b,0,0,0"],
            "Dialogue, Dialogue_ID mean the same; keep one",
        ),
        ([HEADER], "no turn below the header"),
        ([HEADER, "a,X,sad,0,0,train", ",X,sad,0,1,train"], r"x\.csv, line 3: utterance is empty"),
        ([HEADER, "a,,sad,0,0,train"], "line 2: speaker is empty"),
        ([HEADER, "a,X,sad,,0,train"], "line 2: dialogue is empty"),
        ([HEADER, "a,X,sad,0,1.5,train"], "line 2: the order of the turn must be a whole number, got '1.5'"),
        ([HEADER, "a,X,sad,0,0,trian"], "line 2: split is 'trian'; did you mean 'train'"),
        ([HEADER, "a,X,sad,0,0"], "line 2: 5 cells, the header has 6"),
        (
            [HEADER, "a,X,sad,0,3,train", "b,Y,sad,0,4,train", "c,Y,sad,0,3,train"],
            r"line 4: turn 3 of dialogue 0 is already there \(.*line 2\); need every turn of a dialogue once",
        ),
    ],
)
def test_malformed_files_are_refused_with_their_line(tmp_path: Path, lines: list[str], message: str):
    with pytest.raises(DataError, match=message):
        read_dialogues(write(tmp_path / "x.csv", *lines))


def test_the_same_numbers_in_another_split_are_another_turn(tmp_path: Path):
    path = write(tmp_path / "x.csv", HEADER, "a,X,sad,0,0,train", "a,X,sad,0,0,test")
    assert [item.name for item in read_dialogues(path)] == ["train_dia0", "test_dia0"]


def test_folder_without_a_file_of_a_split_is_refused(tmp_path: Path):
    write(tmp_path / "all.csv", HEADER, "a,X,sad,0,0,train")
    with pytest.raises(DataError, match="no csv file of dialogues whose name says train, dev or test"):
        read_dialogues(tmp_path)


def test_two_files_of_one_split_are_refused(meld: Path):
    write(meld / "train_2.csv", MELD, meld_line("a", "X", "joy", 0, 0))
    with pytest.raises(DataError, match=r"train_2\.csv and train_sent_emo\.csv are both of the split train; keep one"):
        read_dialogues(meld)


def test_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match="no such file"):
        read_dialogues(tmp_path / "absent.csv")
