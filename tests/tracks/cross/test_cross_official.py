"""The organisers' protocol: what it trains, that it says what it chooses by, and that together equals alone."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from transfer_files import CONFIG, FOLDERS, config_of, write_vectors

from mersuite import api, registry
from mersuite.config import RunConfig
from mersuite.errors import ConfigError
from mersuite.inference import load_checkpoint
from mersuite.sweep import plan_sweep
from mersuite.training import draw_training
from mersuite.training.draw_training import train_draws
from mersuite.training.folds import FoldRun
from mersuite.training.run import plan_run
from tracks.cross.official import OFFICIAL

AS_OWN = {"cross.other": {**CONFIG["cross.own"], "face": [FOLDERS["l"], FOLDERS["f"]]}}
ORGANISERS = {
    "num_layers": 3,
    "activation": "relu",
    "activate_output": True,
    "dropout": 0.0,
    "input_dropout": 0.0,
    "input_norm": False,
}
SPACE = {
    "hidden": {"keys": ["model.encoders.*.hidden", "model.encoders.*.width"], "choices": [8, 12]},
    "lr": {"keys": ["optim.lr"], "choices": [1e-2, 1e-3]},
}
DROPPED = {"dropout": {"keys": ["model.encoders.*.input_dropout", "model.fusion.dropout"], "low": 0.2, "high": 0.5}}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vectors(tmp_path_factory.mktemp("official") / "data", num_clips=60)


def official(root: Path, folder: Path, **overrides: Any) -> RunConfig:
    values: dict[str, Any] = {
        **AS_OWN,
        "model.encoders": {
            **dict.fromkeys(("prosody", "logmel", "text")),
            **{name: {"name": "mlp", **ORGANISERS} for name in ("face", "voice", "words")},
        },
        "model.fusion": {"name": "attention", "dropout": 0.0},
        "cross.system": "own",
        "cross.protocol": "official",
        "cross.head_dropout": 0.0,
        "optim": {"name": "adam", "weight_decay": 1e-5, "schedule": "constant", "warmup_fraction": 0.0},
        "trainer": {"max_epochs": 3, "patience": None, "batch_size": 16, "gradient_clip": None},
        "cv.folds": 3,
        "draws": {"num_draws": 3, "num_best": 2, "space": SPACE},
        "evaluate": [OFFICIAL],
        "run.dir": str(folder),
    }
    return config_of(root, **{**values, **{name.replace("__", "."): value for name, value in overrides.items()}})


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "draws.csv").open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def runs_of(config: RunConfig) -> list[FoldRun]:
    """The folds of the official evaluation, with prepared features."""
    from mersuite.prepare.ready import ready_reader

    track = registry.load("cross")
    data = track.read(config, "train")
    reader = ready_reader(config, data)
    plan = plan_run(track, config, list(data.samples))
    return [
        FoldRun(
            track=track,
            config=config,
            evaluation=OFFICIAL,
            samples={item.sample_id: item for item in data.samples},
            reader=reader,
            fold=fold,
            folder=Path(str(config.run.dir)) / f"fold_{fold.index}",
        )
        for fold in plan.folds[OFFICIAL]
    ]


def states_of(folder: Path) -> Iterator[dict[str, torch.Tensor]]:
    for fold in range(3):
        network = load_checkpoint(folder / f"fold_{fold}" / "best.ckpt").network
        yield {} if network is None else network.state_dict()


def assert_same_run(one: Path, other: Path, tolerance: float) -> None:
    for first, second in zip(states_of(one), states_of(other), strict=True):
        assert first and first.keys() == second.keys()
        assert max(float((first[name] - second[name]).abs().max()) for name in first) < tolerance
    pairs = list(zip(rows_of(one), rows_of(other), strict=True))
    assert all(a["best_epoch"] == b["best_epoch"] for a, b in pairs)
    assert np.allclose([float(a["waf"]) for a, _ in pairs], [float(b["waf"]) for _, b in pairs], atol=1e-9)


def test_the_run_says_wherever_it_shows_scores_that_it_chose_by_them(root, tmp_path):
    result = api.fit(official(root, tmp_path / "run", evaluate=[OFFICIAL, "majority"]))
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics[OFFICIAL]["selects_on_reported"] is True
    assert "selects_on_reported" not in metrics["majority"]
    assert "on the very rows that are reported" in metrics[OFFICIAL]["protocol"]
    cells = [row[0] for row in result.table()[1]]
    assert cells == ["official (selects on these rows)", "majority"]
    assert any(line.startswith("official: waf ") and "2 best of 3 draws" in line for line in result.lines())
    header = json.loads((tmp_path / "run" / "oof.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert "selects_on_reported" in json.dumps(header)


def test_mean_and_deviation_are_those_of_the_best_draws(root, tmp_path):
    api.fit(official(root, tmp_path / "run"))
    told = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))[OFFICIAL]
    finished = [
        json.loads(path.read_text(encoding="utf-8")) for path in (tmp_path / "run" / "draws").glob("*/finished.json")
    ]
    wafs = sorted((item["metrics"]["waf"] for item in finished), reverse=True)
    assert told["draws"]["num_draws"] == 3 and told["draws"]["num_best"] == 2
    assert told["draws"]["mean"]["waf"] == pytest.approx(np.mean(wafs[:2]))
    assert told["draws"]["deviation"]["waf"] == pytest.approx(np.std(wafs[:2], ddof=1))
    assert told["waf"] == pytest.approx(wafs[0])  # the table has the best draw, scored from its checkpoints
    assert len(rows_of(tmp_path / "run")) == 9
    assert not list((tmp_path / "run" / "draws").glob("*/fold_*")), "only the best draw's checkpoints stay"


def test_folds_train_on_all_that_is_not_held_out(root, tmp_path):
    runs = runs_of(official(root, tmp_path / "run"))
    for run in runs:
        assert run.fold.val == run.fold.held_out
        assert not set(run.fold.train) & set(run.fold.held_out)
        assert set(run.fold.train) | set(run.fold.held_out) == set(run.samples)


def test_draws_trained_together_equal_draws_trained_one_after_the_other(root, tmp_path, monkeypatch):
    train_draws(runs_of(official(root, tmp_path / "together")), tmp_path / "together")
    monkeypatch.setattr(draw_training, "why_not_stacked", lambda network: "the test wants it")
    train_draws(runs_of(official(root, tmp_path / "alone")), tmp_path / "alone")
    assert_same_run(tmp_path / "together", tmp_path / "alone", 1e-5)


@pytest.mark.parametrize("max_models", [1, 100])
def test_a_killed_run_resumes_to_equal_numbers_without_doing_finished_chunks_again(
    root, tmp_path, monkeypatch, max_models
):
    space = {"draws": {"num_draws": 4, "num_best": 2, "space": {**SPACE, **DROPPED}}}
    api.fit(official(root, tmp_path / "whole", **space))
    real, chunks = draw_training.train_together, []

    def killed(members, *arguments, **options):
        chunks.append(len(members))
        if len(chunks) == 2:
            raise KeyboardInterrupt
        return real(members, *arguments, **options)

    monkeypatch.setattr(draw_training, "train_together", killed)
    begun = official(root, tmp_path / "killed", **space, runtime__max_models=1)
    with pytest.raises(KeyboardInterrupt):
        api.fit(begun)
    done = len(list((tmp_path / "killed" / "draws").glob("*/finished.json")))
    assert done == 1 and chunks[0] == 3, "one draw's folds are the least that is trained together"
    resumed = replace(begun, run=replace(begun.run, resume=True), runtime=replace(begun.runtime, max_models=max_models))
    api.fit(resumed)
    assert sum(chunks[2:]) == 9, "the finished draw is not trained again"
    assert_same_run(tmp_path / "whole", tmp_path / "killed", 1e-5)
    chunks.clear()
    api.fit(resumed)
    assert chunks == []


def test_missing_streams_are_masked_when_draws_are_trained_together(root, tmp_path, monkeypatch):
    other = tmp_path / "data"
    write_vectors(other, num_clips=60, seed=1)
    for path in sorted((other / "features").glob("made-up-audio-UTT/*.npy"))[::3]:
        path.unlink()
    train_draws(runs_of(official(other, tmp_path / "together")), tmp_path / "together")
    monkeypatch.setattr(draw_training, "why_not_stacked", lambda network: "the test wants it")
    train_draws(runs_of(official(other, tmp_path / "alone")), tmp_path / "alone")
    assert_same_run(tmp_path / "together", tmp_path / "alone", 1e-5)


def test_other_fusions_run_the_same_protocol_one_draw_after_the_other(root, tmp_path, caplog):
    space = {"rank": {"keys": ["model.fusion.rank"], "choices": [3, 4]}}
    config = official(
        root,
        tmp_path / "run",
        model__fusion={"name": "lmf"},
        draws={"num_draws": 2, "num_best": 2, "space": space},
        trainer__max_epochs=1,
    )
    api.fit(config)
    assert "its fusion is no attention but LmfFusion" in caplog.text
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics[OFFICIAL]["draws"]["num_draws"] == 2
    assert {row["rank"] for row in rows_of(tmp_path / "run")} <= {"3", "4"}


def test_candidates_are_answered_with_the_mean_of_the_folds(root, tmp_path):
    api.fit(official(root, tmp_path / "run"))
    places = [f"data.root={root}", f"store.path={root.parent / 'store'}", "runtime.progress=false"]
    out = tmp_path / "cross.jsonl"
    told = api.predict(tmp_path / "run", out=out, overrides=places)
    assert told["num_models"] == 3 and told["traits"]["selects_on_reported"] is True
    assert api.score("cross", pred=out, target=root / "track1_test.csv", options={})["num_rows"] == told["num_samples"]


def test_our_protocol_stands_beside_theirs(root):
    config = official(root, Path("unused"), evaluate=[])
    offered = registry.load("cross").evaluations(config)
    assert offered[0].name == OFFICIAL and offered[0].selects_on_reported
    ours = next(item for item in offered if item.name == "own")
    assert not ours.selects_on_reported and ours.overrides["cross.protocol"] == "held_out"
    plain = official(root, Path("unused"), cross__protocol="held_out", evaluate=[])
    assert OFFICIAL not in [item.name for item in registry.load("cross").evaluations(plain)]


def test_a_search_does_not_go_by_rows_that_are_reported(root, tmp_path):
    config = official(root, tmp_path / "sweep", evaluate=[])
    evaluation, _, folds = plan_sweep(registry.load("cross"), config, registry.load("cross").read(config, "train"))
    assert evaluation.name == "own" and evaluation.overrides["cross.protocol"] == "held_out"
    assert all(fold.val and not set(fold.val) & set(fold.held_out) for fold in folds)


def test_memory_of_the_device_that_does_not_suffice_names_the_option(root, tmp_path, monkeypatch):
    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(draw_training, "train_together", full)
    with pytest.raises(ConfigError, match=r"runtime\.max_models: \d+ networks at once do not fit .* lower it to \d+"):
        api.fit(official(root, tmp_path / "run"))


def test_more_than_one_process_is_refused_before_any_work(root, tmp_path):
    with pytest.raises(ConfigError, match="draws of hyper-parameters are trained in one process, got 2 x 1"):
        api.fit(official(root, tmp_path / "run", runtime__devices=2))
    assert not (tmp_path / "run").exists()


def test_the_recipe_is_the_organisers_protocol():
    config = api.config("cross", files=["recipe/cross_official.yaml"])
    assert (config.cv.folds, config.trainer.max_epochs, config.trainer.batch_size) == (5, 100, 32)
    assert (config.optim.name, config.optim.weight_decay, config.trainer.patience) == ("adam", 1e-5, None)
    assert set(config.draws.space) == {"hidden", "dropout", "lr"}
    options = config.options
    assert dict(options.own) == dict(options.other) and options.system == "own"
