"""Hyper-parameter search with Optuna: one study for each outer fold, on its training and validation rows only.

Why a study a fold: the validation rows of one fold are held-out rows of another. A configuration chosen by the mean
over all folds has therefore seen every held-out row. Each fold's own study has not, and costs as many trainings.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from mersuite import registry
from mersuite.config import RunConfig, changes, load_run_config, part_places_of, to_plain, with_overrides
from mersuite.data.splits import Fold
from mersuite.errors import ConfigError
from mersuite.inference import Checkpoint, answer_with
from mersuite.prepare import FeatureReader
from mersuite.provenance import without_password
from mersuite.run_folder import comparable, write_text
from mersuite.schema import plain
from mersuite.search_space import Dimension, read_space
from mersuite.track import Evaluation, Track, TrackData
from mersuite.training.folds import FoldRun, train_fold
from mersuite.training.progress import RunProgress
from mersuite.training.run import plan_folds

if TYPE_CHECKING:
    import optuna

HEARTBEAT_S = 30
"""Seconds between a worker's signs of life; after two without one its trial is given back."""
POLL_S = 2.0
OPEN_ATTEMPTS = 6
BEGUN = "begun"


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


def open_storage(url: str) -> optuna.storages.BaseStorage:
    """Opens an Optuna storage by URL, or a journal file whose name ends in .log.

    Trials of a worker that died are noticed by their missing heartbeat and given back, but not in a journal file.

    Raises:
        ConfigError: If it cannot be opened.
    """
    attempt = 0
    while True:
        attempt += 1
        try:
            return _open(url)
        except Exception as error:
            # Why again: of several workers that start at once, one makes the tables and the others trip over them.
            if attempt < OPEN_ATTEMPTS and re.search("already exists|UNIQUE|duplicate|locked", str(error)):
                time.sleep(0.2 * attempt)
                continue
            raise ConfigError(
                f"sweep.storage: cannot open {without_password(url)!r} ({' '.join(str(error).split())[:200]}); "
                "expected a URL such as sqlite:///sweep.db or a file name that ends in .log"
            ) from error


def _open(url: str) -> optuna.storages.BaseStorage:
    import optuna
    from optuna.storages import journal

    if url.endswith(".log"):
        return optuna.storages.JournalStorage(journal.JournalFileBackend(url))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # heartbeats are marked as experimental, their callback is renamed in 4.9
        return optuna.storages.RDBStorage(
            url,
            heartbeat_interval=HEARTBEAT_S,
            failed_trial_callback=optuna.storages.RetryFailedTrialCallback(max_retry=2),
            engine_kwargs={"connect_args": {"timeout": 60}} if url.startswith("sqlite") else None,
        )


def plan_sweep(track: Track, config: RunConfig, data: TrackData) -> tuple[Evaluation, dict[str, Dimension], list[Fold]]:
    """Gives the searched system, the search space and the outer folds; takes no time.

    It is the first that holds rows back for choices. Why: values that were chosen by held-out rows would go on in
    best.yaml, to systems that say that they never saw them.

    Raises:
        ConfigError: If the space does not fit, or there are too few groups for the folds.
    """
    offered = track.evaluations(config)
    evaluation = next((item for item in offered if not item.selects_on_reported), offered[0])
    place = config.sweep.space or registry.folder(track.name) / "sweep.yaml"
    space = read_space(place, config, taken=tuple(evaluation.overrides))
    return evaluation, space, plan_folds(config, evaluation, [item for item in data.samples if item.target])


def run_sweep(track: Track, config: RunConfig, data: TrackData, reader: FeatureReader) -> SweepResult:
    """Searches each outer fold until its study has sweep.num_trials finished trials, all workers counted.

    Any number of workers may search one storage at once; each ends when all trials have ended, its own and others'.

    Raises:
        ConfigError: If the space or the storage does not fit, or no trial finished.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    evaluation, space, folds = plan_sweep(track, config, data)
    folder = config.run.dir or Path("runs") / f"sweep_{track.name}"
    folder.mkdir(parents=True, exist_ok=True)
    url = config.sweep.storage or f"sqlite:///{folder / 'sweep.db'}"
    storage = open_storage(url)
    samples = {sample.sample_id: sample for sample in data.samples if sample.target}
    with RunProgress(len(folds) * config.sweep.num_trials, enabled=config.runtime.progress) as progress:
        base = FoldRun(
            track=track,
            config=with_overrides(config, evaluation.overrides),
            evaluation=evaluation.name,
            samples=samples,
            reader=reader,
            fold=folds[0],
            folder=folder,
            progress=progress,
            unlabelled=data.unlabelled,
        )
        name = config.sweep.study or f"{track.name}-{evaluation.name}"
        searches = [FoldSearch(replace(base, fold=fold), space, storage, name) for fold in folds]
        _search_all(searches)
    found = [search.summary() for search in searches]
    best = folder / "best.yaml"
    write_text(best, _best_yaml(track, config, found))
    return SweepResult(best_config=best, storage=url, folds=found, monitor=track.monitor)


def _search_all(searches: Sequence[FoldSearch]) -> None:
    """Searches fold after fold, then waits for trials of other workers, and takes over those of workers that died."""
    for search in searches:
        search.search()
    while any(search.waits for search in searches):
        time.sleep(POLL_S)
        for search in searches:
            search.free_trials_of_dead_workers()
            search.search()
    for search in searches:
        search.remove_leftovers()


class NoRoomError(Exception):
    """Ends a trial that another worker's trial has made one too many."""


