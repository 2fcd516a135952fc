import csv

import numpy as np
import pytest

from mersuite import api
from mersuite.clip import Prediction
from mersuite.errors import ConfigError, DataError, SubmissionError
from mersuite.predictions import PredictionHeader, write_predictions
from tracks.ps.layout import read_row_ids
from tracks.ps.rows import round_ratings, rows_of
from tracks.ps.scores import metrics_of_answers, valence_arousal_metrics
from tracks.ps.submission import read_table, score_tables, write_predictions_csv


def _prediction(sample_id="predict1/video_01", num_seconds=4, start=100.0):
    answer = (start + np.arange(2 * num_seconds).reshape(-1, 2) / 4).tolist()
    return Prediction(sample_id=sample_id, groups={}, outputs={}, answer=answer)


def _csv(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_rows_are_rounded_to_even_then_clipped():
    found = round_ratings([[0.5, 1.5], [2.5, 254.5], [-30.0, 300.0]], "a/video_01")
    assert found.tolist() == [[1, 2], [2, 254], [1, 255]] and found.dtype == np.int64


def test_csv_has_exact_columns_ids_and_integers(tmp_path):
    out = tmp_path / "predictions.csv"
    line = write_predictions_csv([_prediction(), _prediction("predict2/video_15", 2)], out, uses_prior=True)
    rows = list(csv.reader(out.open(newline="")))
    assert rows[0] == ["sample_id", "valence", "arousal"]
    assert [row[0] for row in rows[1:]] == [
        *(f"predict1_V01_T{second:03d}" for second in range(4)),
        "predict2_V15_T000",
        "predict2_V15_T001",
    ]
    assert rows[1][1:] == ["100", "100"] and rows[2][1:] == ["100", "101"]
    assert "6 rows of 2 trials" in line and "the stimulus prior was used" in line
    assert "prior" not in out.read_text() and [p.name for p in tmp_path.iterdir()] == ["predictions.csv"]


@pytest.mark.parametrize(("uses_prior", "words"), [(False, "no stimulus prior"), (None, "not stated")])
def test_line_says_whether_the_prior_was_used(tmp_path, uses_prior, words):
    assert words in write_predictions_csv([_prediction()], tmp_path / "p.csv", uses_prior=uses_prior)


def test_order_and_rows_follow_sample_ids(tmp_path):
    ids = ["predict2_V15_T001", "predict1_V01_T000", "predict2_V15_T000", "predict1_V01_T002"]
    listed = _csv(tmp_path, "sample_id\n" + "\n".join(ids) + "\n", "sample_ids.csv")
    out = tmp_path / "predictions.csv"
    write_predictions_csv(
        [_prediction(), _prediction("predict2/video_15", 2)], out, uses_prior=False, row_ids=read_row_ids(listed)
    )
    assert [line.split(",")[0] for line in out.read_text().splitlines()[1:]] == ids


def test_ids_without_prediction_are_named_and_nothing_is_written(tmp_path):
    listed = _csv(tmp_path, "sample_id\npredict1_V01_T003\npredict1_V01_T004\npredict9_V01_T000\n")
    with pytest.raises(
        SubmissionError, match=r"2 rows of sample_ids.csv have no prediction: predict1_V01_T004, predict9"
    ):
        write_predictions_csv([_prediction()], tmp_path / "out.csv", uses_prior=False, row_ids=read_row_ids(listed))
    assert not (tmp_path / "out.csv").exists()


def test_trials_that_are_not_asked_for_are_named():
    with pytest.raises(SubmissionError, match=r"1 predicted trials are not in sample_ids.csv: predict2/video_01"):
        rows_of({"predict1/video_01": [[1, 1]], "predict2/video_01": [[1, 1]]}, {"predict1/video_01": (0,)})


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([], "no prediction to write"),
        ([_prediction(), _prediction()], "1 trials are predicted twice"),
        (
            [Prediction(sample_id="a/video_01", groups={}, outputs={}, answer=[[1.0, float("nan")]])],
            "1 of 2 ratings are not finite",
        ),
        ([Prediction(sample_id="a/video_01", groups={}, outputs={}, answer=[1.0, 2.0])], r"got shape \(2,\)"),
    ],
)
def test_bad_predictions_leave_no_file(tmp_path, predictions, message):
    with pytest.raises(SubmissionError, match=message):
        write_predictions_csv(predictions, tmp_path / "out.csv", uses_prior=False)
    assert not (tmp_path / "out.csv").exists()


