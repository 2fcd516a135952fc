import json

import numpy as np
import pytest

from mersuite.clip import Prediction
from mersuite.errors import SubmissionError
from mersuite.predictions import PredictionHeader, is_prediction_file, read_predictions, write_predictions

HEADER = PredictionHeader(
    track="ps", run="runs/ps", evaluation="fused", split="test", traits={"prior": True}, versions={"mersuite": "0.1.0"}
)


def _predictions(num=3):
    rng = np.random.default_rng(0)
    return [
        Prediction(
            sample_id=f"s/{i}",
            groups={"subject": "s", "clip": str(i)},
            outputs={"level": rng.normal(128, 50, (7, 2)).astype(np.float32), "scale": np.float32(rng.normal())},
            answer=[[1, 2.5]],
            target={"level": rng.integers(1, 256, (7, 2)).astype(np.float32)} if i else {},
        )
        for i in range(num)
    ]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "deep" / "pred.jsonl"
    write_predictions(path, HEADER, _predictions())
    return path


def _edit(path, change):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")


def test_what_is_read_is_what_was_written(file):
    header, found = read_predictions(file, track="ps")
    assert header.traits == {"prior": True} and header.run == "runs/ps" and header.versions == HEADER.versions
    for prediction, expected in zip(found, _predictions(), strict=True):
        assert prediction.sample_id == expected.sample_id and prediction.groups == expected.groups
        assert prediction.answer == expected.answer and set(prediction.target) == set(expected.target)
        for name, array in expected.outputs.items():
            assert prediction.outputs[name].dtype == np.float32
            np.testing.assert_array_equal(prediction.outputs[name], array)


def test_floats_are_written_with_the_fewest_digits(tmp_path):
    one = Prediction(sample_id="a", groups={}, outputs={"x": np.array([0.1, 1e-30, 2.0], np.float64)}, answer=None)
    write_predictions(tmp_path / "x.jsonl", HEADER, [one])
    assert json.loads((tmp_path / "x.jsonl").read_text().splitlines()[1])["outputs"]["x"] == [0.1, 1e-30, 2.0]
    assert '"x": [0.1, 1e-30, 2.0]' in (tmp_path / "x.jsonl").read_text()


def test_integers_and_numpy_answers_survive(tmp_path):
    one = Prediction(sample_id="a", groups={}, outputs={"token": np.arange(3)}, answer=np.float64(2.0))
    write_predictions(tmp_path / "x.jsonl", HEADER, [one])
    _, (found,) = read_predictions(tmp_path / "x.jsonl")
    assert found.answer == 2.0 and found.outputs["token"].dtype.kind == "i"


def test_any_float32_survives(tmp_path):
    bits = np.random.default_rng(1).integers(0, 2**32, 5000, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    write_predictions(
        tmp_path / "x.jsonl", HEADER, [Prediction(sample_id="a", groups={}, outputs={"x": values}, answer=0)]
    )
    np.testing.assert_array_equal(read_predictions(tmp_path / "x.jsonl")[1][0].outputs["x"], values)


def test_members_of_an_ensemble_survive(tmp_path):
    header = PredictionHeader(
        track="ps", run="", evaluation="ensemble", split="test", members=[{"run": "a", "weight": 0.5}]
    )
    write_predictions(tmp_path / "x.jsonl", header, [])
    assert read_predictions(tmp_path / "x.jsonl")[0].members == [{"run": "a", "weight": 0.5}]


def test_nothing_is_left_when_writing_fails(tmp_path):
    path = tmp_path / "x.jsonl"
    write_predictions(path, HEADER, _predictions(1))
    before = path.read_text()
    with pytest.raises(SubmissionError, match="'s/0' has two predictions"):
        write_predictions(path, HEADER, [*_predictions(2), *_predictions(1)])
    assert path.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["x.jsonl"]


def test_values_that_are_not_finite_are_refused(tmp_path):
    bad = Prediction(sample_id="a", groups={}, outputs={"x": np.array([1.0, np.nan])}, answer=0)
    with pytest.raises(SubmissionError, match="'a': x: 1 of 2 values are not finite"):
        write_predictions(tmp_path / "x.jsonl", HEADER, [bad])
    with pytest.raises(SubmissionError, match="the answer is not finite"):
        write_predictions(
            tmp_path / "x.jsonl", HEADER, [Prediction(sample_id="a", groups={}, outputs={}, answer=[float("inf")])]
        )


def test_answer_of_a_strange_type_is_our_fault(tmp_path):
    with pytest.raises(TypeError, match="object has no place"):
        write_predictions(
            tmp_path / "x.jsonl", HEADER, [Prediction(sample_id="a", groups={}, outputs={}, answer=object())]
        )


def test_file_of_another_track_is_refused(file):
    with pytest.raises(SubmissionError, match="predictions of track 'ps', need track 'fg'"):
        read_predictions(file, track="fg")


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(SubmissionError, match="no such prediction file"):
        read_predictions(tmp_path / "none.jsonl")


def test_file_without_header_is_refused(file):
    _edit(file, lambda lines: lines[1:])
    with pytest.raises(SubmissionError, match="line 1: need the header"):
        read_predictions(file)


def test_binary_file_is_refused(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(SubmissionError, match="not a prediction file"):
        read_predictions(tmp_path / "x.jsonl")


def test_other_format_version_is_refused(file):
    _edit(file, lambda lines: [lines[0].replace('"mersuite_predictions": 1', '"mersuite_predictions": 9'), *lines[1:]])
    with pytest.raises(SubmissionError, match="format version 9, this mersuite reads 1"):
        read_predictions(file)


def test_header_without_a_field_is_refused(file):
    _edit(file, lambda lines: [lines[0].replace('"split"', '"spilt"'), *lines[1:]])
    with pytest.raises(SubmissionError, match="the header lacks 'split'"):
        read_predictions(file)


def test_repeated_sample_names_both_lines(file):
    _edit(file, lambda lines: [*lines, lines[1]])
    with pytest.raises(SubmissionError, match="line 5: sample 's/0' stands on line 2 already"):
        read_predictions(file)


def test_cut_last_line_is_refused(file):
    text = file.read_text()
    file.write_text(text[: len(text) - 20])
    with pytest.raises(SubmissionError, match="line 4: the file was cut off here"):
        read_predictions(file)


def test_file_cut_between_lines_is_refused(file):
    _edit(file, lambda lines: lines[:-1])
    with pytest.raises(SubmissionError, match="line 3: the file ends after 2 of 3 predictions"):
        read_predictions(file)


def test_broken_line_in_the_middle_is_named(file):
    _edit(file, lambda lines: [*lines[:2], "{oops", lines[3]])
    with pytest.raises(SubmissionError, match="line 3: not JSON"):
        read_predictions(file)


@pytest.mark.parametrize(
    "line", ["[]", '{"sample_id": "x"}', '{"sample_id": "x", "groups": {}, "outputs": 3, "answer": 1}']
)
def test_line_that_is_no_prediction_is_named(file, line):
    _edit(file, lambda lines: [*lines[:2], line, lines[3]])
    with pytest.raises(SubmissionError, match="line 3: not a prediction"):
        read_predictions(file)


def test_prediction_files_are_told_from_tables(file, tmp_path):
    (tmp_path / "x.csv").write_text("sample_id,valence,arousal\n")
    assert is_prediction_file(file) and not is_prediction_file(tmp_path / "x.csv")
