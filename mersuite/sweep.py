"""Hyper-parameter search with Optuna: one study for each outer fold, on its training and validation rows only.

Why a study a fold: the validation rows of one fold are held-out rows of another. A configuration chosen by the mean over
all folds has therefore seen every held-out row. Each fold's own study has not, and costs the same number of trainings.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mersuite import registry
from mersuite.config import RunConfig, read_yaml, with_overrides
from mersuite.errors import ConfigError
from mersuite.inference import Checkpoint, answer_with
from mersuite.prepare import FeatureReader
from mersuite.run_folder import write_text
from mersuite.schema import build, require
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

    type: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        require(self.type in ("float", "int", "categorical"), f"type: need float, int or categorical, got {self.type!r}")
        if self.type == "categorical":
            require(len(self.choices) > 0, "choices: a categorical key needs at least one value")
        else:
            ordered = self.low is not None and self.high is not None and self.low <= self.high
            require(ordered, f"low, high: need low <= high, got {self.low} and {self.high}")

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
            "storage": self.storage,
            "monitor": f"val/{self.monitor}",
            "folds": [dict(item) for item in self.folds],
        }

    def table(self) -> tuple[list[str], list[list[object]]]:
        """Columns and rows: one fold a row."""
        keys = list(dict.fromkeys(key for item in self.folds for key in item["params"]))
        columns = ["fold", "finished", "pruned", f"best val/{self.monitor}", *keys]
        rows: list[list[object]] = [
            [item["fold"], item["complete"], item["pruned"], item["value"], *[item["params"].get(key, "") for key in keys]]
            for item in self.folds
        ]
        return columns, rows


def read_space(path: Path, config: RunConfig) -> dict[str, Dimension]:
    """Reads a search space: dotted configuration key to its range.

    Raises:
        ConfigError: If the file or a key does not fit the configuration.
    """
    if not path.is_file():
        raise ConfigError(f"sweep.space: {path} does not exist")
    space = {key: build(Dimension, item, where=key) for key, item in read_yaml(path).items()}
    if not space:
        raise ConfigError(f"sweep.space: {path} names no key to search")
    for key, item in space.items():
        first = item.choices[0] if item.choices else item.low
        with_overrides(config, {key: int(first) if item.type == "int" else first})
    return space


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Opens an Optuna storage by URL, or a journal file whose name ends in .log.

    Trials of a worker that died are noticed by their missing heartbeat and given back.
    """
    import optuna

    if url.endswith(".log"):
        backend = optuna.storages.journal.JournalFileBackend(url)
        return optuna.storages.JournalStorage(backend)
    try:
        return optuna.storages.RDBStorage(
            url,
            heartbeat_interval=30,
            failed_trial_callback=optuna.storages.RetryFailedTrialCallback(max_retry=2),
            engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
        )
    except Exception as error:
        raise ConfigError(
            f"sweep.storage: cannot open {url!r} ({' '.join(str(error).split())[:200]}); "
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
    write_text(best, _best_yaml(track, found))
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
        sampler=optuna.samplers.TPESampler(seed=run.config.seed + run.fold.index, constant_liar=True),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
        if sweep.prune
        else optuna.pruners.NopPruner(),
    )
    fingerprint = _fold_identity(run)
    if study.user_attrs.setdefault("data", fingerprint) != fingerprint:
        raise ConfigError(
            f"sweep.storage: study {study.study_name!r} searched other data or folds; name another with sweep.study=NAME"
        )
    study.set_user_attr("data", fingerprint)
    done = (TrialState.COMPLETE, TrialState.PRUNED)
    if len(study.get_trials(deepcopy=False, states=done)) < sweep.num_trials:
        study.optimize(
            lambda trial: _run_trial(trial, run, space),
            timeout=sweep.timeout_s,
            callbacks=[optuna.study.MaxTrialsCallback(sweep.num_trials, states=done)],
            catch=(),
        )
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        raise ConfigError(f"sweep: no trial of study {study.study_name!r} finished; raise sweep.num_trials or timeout_s")
    return {
        "fold": run.fold.index,
        "study": study.study_name,
        "complete": len(complete),
        "pruned": len(study.get_trials(deepcopy=False, states=(TrialState.PRUNED,))),
        "value": study.best_value,
        "params": dict(study.best_params),
    }


def _fold_identity(run: FoldRun) -> str:
    import hashlib

    text = "\n".join([*run.fold.train, "|", *run.fold.val, "|", *run.fold.held_out])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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


def _best_yaml(track: Track, found: Sequence[Mapping[str, Any]]) -> str:
    head = (
        "# Written by `mersuite sweep`: use with `mersuite fit track=... config=THIS`. Each outer fold has the values that\n"
        "# its own validation rows chose; evaluations with other folds keep the values of the configuration.\n"
    )
    overrides = {str(item["fold"]): dict(item["params"]) for item in found}
    return head + yaml.safe_dump({"track": track.name, "fold_overrides": overrides}, sort_keys=False)
