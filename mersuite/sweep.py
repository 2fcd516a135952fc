"""Hyper-parameter search with Optuna: one study for each outer fold, on its training and validation rows only.

Why a study a fold: the validation rows of one fold are held-out rows of another. A configuration chosen by the mean
over all folds has therefore seen every held-out row. Each fold's own study has not, and costs as many trainings.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import yaml

from mersuite import registry
from mersuite.config import (
    RunConfig,
    changes,
    load_run_config,
    part_places_of,
    read_yaml,
    to_plain,
    with_overrides,
)
from mersuite.errors import ConfigError
from mersuite.inference import Checkpoint, answer_with
from mersuite.prepare import FeatureReader
from mersuite.provenance import without_password
from mersuite.run_folder import comparable, write_text
from mersuite.schema import Faults, build_dataclass, plain, require, require_all
from mersuite.track import Track, TrackData
from mersuite.training.folds import FoldRun, train_fold
from mersuite.training.run import plan_folds

if TYPE_CHECKING:
    import optuna


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One searched key.

    Attributes:
        type: float, int or categorical.
        low: Lowest value, for numbers.
        high: Highest value, for numbers.
        log: Search on a logarithmic scale.
        step: Step between values; null for none.
        choices: Values, for categorical.
    """

    type: Literal["float", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if self.type == "categorical":
            odd = [item for item in self.choices if not isinstance(item, (bool, int, float, str, type(None)))]
            require_all(
                (len(self.choices) > 0, "choices: a categorical key needs at least one value"),
                (not odd, f"choices: need numbers, texts, true, false or null, got {odd[:1]}"),
                (self.low is None and self.high is None, "low, high: a categorical key has choices only"),
            )
            return
        ordered = self.low is not None and self.high is not None and self.low <= self.high
        require_all(
            (ordered, f"low, high: need low <= high, got {self.low} and {self.high}"),
            (not self.choices, f"choices: only a categorical key has them, got type {self.type}"),
            (not self.log or (self.low or 0.0) > 0, f"log: need low above 0, got {self.low}"),
            (not self.log or self.step is None, f"step: need null with log, got {self.step}"),
            (self.step is None or self.step > 0, f"step: need a step above 0, got {self.step}"),
        )
        values = (self.low, self.high, self.step)
        whole = all(item is None or float(item).is_integer() for item in values)
        require(self.type == "float" or whole, f"low, high, step: need whole numbers for type int, got {values}")

    def ends(self) -> tuple[Any, ...]:
        """Gives the values that show whether the whole range fits: every choice, or both ends."""
        if self.type == "categorical":
            return self.choices
        ends = (self.low or 0.0, self.high or 0.0)
        return tuple(map(int, ends)) if self.type == "int" else ends

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """Draws a value for a trial."""
        if self.type == "categorical":
            return trial.suggest_categorical(key, list(self.choices))
        low, high = float(self.low or 0.0), float(self.high or 0.0)
        if self.type == "int":
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(key, int(low), int(high), log=self.log, step=step)
        return trial.suggest_float(key, low, high, log=self.log, step=self.step)


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What a sweep found.

    Attributes:
        best_config: File that `fit config=` takes.
        storage: Where the trials are kept.
        folds: One entry a fold: study, number of trials by state, best value and parameters.
        monitor: The validation metric that was searched by.
    """

    best_config: Path
    storage: str
    folds: Sequence[Mapping[str, Any]]
    monitor: str

    def summary(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "best_config": str(self.best_config),
            "storage": without_password(self.storage),
            "monitor": f"val/{self.monitor}",
            "folds": [dict(item) for item in self.folds],
        }

    def table(self) -> tuple[list[str], list[list[object]]]:
        """Columns and rows: one fold a row."""
        keys = list(dict.fromkeys(key for item in self.folds for key in item["params"]))
        columns = ["fold", "finished", "pruned", f"best val/{self.monitor}", *keys]
        rows: list[list[object]] = [
            [
                item["fold"],
                item["complete"],
                item["pruned"],
                item["value"],
                *[item["params"].get(key, "") for key in keys],
            ]
            for item in self.folds
        ]
        return columns, rows


def read_space(path: Path, config: RunConfig) -> dict[str, Dimension]:
    """Reads a search space: dotted configuration key to its range.

    Raises:
        ConfigError: If the file is missing or empty, or with every range and key that does not fit the configuration.
    """
    if not path.is_file():
        raise ConfigError(f"sweep.space: {path} does not exist")
    values = read_yaml(path)
    if not values:
        raise ConfigError(f"sweep.space: {path} names no key to search")
    faults = Faults()
    space: dict[str, Dimension] = {}
    for key, item in values.items():
        dimension = build_dataclass(Dimension, item, key, faults)
        if dimension is not None:
            space[key] = dimension
            _try_ends(config, key, dimension, faults)
    try:
        faults.raise_if_any()
    except ConfigError as error:
        raise ConfigError(f"sweep.space: {path}: {error}") from error
    return space


def _try_ends(config: RunConfig, key: str, dimension: Dimension, faults: Faults) -> None:
    for value in dimension.ends():
        try:
            with_overrides(config, {key: value})
        except ConfigError as error:
            faults.add("", f"{error} (searched value {value!r})")
            return


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Opens an Optuna storage by URL, or a journal file whose name ends in .log.

    Trials of a worker that died are noticed by their missing heartbeat and given back, but not in a journal file.

    Raises:
        ConfigError: If it cannot be opened.
    """
    import optuna
    from optuna.storages import journal

    try:
        if url.endswith(".log"):
            return optuna.storages.JournalStorage(journal.JournalFileBackend(url))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # heartbeats are marked as experimental, their callback is renamed in 4.9
            return optuna.storages.RDBStorage(
                url,
                heartbeat_interval=30,
                failed_trial_callback=optuna.storages.RetryFailedTrialCallback(max_retry=2),
                engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
            )
    except Exception as error:
        raise ConfigError(
            f"sweep.storage: cannot open {without_password(url)!r} ({' '.join(str(error).split())[:200]}); "
            "expected a URL such as sqlite:///sweep.db or a file name that ends in .log"
        ) from error


def run_sweep(track: Track, config: RunConfig, data: TrackData, reader: FeatureReader) -> SweepResult:
    """Searches each outer fold until its study has sweep.num_trials finished trials, all workers counted.

    Raises:
        ConfigError: If the space or the storage does not fit, or no trial finished.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = read_space(config.sweep.space or registry.folder(track.name) / "sweep.yaml", config)
    folder = config.run.dir or Path("runs") / f"sweep_{track.name}"
    folder.mkdir(parents=True, exist_ok=True)
    url = config.sweep.storage or f"sqlite:///{folder / 'sweep.db'}"
    storage = open_storage(url)
    evaluation = track.evaluations(config)[0]
    system = with_overrides(config, evaluation.overrides)
    samples = {sample.sample_id: sample for sample in data.samples if sample.target}
    found = []
    for fold in plan_folds(config, evaluation, list(samples.values())):
        run = FoldRun(
            track=track,
            config=system,
            evaluation=evaluation.name,
            samples=samples,
            reader=reader,
            fold=fold,
            folder=folder,
        )
        found.append(_search_fold(run, space, storage, config.sweep.study or f"{track.name}-{evaluation.name}"))
    best = folder / "best.yaml"
    write_text(best, _best_yaml(track, config, found))
    return SweepResult(best_config=best, storage=url, folds=found, monitor=track.monitor)


def _search_fold(
    run: FoldRun, space: Mapping[str, Dimension], storage: optuna.storages.BaseStorage, name: str
) -> dict[str, Any]:
    import optuna
    from optuna.trial import TrialState

    sweep = run.config.sweep
    study = optuna.create_study(
        study_name=f"{name}-fold{run.fold.index}",
        storage=storage,
        load_if_exists=True,
        direction="minimize" if run.track.monitor_mode == "min" else "maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
        if sweep.prune
        else optuna.pruners.NopPruner(),
    )
    identity = _identity(run, space)
    if study.user_attrs.get("identity", identity) != identity:
        raise ConfigError(
            f"sweep.storage: study {study.study_name!r} searched other data, folds, ranges or another configuration; "
            "name another with sweep.study=NAME"
        )
    study.set_user_attr("identity", identity)

    def objective(trial: optuna.Trial) -> float:
        seed = trial_seed(run.config.seed, run.fold.index, trial.number)
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return _run_trial(trial, run, space)

    done = (TrialState.COMPLETE, TrialState.PRUNED)
    if len(study.get_trials(deepcopy=False, states=done)) < sweep.num_trials:
        study.optimize(
            objective,
            timeout=sweep.timeout_s,
            callbacks=[optuna.study.MaxTrialsCallback(sweep.num_trials, states=done)],
            catch=(),
        )
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        raise ConfigError(
            f"sweep: no trial of study {study.study_name!r} finished; raise sweep.num_trials or timeout_s"
        )
    return {
        "fold": run.fold.index,
        "study": study.study_name,
        "complete": len(complete),
        "pruned": len(study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))),
        "value": study.best_value,
        "params": dict(study.best_params),
    }


def _identity(run: FoldRun, space: Mapping[str, Dimension]) -> str:
    """Fingerprint of what all trials of one study must share."""
    import hashlib

    content = {
        "rows": [run.fold.train, run.fold.val, run.fold.held_out],
        "space": plain(space),
        "config": comparable(to_plain(run.config)),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def trial_seed(seed: int, fold: int, number: int) -> int:
    """Gives the sampler's seed for one trial.

    Why by trial: with one seed a study, every worker and every resumed search would draw the same first values again.
    """
    return int(np.random.SeedSequence([seed, fold, number]).generate_state(1)[0])


def _run_trial(trial: optuna.Trial, run: FoldRun, space: Mapping[str, Dimension]) -> float:
    import optuna

    overrides = {key: item.suggest(trial, key) for key, item in space.items()}
    folder = run.folder / f"fold_{run.fold.index}" / f"trial_{trial.number}"

    def report(epoch: int, value: float) -> None:
        trial.report(value, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned

    if folder.exists():
        shutil.rmtree(folder)
    try:
        config = with_overrides(run.config, overrides)
        checkpoint = train_fold(replace(run, config=config, folder=folder, report=report))
        return _val_score(replace(run, config=config), checkpoint)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _val_score(run: FoldRun, checkpoint: Checkpoint) -> float:
    val = run.rows(run.fold.val)
    predictions = answer_with(checkpoint, val, run.reader)
    metrics = run.track.metrics([item.answer for item in predictions], [run.track.answer_of(item) for item in val])
    return float(metrics[run.track.monitor])


def _best_yaml(track: Track, config: RunConfig, found: Sequence[Mapping[str, Any]]) -> str:
    """Gives the searched system and its best values as a layer over the track's defaults."""
    head = (
        "# Written by `mersuite sweep`: use with `mersuite fit track=... config=THIS`. Each outer fold has the values\n"
        "# that its own validation rows chose; evaluations with other folds keep the values of the configuration.\n"
        "# Seed and folds belong to them: rows that chose a value must not be held out.\n"
    )
    default = load_run_config(track.name, track.Config, registry.folder(track.name))
    values = comparable(to_plain(config))
    layer = changes(comparable(to_plain(default)), values, part_places_of(track.Config, track.name))
    overrides = {str(item["fold"]): dict(item["params"]) for item in found}
    layer = {"track": track.name, **layer, "seed": config.seed, "cv": values["cv"], "fold_overrides": overrides}
    return head + yaml.safe_dump(layer, sort_keys=False, allow_unicode=True)