def test_own_recordings_keep_their_names_in_the_csv(tmp_path):
    write_predictions_csv([_prediction("x")], tmp_path / "out.csv", uses_prior=False)
    assert next(iter(read_table(tmp_path / "out.csv"))) == "x_T000"


def test_readback_that_differs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "tracks.ps.submission.write_rows",
        lambda rows, out: _csv(tmp_path, "sample_id,valence,arousal\na,1,1\n", "out.csv"),
    )
    with pytest.raises(SubmissionError, match="not what was written"):
        write_predictions_csv([_prediction()], tmp_path / "out.csv", uses_prior=False)
    assert not (tmp_path / "out.csv").exists()


def test_table_of_a_prediction_file_is_not_rounded(tmp_path):
    path = tmp_path / "p.jsonl"
    write_predictions(path, PredictionHeader(track="ps", run="r", evaluation="e", split="test"), [_prediction()])
    assert read_table(path)["predict1_V01_T001"] == (100.5, 100.75)


def test_prediction_file_of_another_shape_is_refused(tmp_path):
    path = tmp_path / "p.jsonl"
    flat = Prediction(sample_id="a/video_01", groups={}, outputs={}, answer=[1.0, 2.0])
    write_predictions(path, PredictionHeader(track="ps", run="r", evaluation="e", split="test"), [flat])
    with pytest.raises(SubmissionError, match=r"a/video_01: need \(second, 2\)"):
        read_table(path)


HEAD = "sample_id,valence,arousal\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the columns are none; expected exactly sample_id,valence,arousal"),
        ("sample_id,arousal,valence\na,1,2\n", "the columns are sample_id,arousal,valence; expected exactly"),
        ("id,valence\n", "the columns are id,valence"),
        (HEAD, "holds no row"),
        (HEAD + "a,1,2\na,1,2\n", "line 3: a is listed twice"),
        (HEAD + "a,1,x\n", "line 2: a: need two numbers, got '1' and 'x'"),
        (HEAD + "a,0,2\n", "a: valence is 0, expected a number from 1 to 255"),
        (HEAD + "a,1,256\n", "a: arousal is 256"),
        (HEAD + "a,1,nan\n", "a: arousal is nan"),
        (HEAD + "a,1\n", "line 2: 2 cells, expected 3"),
    ],
)
def test_malformed_tables_are_refused(tmp_path, text, message):
    with pytest.raises(SubmissionError, match=message):
        read_table(_csv(tmp_path, text))


def test_missing_and_binary_tables_are_refused(tmp_path):
    with pytest.raises(SubmissionError, match="no such file"):
        read_table(tmp_path / "none.csv")
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(SubmissionError, match="not a csv file"):
        read_table(tmp_path / "x.csv")


def test_targets_of_a_spreadsheet_are_read(tmp_path):
    path = tmp_path / "targets.csv"
    path.write_text("\ufeffsample_id,valence,arousal\r\na_V01_T000,128.0,1\r\n\r\n", encoding="utf-8")
    assert read_table(path) == {"a_V01_T000": (128.0, 1.0)}


def test_score_joins_by_id():
    target = {"a": (10.0, 20.0), "b": (30.0, 40.0)}
    assert score_tables({"b": (31.0, 40.0), "a": (10.0, 23.0)}, target)["mae"] == 1.0


def test_score_names_missing_and_unknown_ids():
    target = dict.fromkeys("abcde", (1.0, 1.0))
    with pytest.raises(SubmissionError, match=r"4 of 5 rows have no prediction: b, c, d, \.\.\."):
        score_tables({"a": (1.0, 1.0)}, target)
    with pytest.raises(SubmissionError, match="1 predicted rows have no target: z"):
        score_tables({**target, "z": (1.0, 1.0)}, target)


