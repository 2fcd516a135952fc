from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mersuite import api
from mersuite.config import RunConfig, read_yaml
from mersuite.errors import ConfigError
from mersuite.run_folder import (
    RunWriter,
    collect_curves,
    comparable,
    differences,
    is_first_process,
    open_run,
    read_curve,
    read_run_json,
    started_run,
    write_json,
    write_run_json,
    write_text,
)


def config_of(folder: Path | None, *words: str) -> RunConfig:
    return api.config("ps", overrides=[*words, f"run.dir={folder}"] if folder else words)


# ---- processes and files


@pytest.mark.parametrize(
    ("environment", "is_first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "1"}, True),
        ({"RANK": "2"}, False),
        ({"SLURM_PROCID": "0"}, True),
        ({"SLURM_PROCID": "3"}, False),
        ({"RANK": "0", "SLURM_PROCID": "3"}, True),
        ({"LOCAL_RANK": "1"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0"}, True),
        ({"LOCAL_RANK": "0", "NODE_RANK": "1"}, False),
    ],
)
def test_first_process_is_the_one_of_rank_0(monkeypatch: pytest.MonkeyPatch, environment: dict, is_first: bool):
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is is_first


def test_file_is_written_whole_and_by_the_first_process_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "new" / "x.json"
    write_json(path, {"a": [1, "ü"]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": [1, "ü"]}
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    monkeypatch.setenv("RANK", "1")
    write_text(path, "other")
    assert json.loads(path.read_text()) == {"a": [1, "ü"]}
    assert [item.name for item in path.parent.iterdir()] == ["x.json"]


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "x.txt"
    write_text(path, "old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError("disk")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk"):
        write_text(path, "new")
    assert path.read_text() == "old"


# ---- opening


def test_new_run_keeps_its_configuration(tmp_path: Path):
    config = config_of(tmp_path / "run", "optim.lr=0.5")
    run = open_run(config)
    assert run.path == tmp_path / "run"
    assert read_yaml(run.path / "config.yaml")["optim"]["lr"] == 0.5


def test_kept_configuration_hides_the_password_of_a_storage(tmp_path: Path):
    for words in ([], ["run.resume=true"]):
        open_run(config_of(tmp_path / "run", "sweep.storage=postgresql://me:secret@host/db", *words))
        kept = read_yaml(tmp_path / "run" / "config.yaml")
        assert kept["sweep"]["storage"] == "postgresql://me:***@host/db"


def test_run_without_a_folder_is_refused():
    with pytest.raises(ConfigError, match=r"run\.dir: no folder for the run given; add run\.dir=DIR"):
        open_run(config_of(None))


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ConfigError, match=r"run\.dir: .*run is a file; choose another folder"):
        open_run(config_of(tmp_path / "run"))


def test_folder_with_something_else_in_it_is_refused(tmp_path: Path):
    (tmp_path / "holiday.jpg").write_text("")
    with pytest.raises(ConfigError, match=r"run\.dir: .* is not empty and holds no run; choose another folder"):
        open_run(config_of(tmp_path))


def test_run_killed_at_its_first_file_can_be_started_again(tmp_path: Path):
    (tmp_path / ".config.yaml.partial").write_text("tra")
    open_run(config_of(tmp_path))
    assert read_yaml(tmp_path / "config.yaml")["track"] == "ps"


def test_folder_of_a_run_is_refused_without_resume(tmp_path: Path):
    open_run(config_of(tmp_path / "run"))
    with pytest.raises(ConfigError, match=r"already holds a run; go on with it by run\.resume=true or choose another"):
        open_run(config_of(tmp_path / "run"))


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["runtime.num_workers=2", "store.path=elsewhere", "sweep.num_trials=3", "evaluate=signal"],
        ["data.root=elsewhere"],
    ],
)
def test_resume_goes_on_where_nothing_that_decides_numbers_has_changed(tmp_path: Path, words: list[str]):
    open_run(config_of(tmp_path / "run", "trainer.ema_decay=0.9", "optim.lr=1e-5", "cv.by=subject,clip"))
    same = ["trainer.ema_decay=0.9", "optim.lr=1e-5", "cv.by=subject,clip"]
    assert open_run(config_of(tmp_path / "run", *same, "run.resume=true", *words)).path == tmp_path / "run"


def test_resume_with_another_configuration_names_what_differs(tmp_path: Path):
    open_run(config_of(tmp_path / "run"))
    with pytest.raises(ConfigError) as caught:
        open_run(config_of(tmp_path / "run", "run.resume=true", "optim.lr=0.5", "model.fusion=gated", "seed=3"))
    text = str(caught.value)
    assert "was made with another configuration; choose another folder:" in text
    assert all(
        part in text for part in ("optim.lr: 0.001 before, 0.5 now", "seed: 0 before, 3 now", "model.fusion.name")
    )


def test_other_processes_refuse_nothing_and_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    open_run(config_of(tmp_path / "run"))
    monkeypatch.setenv("LOCAL_RANK", "1")
    before = (tmp_path / "run" / "config.yaml").read_text()
    open_run(config_of(tmp_path / "run", "seed=3"))
    assert (tmp_path / "run" / "config.yaml").read_text() == before


def test_differences_are_dotted_and_sorted():
    old = {"b": {"x": 1, "y": [1]}, "a": 1, "gone": 2, "same": {}}
    new = {"b": {"x": 1, "y": [2]}, "a": {"z": 1}, "new": None, "same": {}}
    assert differences(old, new) == [
        "a: 1 before, {'z': 1} now",
        "b.y: [1] before, [2] now",
        "gone: 2 before, None now",
    ]
    assert differences(old, old) == []


def test_comparable_leaves_out_places_and_workers():
    values = {"seed": 1, "run": 1, "runtime": 1, "store": 1, "sweep": 1, "evaluate": 1}
    data = {"root": "a", "manifest": "b", "window_s": 10}
    assert comparable({**values, "data": data}) == {"seed": 1, "data": {"window_s": 10}}


# ---- run.json and curves


def test_run_json_holds_folds_versions_and_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["/x/mersuite", "fit", "sweep.storage=postgresql://me:secret@host/db"])
    run = open_run(config_of(tmp_path / "run"))
    write_run_json(run, config_of(tmp_path / "run"), {"fused": {"main": True, "folds": []}})
    found = read_run_json(run.path)
    assert found["track"] == "ps" and found["evaluations"] == {"fused": {"main": True, "folds": []}}
    assert {"python", "mersuite", "torch", "numpy"} <= set(found["versions"])
    assert found["command"] == ["mersuite", "fit", "sweep.storage=postgresql://me:***@host/db"]
    assert "secret" not in (run.path / "run.json").read_text()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"is no run folder with a finished fold \(there is no run\.json\); make one with `mersuite fit`"),
        ("{", r"run\.json is damaged .*; go on with run\.resume=true to write it anew|run\.json is damaged"),
        ("[]", r"run\.json is not what `mersuite fit` writes; expected a mapping with evaluations"),
        ('{"evaluations": 3}', r"run\.json is not what `mersuite fit` writes"),
    ],
)
def test_folder_without_a_readable_run_is_refused(tmp_path: Path, content: str | None, message: str):
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_run_json(tmp_path)


