"""A system trained on EEG and fNIRS answers people of whom only EEG was recorded, and says so."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from mersuite import api, registry
from mersuite.errors import DataError
from mersuite.inference import find_checkpoints, load_checkpoint
from mersuite.predictions import read_predictions
from tracks.ps.code_submission import pack_weights
from tracks.ps.runtime import predict_folder

WORDS = ("data.window_s=6", "data.stride_s=3", "runtime.progress=false", "runtime.accelerator=cpu", "cv.folds=3")


@pytest.fixture(scope="module")
def run(fake_ps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("both")
    words = [f"data.root={fake_ps}", f"store.path={place / 'store'}", f"run.dir={place / 'run'}", *WORDS]
    words += ["trainer.max_epochs=1", "evaluate=signal", "ps.system=signal", "ps.shrink=false", "optim.lr=0.01"]
    api.fit(api.config("ps", overrides=words))
    return place / "run"


@pytest.fixture(scope="module")
def eeg_only(fake_ps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The made-up data without any fNIRS."""
    out = tmp_path_factory.mktemp("eeg_only") / "data"
    for path in fake_ps.rglob("*"):
        if path.is_file() and "fnirs" not in path.name.lower():
            target = out / path.relative_to(fake_ps)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target)
    return out


def predicted(run: Path, data: Path, out: Path) -> tuple[dict, dict[str, np.ndarray]]:
    result = api.predict(run, out=out, overrides=[f"data.root={data}", f"store.path={out.parent / 'store'}"])
    return result, {item.sample_id: np.asarray(item.answer) for item in read_predictions(out)[1]}


def test_eeg_alone_is_answered_with_a_notice(
    run: Path, eeg_only: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        result, answers = predicted(run, eeg_only, tmp_path / "pred.jsonl")
    (note,) = result["notes"]
    assert "no clip has fnirs_stats" in note and note in caplog.text
    assert answers and all(len(np.unique(answer, axis=0)) > 1 for answer in answers.values())


def test_data_with_all_streams_give_no_notice(run: Path, fake_ps: Path, tmp_path: Path) -> None:
    assert predicted(run, fake_ps, tmp_path / "pred.jsonl")[0]["notes"] == []


def test_code_submission_answers_eeg_alone_as_predict_does(run: Path, eeg_only: Path, tmp_path: Path) -> None:
    _, answers = predicted(run, eeg_only, tmp_path / "pred.jsonl")
    weights = tmp_path / "weights.npz"
    weights.write_bytes(pack_weights([load_checkpoint(path) for path in find_checkpoints(run, None)]))
    predict_folder(eeg_only, tmp_path / "out", weights)
    rows = (tmp_path / "out" / "predictions.csv").read_text().split()[1:]
    assert [[int(value) for value in row.split(",")[1:]] for row in rows] == [
        pair for answer in answers.values() for pair in answer.tolist()
    ]


def test_ridge_reads_streams_that_no_encoder_reads(fake_ps: Path, tmp_path: Path) -> None:
    words = [f"data.root={fake_ps}", f"store.path={tmp_path / 'store'}", f"run.dir={tmp_path / 'run'}", *WORDS]
    words += ["model.encoders.fnirs_stats=null", "ps.ridge_streams=[fnirs_stats]", "ps.system=ridge", "evaluate=ridge"]
    config = api.config("ps", overrides=words)
    assert registry.load("ps").streams_read(config) == ("eeg_bands", "fnirs_stats")
    assert np.isfinite(api.fit(config).metrics["ridge"]["mae"])
    assert predicted(tmp_path / "run", fake_ps, tmp_path / "pred.jsonl")[1]


def test_ridge_stream_that_nobody_has_is_refused_before_training(eeg_only: Path, tmp_path: Path) -> None:
    words = [f"data.root={eeg_only}", f"store.path={tmp_path / 'store'}", f"run.dir={tmp_path / 'run'}", *WORDS]
    words += ["model.encoders.fnirs_stats=null", "ps.ridge_streams=[fnirs_stats]"]
    with pytest.raises(DataError, match=r"stream 'fnirs_stats': no clip has it.*out of the ps options that name it"):
        api.fit(api.config("ps", overrides=words))


def test_training_still_refuses_a_stream_that_nobody_has(eeg_only: Path, tmp_path: Path) -> None:
    words = [f"data.root={eeg_only}", f"store.path={tmp_path / 'store'}", f"run.dir={tmp_path / 'run'}", *WORDS]
    with pytest.raises(DataError, match=r"stream 'fnirs_stats': no clip has it.*model\.encoders\.fnirs_stats=null"):
        api.fit(api.config("ps", overrides=[*words, "evaluate=signal"]))
