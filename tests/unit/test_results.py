import json

import numpy as np
import pytest

from mersuite.clip import Prediction
from mersuite.errors import DataError
from mersuite.predictions import PredictionHeader, write_predictions
from mersuite.results import read_run


@pytest.fixture
def folder(tmp_path):
    run = {"track": "toy", "seed": 0, "evaluations": {"constant": {"main": False}, "fused": {"main": True}}}
    (tmp_path / "run.json").write_text(json.dumps(run))
    (tmp_path / "metrics.json").write_text(json.dumps({"fused": {"mae": 1.0}}))
    (tmp_path / "config.yaml").write_text("track: toy\nseed: 0\n")
    header = PredictionHeader(track="toy", run=str(tmp_path), evaluation="fused", split="oof")
    row = Prediction(sample_id="a", groups={}, outputs={}, answer=1, target={"x": np.ones(1)})
    write_predictions(tmp_path / "oof.jsonl", header, [row])
    return tmp_path


def test_run_knows_its_main_evaluation_and_files(folder):
    run = read_run(folder)
    assert run.main == "fused" and run.track == "toy" and run.config["seed"] == 0
    assert run.oof_path() == run.oof_path("fused") == folder / "oof.jsonl"
    assert run.oof_path("constant") == folder / "constant" / "oof.jsonl"
    assert run.read_oof()[1][0].answer == 1


def test_missing_config_is_empty(folder):
    (folder / "config.yaml").unlink()
    assert read_run(folder).config == {}


def test_unknown_evaluation_names_the_nearest(folder):
    with pytest.raises(DataError, match="no evaluation 'fussed'; did you mean 'fused'"):
        read_run(folder).oof_path("fussed")


def test_rows_without_target_are_refused(folder):
    header = PredictionHeader(track="toy", run="", evaluation="fused", split="oof")
    write_predictions(folder / "oof.jsonl", header, [Prediction(sample_id="a", groups={}, outputs={}, answer=1)])
    with pytest.raises(DataError, match=r"1 of 1 rows have no target \(a\)"):
        read_run(folder).read_oof()
    write_predictions(folder / "oof.jsonl", header, [])
    with pytest.raises(DataError, match=r"oof.jsonl: no row"):
        read_run(folder).read_oof()


def test_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"run.json: no such file; need the folder of a finished run"):
        read_run(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "not JSON"), ("[]", "need a JSON object, got list"), ("{}", "no track and no evaluations")],
)
def test_broken_run_file_is_refused(folder, text, message):
    (folder / "run.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_run(folder)
