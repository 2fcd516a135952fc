"""Two processes on the CPU: every held-out row once, in both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mersuite.predictions import read_predictions

WORDS = [
    "ps.system=signal",
    "evaluate=signal",
    "cv.by=subject",
    "cv.folds=3",
    "cv.val_fraction=0.4",
    "data.window_s=8",
    "data.stride_s=4",
    "data.jitter=false",
    "trainer.max_epochs=2",
    "ps.head_dropout=0",
    "ps.target_lag_s=0",
    "model.modality_dropout=0",
    "model.encoders={eeg_bands: {name: mlp, dropout: 0, input_dropout: 0, input_norm: false}}",
    "model.fusion.dropout=0",
    "optim.lr=0.01",
    "runtime.accelerator=cpu",
    "runtime.progress=false",
]


def _fit(folder: Path, data: Path, *words: str) -> dict:
    command = [
        sys.executable,
        "-m",
        "mersuite",
        "fit",
        "track=ps",
        f"data.root={data}",
        f"store.path={folder / 'store'}",
    ]
    environment = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [*command, *WORDS, *words, "json=true"],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_two_processes_answer_the_same_rows_as_one(tmp_path: Path, fake_ps: Path) -> None:
    """The same global batches and no dropout; only the last, smaller batch of an epoch is weighted otherwise."""
    one = _fit(tmp_path, fake_ps, f"run.dir={tmp_path / 'one'}", "trainer.batch_size=4")
    two = _fit(
        tmp_path,
        fake_ps,
        f"run.dir={tmp_path / 'two'}",
        "trainer.batch_size=2",
        "runtime.devices=2",
        "runtime.strategy=ddp",
    )
    rows = [read_predictions(tmp_path / name / "oof.jsonl")[1] for name in ("one", "two")]
    assert [row.sample_id for row in rows[0]] == [row.sample_id for row in rows[1]]
    for first, second in zip(*rows, strict=True):
        assert np.shape(first.answer) == np.shape(second.answer)
        assert first.sample_id == second.sample_id
        assert np.array_equal(first.target["valence_arousal"], second.target["valence_arousal"])
    assert one["metrics"]["signal"]["num_rows"] == two["metrics"]["signal"]["num_rows"]
    kept = json.loads((tmp_path / "two" / "metrics.json").read_text())
    assert kept["signal"]["mae"] == pytest.approx(one["metrics"]["signal"]["mae"], rel=0.05)
    assert not list((tmp_path / "two").rglob("*.partial"))
