from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import yaml

from mersuite import api, registry
from mersuite.config import RunConfig, load_run_config
from mersuite.errors import ConfigError
from mersuite.run_folder import comparable
from mersuite.schema import build, plain
from mersuite.sweep import Dimension, SweepResult, _best_yaml, open_storage, read_space, trial_seed


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return api.config("ps")


def space_of(path: Path, text: str, config: RunConfig) -> dict[str, Dimension]:
    path.write_text(text, encoding="utf-8")
    return read_space(path, config)


# ---- one dimension


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"type": "floot", "low": 0, "high": 1}, r"k\.type: got 'floot'; did you mean 'float'\?"),
        ({"low": 0, "high": 1}, r"k\.type: a value is needed and none was given"),
        ({"type": "float", "low": 1}, r"k: low, high: need low <= high, got 1\.0 and None"),
        ({"type": "float", "low": 2, "high": 1}, r"k: low, high: need low <= high, got 2\.0 and 1\.0"),
        ({"type": "float", "low": 0, "high": 1, "log": True}, r"k\.log: need low above 0, got 0\.0"),
        ({"type": "float", "low": 1, "high": 2, "log": True, "step": 1}, r"k\.step: need null with log, got 1\.0"),
        ({"type": "float", "low": 1, "high": 2, "step": 0}, r"k\.step: need a step above 0, got 0\.0"),
        ({"type": "int", "low": 0.5, "high": 2}, "need whole numbers for type int"),
        ({"type": "int", "low": 0, "high": 4, "step": 0.5}, "need whole numbers for type int"),
        ({"type": "float", "low": 0, "high": 1, "choices": [1]}, r"k\.choices: only a categorical key has them"),
        ({"type": "categorical"}, r"k\.choices: a categorical key needs at least one value"),
        (
            {"type": "categorical", "choices": [[1, 2]]},
            r"k\.choices: need numbers, texts, true, false or null, got \[\[",
        ),
        ({"type": "categorical", "choices": [1], "low": 1}, r"k: low, high: a categorical key has choices only"),
        ({"type": "float", "low": 0, "hihg": 1}, r"k\.hihg: unknown key; did you mean 'high'\?"),
    ],
)
def test_range_that_does_not_fit_is_refused(values: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        build(Dimension, values, where="k")


@pytest.mark.parametrize(
    ("values", "allowed"),
    [
        ({"type": "float", "low": 0.25, "high": 0.5}, lambda value: 0.25 <= value <= 0.5),
        ({"type": "float", "low": 1e-4, "high": 1e-1, "log": True}, lambda value: 1e-4 <= value <= 1e-1),
        ({"type": "float", "low": 0, "high": 1, "step": 0.25}, lambda value: value * 4 == round(value * 4)),
        ({"type": "float", "low": 0, "high": 0}, lambda value: value == 0.0),
        ({"type": "int", "low": 2, "high": 8, "step": 3}, lambda value: value in (2, 5, 8) and type(value) is int),
        ({"type": "int", "low": 1, "high": 64, "log": True}, lambda value: 1 <= value <= 64 and type(value) is int),
        ({"type": "categorical", "choices": [None, "a", 2]}, lambda value: value in (None, "a", 2)),
    ],
)
def test_drawn_values_lie_in_the_range(values: dict, allowed):
    dimension = build(Dimension, values)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [dimension.suggest(study.ask(), "k") for _ in range(20)]
    assert all(allowed(value) for value in drawn)
    assert all(allowed(value) for value in dimension.ends())


# ---- the space


def test_shipped_space_fits_the_shipped_configuration(config: RunConfig):
    space = read_space(registry.folder("ps") / "sweep.yaml", config)
    assert "optim.lr" in space and space["optim.lr"].log


def test_space_that_is_missing_or_empty_is_refused(tmp_path: Path, config: RunConfig):
    with pytest.raises(ConfigError, match=r"sweep\.space: .*none\.yaml does not exist"):
        read_space(tmp_path / "none.yaml", config)
    with pytest.raises(ConfigError, match=r"sweep\.space: .*x\.yaml names no key to search"):
        space_of(tmp_path / "x.yaml", "", config)


def test_every_fault_of_a_space_is_listed_with_its_file(tmp_path: Path, config: RunConfig):
    text = """
optim.lrr: {type: float, low: 0.1, high: 1}
optim.lr: {type: float, low: 2, high: 1}
trainer.batch_size: {type: int, low: 0, high: 8}
model.modality_dropout: {type: float, low: 0.1, high: 1}
model.fusion.name: {type: categorical, choices: [gated, concatt]}
seed: 3
"""
    with pytest.raises(ConfigError) as caught:
        space_of(tmp_path / "x.yaml", text, config)
    shown = str(caught.value)
    assert shown.startswith(f"sweep.space: {tmp_path / 'x.yaml'}: 6 faults")
    for part in (
        "optim.lrr: unknown key; did you mean 'lr'?",
        "optim.lr: low, high: need low <= high",
        "trainer.batch_size: need 1 or more, got 0 (searched value 0)",
        "model.modality_dropout: need 0 <= rate < 1, got 1.0 (searched value 1.0)",
        "there is no fusion 'concatt'; did you mean 'concat'? (searched value 'concatt')",
        "seed: need a mapping with keys of Dimension, got 3",
    ):
        assert part in shown


def test_space_may_name_parts_options_and_null(tmp_path: Path, config: RunConfig):
    text = """
model.fusion: {type: categorical, choices: [concat, gated]}
ps.smoothing_s: {type: categorical, choices: [auto, 3]}
trainer.ema_decay: {type: categorical, choices: [null, 0.99]}
optim.name: {type: categorical, choices: [adamw, sgd]}
"""
    space = space_of(tmp_path / "x.yaml", text, config)
    assert space["trainer.ema_decay"].choices == (None, 0.99)
    assert plain(space)["ps.smoothing_s"]["choices"] == ["auto", 3]


# ---- storage


@pytest.mark.parametrize("name", ["sqlite:///{}/s.db", "{}/s.log"])
def test_storage_keeps_trials_between_processes(tmp_path: Path, name: str):
    url = name.format(tmp_path)
    study = optuna.create_study(storage=open_storage(url), study_name="s")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    again = optuna.load_study(storage=open_storage(url), study_name="s")
    assert len(again.trials) == 2


@pytest.mark.parametrize(
    "url", ["sweep.db", "", "nosuchdialect://host/db", "sqlite:////no/such/folder/s.db", "/no/such/folder/s.log"]
)
def test_storage_that_cannot_be_opened_is_refused(url: str):
    with pytest.raises(ConfigError, match=r"sweep\.storage: cannot open .*expected a URL such as sqlite:///sweep\.db"):
        open_storage(url)


def test_password_of_a_storage_is_not_shown():
    with pytest.raises(ConfigError) as caught:
        open_storage("nosuchdialect://me:secret@host/db")
    assert "secret" not in str(caught.value)
    result = SweepResult(best_config=Path("b"), storage="postgresql://me:secret@h/d", folds=[], monitor="mae")
    assert result.summary()["storage"] == "postgresql://me:***@h/d"


# ---- what comes out


def test_every_trial_draws_from_its_own_seed():
    seeds = {trial_seed(0, fold, number) for fold in range(5) for number in range(50)}
    assert len(seeds) == 250 and all(0 <= seed < 2**32 for seed in seeds)
    assert trial_seed(3, 1, 2) == trial_seed(3, 1, 2) != trial_seed(4, 1, 2)


def test_best_file_is_the_searched_system_with_the_values_of_each_fold(tmp_path: Path):
    words = ["optim.name=sgd", "model.encoders.eeg_bands=null", "model.fusion=gated", "seed=7", "cv.folds=3"]
    config = api.config("ps", overrides=[*words, "data.root=/data", "run.dir=r", "sweep.num_trials=3"])
    track = registry.load("ps")
    params = {"optim.lr": 0.5, "trainer.ema_decay": None, "model.fusion.name": "concat"}
    found = [{"fold": index, "params": params} for index in range(3)]
    best = tmp_path / "best.yaml"
    best.write_text(_best_yaml(track, config, found))
    again = load_run_config("ps", track.Config, registry.folder("ps"), files=(str(best),))
    assert dict(again.fold_overrides) == {str(index): params for index in range(3)}
    values, wanted = comparable(plain(again)), comparable(plain(config))
    values.pop("fold_overrides"), wanted.pop("fold_overrides")
    assert values == wanted
    layer = yaml.safe_load(best.read_text())
    assert "root" not in layer.get("data", {}) and layer["cv"]["folds"] == 3 and layer["seed"] == 7


def test_best_file_says_seed_and_folds_even_where_they_are_the_defaults(config: RunConfig):
    layer = yaml.safe_load(_best_yaml(registry.load("ps"), config, []))
    assert layer == {"track": "ps", "seed": 0, "cv": plain(config.cv), "fold_overrides": {}}


def test_table_has_a_row_a_fold_and_a_column_a_parameter():
    folds = [
        {"fold": 0, "complete": 2, "pruned": 1, "value": 3.5, "params": {"a": 1}},
        {"fold": 1, "complete": 3, "pruned": 0, "value": 2.5, "params": {"a": 2, "b": "x"}},
    ]
    result = SweepResult(best_config=Path("b.yaml"), storage="s", folds=folds, monitor="mae")
    columns, rows = result.table()
    assert columns == ["fold", "finished", "pruned", "best val/mae", "a", "b"]
    assert rows == [[0, 2, 1, 3.5, 1, ""], [1, 3, 0, 2.5, 2, "x"]]
    assert result.summary()["folds"] == folds and result.summary()["best_config"] == "b.yaml"