class FoldSearch:
    """The search of one outer fold, on its training and validation rows.

    Args:
        run: The fold; its folder is the sweep's.
        space: Key to range.
        storage: Where trials are kept.
        name: Of the study, without the fold.

    Raises:
        ConfigError: If the storage holds a study of that name with other data, folds, ranges or configuration.
    """

    def __init__(
        self, run: FoldRun, space: Mapping[str, Dimension], storage: optuna.storages.BaseStorage, name: str
    ) -> None:
        import optuna

        self._run = run
        self._space = space
        self._notices_dead_workers = isinstance(storage, optuna.storages.RDBStorage)
        self._time_is_up = False
        self._study = optuna.create_study(
            study_name=f"{name}-fold{run.fold.index}",
            storage=storage,
            load_if_exists=True,
            direction="minimize" if run.track.monitor_mode == "min" else "maximize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
            if run.config.sweep.prune
            else optuna.pruners.NopPruner(),
        )
        identity = _identity(run, space)
        if self._study.user_attrs.get("identity", identity) != identity:
            raise ConfigError(
                f"sweep.storage: study {self._study.study_name!r} searched other data, folds, ranges or another "
                "configuration; name another with sweep.study=NAME"
            )
        self._study.set_user_attr("identity", identity)

    def _trials(self, *names: str) -> list[optuna.trial.FrozenTrial]:
        from optuna.trial import TrialState

        return self._study.get_trials(deepcopy=False, states=tuple(TrialState[name] for name in names))

    @property
    def _is_done(self) -> bool:
        return len(self._trials("COMPLETE", "PRUNED")) >= self._run.config.sweep.num_trials

    def _taken(self) -> list[optuna.trial.FrozenTrial]:
        """Trials that count: those that have ended well, and those that a worker has in hand."""
        ended = self._trials("COMPLETE", "PRUNED")
        if not self._notices_dead_workers:  # a trial whose worker died runs in a journal file for ever
            return ended
        newest = datetime.now() - timedelta(seconds=2 * HEARTBEAT_S)  # Optuna's times have no zone
        # Why the age: a worker that dies before its first sign of life is never noticed by Optuna.
        return ended + [
            item
            for item in self._trials("RUNNING")
            if BEGUN in item.user_attrs or (item.datetime_start or newest) > newest
        ]

    @property
    def waits(self) -> bool:
        """Whether trials of other workers may still change the result."""
        return self._notices_dead_workers and not self._time_is_up and not self._is_done

    def search(self) -> None:
        """Runs trials as long as there is room for more, trials that run elsewhere counted in."""
        sweep = self._run.config.sweep
        end_s = math.inf if sweep.timeout_s is None else time.monotonic() + sweep.timeout_s
        while len(self._taken()) < sweep.num_trials and not self._time_is_up:
            self._show()
            self._study.optimize(self._objective, n_trials=1, catch=(NoRoomError,))
            self._time_is_up = time.monotonic() > end_s

    def free_trials_of_dead_workers(self) -> None:
        """Gives trials back whose worker has given no sign of life for a while."""
        import optuna

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as in open_storage
            optuna.storages.fail_stale_trials(self._study)

    def _objective(self, trial: optuna.Trial) -> float:
        import optuna

        run = self._run
        self._require_room(trial)
        trial.set_user_attr(BEGUN, True)
        seed = trial_seed(run.config.seed, run.fold.index, trial.number)
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return _run_trial(trial, run, self._space)

    def _require_room(self, trial: optuna.Trial) -> None:
        """Lets only the first of those trials go on that were begun at the same instant for the last free place."""
        own = (trial.datetime_start, trial.number)
        earlier = [item for item in self._taken() if (item.datetime_start, item.number) < own]
        if len(earlier) >= self._run.config.sweep.num_trials:
            raise NoRoomError

    def _show(self) -> None:
        complete = self._trials("COMPLETE")
        note = f"best val/{self._run.track.monitor} {self._study.best_value:.2f}" if complete else ""
        if self._run.progress:
            done = self._run.fold.index * self._run.config.sweep.num_trials + len(self._trials("COMPLETE", "PRUNED"))
            self._run.progress.show(f"trials, fold {self._run.fold.index + 1}", done, note)

    def remove_leftovers(self) -> None:
        """Removes folders of trials that a killed worker left."""
        folder = self._run.folder / f"fold_{self._run.fold.index}"
        for trial in self._trials("COMPLETE", "PRUNED", "FAIL"):
            shutil.rmtree(folder / f"trial_{trial.number}", ignore_errors=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def summary(self) -> dict[str, Any]:
        """Gives study, number of trials by state, best value and parameters.

        Raises:
            ConfigError: If no trial was finished.
        """
        complete = self._trials("COMPLETE")
        if not complete:
            raise ConfigError(
                f"sweep: no trial of study {self._study.study_name!r} finished; raise sweep.num_trials or timeout_s"
            )
        return {
            "fold": self._run.fold.index,
            "study": self._study.study_name,
            "complete": len(complete),
            "pruned": len(self._trials("PRUNED")),
            "value": self._study.best_value,
            "params": dict(self._study.best_params),
        }


def _identity(run: FoldRun, space: Mapping[str, Dimension]) -> str:
    """Fingerprint of what all trials of one study must share."""
    import hashlib

    unlabelled = [[sample.sample_id for sample in run.unlabelled]] if run.unlabelled else []
    content = {
        "rows": [run.fold.train, run.fold.val, run.fold.held_out, *unlabelled],
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