def test_metrics_agree_with_scikit_learn_and_scipy():
    from scipy import stats
    from sklearn.metrics import mean_absolute_error, mean_squared_error

    rng = np.random.default_rng(0)
    target, pred = rng.uniform(1, 255, (300, 2)), rng.uniform(1, 255, (300, 2))
    found = valence_arousal_metrics(pred, target)
    expected = {
        "mae": mean_absolute_error(target, pred),
        "mae_valence": mean_absolute_error(target[:, 0], pred[:, 0]),
        "mae_arousal": mean_absolute_error(target[:, 1], pred[:, 1]),
        "mse": mean_squared_error(target, pred),
        "pearson_valence": stats.pearsonr(pred[:, 0], target[:, 0]).statistic,
        "pearson_arousal": stats.pearsonr(pred[:, 1], target[:, 1]).statistic,
        "num_rows": 300,
    }
    for name, value in expected.items():
        assert abs(found[name] - value) < 1e-9, name
    assert set(found) == {*expected, "ccc_valence", "ccc_arousal"}


def test_answers_of_trials_are_scored_as_their_rows_together():
    rng = np.random.default_rng(1)
    answers = [rng.uniform(1, 255, (length, 2)).tolist() for length in (3, 11)]
    targets = [rng.uniform(1, 255, (length, 2)) for length in (3, 11)]
    assert metrics_of_answers(answers, targets) == valence_arousal_metrics(
        np.concatenate(answers), np.concatenate(targets)
    )


def test_answer_that_does_not_fit_its_target_is_refused():
    with pytest.raises(DataError, match=r"answer 1 has shape \(3, 2\), its target \(4, 2\)"):
        metrics_of_answers([np.ones((4, 2)), np.ones((3, 2))], [np.ones((4, 2)), np.ones((4, 2))])
    with pytest.raises(DataError, match="1 answers for 0 targets"):
        metrics_of_answers([np.ones((4, 2))], [])
    with pytest.raises(DataError, match="0 answers for 0 targets"):
        metrics_of_answers([], [])


def test_metrics_refuse_other_shapes_and_nan():
    with pytest.raises(DataError, match=r"predictions: need \(row, 2\)"):
        valence_arousal_metrics(np.ones(4), np.ones((2, 2)))
    with pytest.raises(DataError, match="targets: 1 of 4 values are not finite"):
        valence_arousal_metrics(np.ones((2, 2)), [[1, 2], [3, np.nan]])


def test_rows_of_unknown_truth_are_not_counted():
    nan = float("nan")
    found = score_tables({"a": (1, 1), "b": (50, 50)}, {"a": (3, 3), "b": (nan, nan)})
    assert (found["mae"], found["num_rows"]) == (2.0, 1)
    with pytest.raises(SubmissionError, match="none of the 1 rows has a known target; fill in the ratings"):
        score_tables({"b": (50, 50)}, {"b": (nan, nan)})


def test_export_writes_the_rows_that_predict_was_asked_for(tmp_path):
    ids = ("predict1_V01_T003", "predict1_V01_T000", "predict1_V01_T002")
    header = PredictionHeader(track="ps", run="r", evaluation="e", split="test", row_ids=ids)
    write_predictions(tmp_path / "p.jsonl", header, [_prediction()])
    api.export("ps", out=tmp_path / "asked.csv", pred=tmp_path / "p.jsonl")
    assert tuple(read_table(tmp_path / "asked.csv")) == tuple(read_table(tmp_path / "p.jsonl")) == ids
    listed = _csv(tmp_path, "sample_id\npredict1_V01_T001\n", "sample_ids.csv")
    api.export("ps", out=tmp_path / "listed.csv", pred=tmp_path / "p.jsonl", ids=listed)
    assert read_table(tmp_path / "listed.csv") == {"predict1_V01_T001": (100.0, 101.0)}


def test_ids_go_with_predictions_only(tmp_path):
    with pytest.raises(ConfigError, match=r"need either pred=FILE\.jsonl, perhaps with ids=FILE, or ckpt=RUN"):
        api.export("ps", out=tmp_path / "o.zip", ckpt=tmp_path, ids=tmp_path / "ids.csv")
    with pytest.raises(ConfigError, match=r"need either pred=FILE\.jsonl"):
        api.export("ps", out=tmp_path / "o.zip")
