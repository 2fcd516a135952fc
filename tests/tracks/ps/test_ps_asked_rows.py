"""A list of rows with gaps, in an order of its own, comes out of predict and export as it went in."""

from __future__ import annotations

import shutil
from pathlib import Path

from mersuite import api

WORDS = ("data.window_s=6", "data.stride_s=3", "runtime.progress=false", "runtime.accelerator=cpu", "cv.folds=3")


def test_exported_ids_are_those_of_sample_ids(fake_ps: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(fake_ps, data)
    header, *ids = (data / "sample_ids.csv").read_text().split()
    asked = [name for name in reversed(ids) if not name.endswith("_T001")]
    (data / "sample_ids.csv").write_text("\n".join([header, *asked]) + "\n")
    (data / "targets.csv").unlink(missing_ok=True)
    words = [f"data.root={data}", f"run.dir={tmp_path / 'run'}", "ps.system=median", "evaluate=median", *WORDS]
    api.fit(api.config("ps", overrides=words))
    api.predict(tmp_path / "run", out=tmp_path / "pred.jsonl")
    api.export("ps", pred=tmp_path / "pred.jsonl", out=tmp_path / "predictions.csv")
    lines = (tmp_path / "predictions.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in lines[1:]] == asked