def test_folders_of_evaluations_and_folds(tmp_path: Path):
    run = RunWriter(path=tmp_path)
    assert run.fold_folder("fused", 2, is_main=True) == tmp_path / "fold_2"
    assert run.fold_folder("signal", 2, is_main=False) == tmp_path / "signal" / "fold_2"
    assert run.relative(tmp_path / "signal" / "fold_2" / "best.ckpt") == "signal/fold_2/best.ckpt"


def test_curves_of_all_folds_are_joined(tmp_path: Path):
    run = RunWriter(path=tmp_path)
    evaluations = {"fused": {"folds": []}, "constant": {"folds": [{"index": 0, "checkpoint": "constant/f/best.ckpt"}]}}
    for index in (0, 1):
        folder = tmp_path / f"fold_{index}"
        folder.mkdir()
        (folder / "curve.csv").write_text(f"epoch,step,metric,value\n0,3,val/mae,{index}.5\n")
        evaluations["fused"]["folds"].append({"index": index, "checkpoint": f"fold_{index}/best.ckpt"})
    collect_curves(run, evaluations)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    head = "evaluation,fold,epoch,step,metric,value"
    assert lines == [head, "fused,0,0,3,val/mae,0.5", "fused,1,0,3,val/mae,1.5"]
    assert read_curve(tmp_path / "none.csv") == []


def test_run_can_be_moved_to_another_folder(tmp_path: Path):
    config = config_of(tmp_path / "run")
    open_run(config)
    (tmp_path / "run").rename(tmp_path / "moved")
    moved = replace(config, run=replace(config.run, dir=tmp_path / "moved", resume=True))
    assert open_run(moved).path == tmp_path / "moved"


# ---- a run that ends at once


def test_mistake_before_any_work_gives_the_folder_back(tmp_path: Path):
    with pytest.raises(ConfigError, match="a mistake"), started_run(config_of(tmp_path / "run")):
        raise ConfigError("a mistake")
    assert not (tmp_path / "run").exists()


def test_mistake_after_some_work_or_in_a_resumed_run_takes_nothing_away(tmp_path: Path):
    with pytest.raises(ConfigError), started_run(config_of(tmp_path / "run")) as run:
        (run.path / "fold_0").mkdir()
        raise ConfigError("a mistake")
    assert (tmp_path / "run" / "config.yaml").exists()
    open_run(config_of(tmp_path / "other"))
    with pytest.raises(ConfigError), started_run(config_of(tmp_path / "other", "run.resume=true")):
        raise ConfigError("a mistake")
    assert (tmp_path / "other" / "config.yaml").exists()


def test_crash_keeps_the_folder_so_that_the_run_can_go_on(tmp_path: Path):
    with pytest.raises(RuntimeError), started_run(config_of(tmp_path / "run")):
        raise RuntimeError
    assert (tmp_path / "run" / "config.yaml").exists()
