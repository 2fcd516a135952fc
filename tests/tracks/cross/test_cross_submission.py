from __future__ import annotations

import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mersuite.clip import Prediction
from mersuite.errors import ConfigError, DataError, SubmissionError
from mersuite.predictions import PredictionHeader, write_predictions
from tracks.cross.scores import score_tables
from tracks.cross.submission import read_answers, write_answers

ANSWERS = {"b": "sad", "a": "happy", "c": "neutral"}


def predictions(answers: dict[str, str] = ANSWERS) -> list[Prediction]:
    return [
        Prediction(sample_id=name, groups={"clip": name}, outputs={label: np.float32(1.0)}, answer=label)
        for name, label in answers.items()
    ]


def test_csv_stands_in_the_order_of_the_candidates(tmp_path: Path) -> None:
    out = tmp_path / "answer.csv"
    message = write_answers(predictions(), out, row_ids=("c", "a", "b"))
    assert out.read_text() == "name,discrete\nc,neutral\na,happy\nb,sad\n"
    assert message == f"{out}: 3 rows; neutral 1, happy 1, sad 1"


def test_zip_holds_answer_csv_and_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = tmp_path / "answer.zip", tmp_path / "again.zip"
    assert "3 rows in answer.csv" in write_answers(predictions(), first)
    write_answers(predictions(), second, "zip")
    assert zipfile.ZipFile(first).namelist() == ["answer.csv"]
    assert first.read_bytes() == second.read_bytes()
    assert read_answers(first) == ANSWERS


def test_every_form_of_a_table_reads_alike(tmp_path: Path) -> None:
    for name in ("answer.csv", "answer.zip"):
        write_answers(predictions(), tmp_path / name)
    header = PredictionHeader(track="cross", run="", evaluation="listener", split="test")
    write_predictions(tmp_path / "cross.jsonl", header, predictions())
    manifest = tmp_path / "own.csv"
    np.save(tmp_path / "v.npy", np.ones(2, np.float32))
    lines = [
        f"{name},v.npy,{split},{label}" for (name, label), split in zip(ANSWERS.items(), ("test",) * 3, strict=True)
    ]
    manifest.write_text("\n".join(["clip_id,features/v,split,target.emotion", *lines, "d,v.npy,train,angry"]) + "\n")
    tables = [read_answers(tmp_path / name) for name in ("answer.csv", "answer.zip", "cross.jsonl", "own.csv")]
    assert tables == [ANSWERS] * 4


def test_a_zip_with_one_csv_of_another_name_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("folder/mine.csv", "name,discrete\na,sad\n")
    assert read_answers(tmp_path / "a.zip") == {"a": "sad"}


@pytest.mark.parametrize(
    ("answers", "row_ids", "message"),
    [
        ({}, ("a",), "there is no prediction to write"),
        (ANSWERS, ("a", "b", "c", "d"), r"1 of 4 candidates have no prediction \(d\)"),
        (ANSWERS, ("a", "b"), r"1 predictions are of no candidate \(c\)"),
        (
            ANSWERS,
            ("a", "b", "x"),
            r"1 of 3 candidates have no prediction \(x\); 1 predictions are of no candidate \(c\)",
        ),
        ({"a": "joy"}, (), r"a has the label 'joy'; choose one of: angry"),
    ],
)
def test_predictions_that_are_no_submission_leave_nothing(
    tmp_path: Path, answers: dict[str, str], row_ids: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SubmissionError, match=message):
        write_answers(predictions(answers), tmp_path / "answer.zip", row_ids=row_ids)
    assert list(tmp_path.iterdir()) == []


def test_a_doubled_prediction_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match="a is predicted twice; need one prediction a candidate"):
        write_answers([*predictions(), *predictions({"a": "sad"})], tmp_path / "answer.csv")


def test_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="kind: got 'code'; choose one of: csv, zip"):
        write_answers(predictions(), tmp_path / "answer.csv", "code")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name,label\na,sad\n", "the columns are name,label; expected name,discrete"),
        ("", "the columns are none"),
        ("name,discrete\n", "the file holds no row"),
        ("name,discrete\na,sad\na,sad\n", "line 3: a is listed twice"),
        ("name,discrete\na\n", "line 2: 1 cells, expected 2"),
        ("name,discrete\na,Sad\n", "a has the label 'Sad'; did you mean 'sad'"),
        ('name,discrete\n"a,sad\n', "not a csv file in UTF-8"),
    ],
)
def test_malformed_tables_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "answer.csv"
    path.write_text(content)
    with pytest.raises(SubmissionError, match=message):
        read_answers(path)


def test_an_archive_without_a_table_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "x")
    with pytest.raises(SubmissionError, match=r"need answer\.csv in the archive, it holds readme\.txt"):
        read_answers(tmp_path / "a.zip")


def test_a_manifest_without_labels_is_no_truth(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones(2, np.float32))
    path = tmp_path / "own.csv"
    path.write_text("clip_id,features/v\na,v.npy\n")
    with pytest.raises(DataError, match=r"no row has a label in the column target\.emotion"):
        read_answers(path)


def test_score_joins_by_name_and_ignores_names_without_truth() -> None:
    found = score_tables({"x": "sad", "a": "happy", "b": "sad"}, {"b": "sad", "a": "sad"})
    assert found["acc"] == 0.5 and found["num_rows"] == 2
    with pytest.raises(SubmissionError, match="1 of 2 names have no prediction: z"):
        score_tables({"a": "sad"}, {"a": "sad", "z": "sad"})
