"""Trains the draws of an evaluation: together as one model where that can be, else one after the other."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mersuite.clip import Sample
from mersuite.config import RunConfig
from mersuite.errors import ConfigError
from mersuite.inference import answer_with, choose_device
from mersuite.models.base import BuildContext
from mersuite.run_folder import read_curve, write_text
from mersuite.track import ClassLoss
from mersuite.training.batched import Member, Trained, train_together
from mersuite.training.draws import TABLE, Draw, DrawFolder, DrawResult, plan_draws
from mersuite.training.folds import (
    FoldRun,
    FoldStart,
    build_context,
    claim_fold,
    finish_fold,
    finished_fold,
    seed_of,
    start_fold,
    train_fold,
)
from mersuite.training.row_table import FoldRows, RowTable, read_table
from mersuite.training.stacked import shape_of, why_not_stacked

_log = logging.getLogger(__name__)
MODELS_ON_CPU = 25
"""Why 25: more save little time a step, and their parameters leave the processor's caches."""
MODELS_ON_GPU = 250


def check_draws(config: RunConfig) -> None:
    """Makes sure, before long work, that the draws can be had.

    Raises:
        ConfigError: As plan_draws does, or if more than one process would train.
    """
    if config.runtime.devices * config.runtime.num_nodes > 1:
        raise ConfigError(
            f"runtime.devices: draws of hyper-parameters are trained in one process, got {config.runtime.devices} x "
            f"{config.runtime.num_nodes}; use runtime.devices=1 and runtime.num_nodes=1"
        )
    plan_draws(config)


def train_draws(runs: Sequence[FoldRun], folder: Path) -> dict[str, Any]:
    """Trains every draw on all folds and leaves the best draw's checkpoints as those of the folds; resumable.

    Draws are ranked by the monitored metric over the validation rows of all folds together.

    Args:
        runs: The folds of the evaluation.
        folder: The evaluation's folder.

    Returns:
        As DrawFolder.summary.

    Raises:
        ConfigError: As check_draws does; if the folder holds other data; or if memory of the device does not suffice.
    """
    first = runs[0]
    kept = DrawFolder(path=folder, monitor=first.track.monitor, mode=first.track.monitor_mode)
    for run in runs:
        claim_fold(run)
    if not (folder / TABLE).is_file():
        plans = [plan_draws(run.config) for run in runs]
        done = kept.read()
        jobs = [
            _Job(
                draw=draws[0],
                runs=[
                    replace(run, config=draw.config, folder=kept.fold(draw.index, run.fold.index))
                    for run, draw in zip(runs, draws, strict=True)
                ],
            )
            for draws in zip(*plans, strict=True)
            if draws[0].index not in done
        ]
        _DrawTrainer(kept, jobs).run()
        kept.take_best({run.fold.index: run.folder for run in runs})
        kept.write_table()
    return kept.summary(first.config.draws.num_best)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """A draw that is not finished: its folds, in folders of their own."""

    draw: Draw
    runs: Sequence[FoldRun]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stacked:
    """One fold of a draw that is to be trained together with others."""

    run: FoldRun
    start: FoldStart
    member: Member


@dataclass(slots=True, kw_only=True)
class _Rows:
    """Rows in memory for all folds, and where each sample's row is."""

    table: RowTable
    train: Mapping[str, int]
    val: Mapping[str, int] = field(default_factory=dict)


class _DrawTrainer:
    def __init__(self, kept: DrawFolder, jobs: Sequence[_Job]) -> None:
        self._kept, self._jobs = kept, jobs
        self._contexts: dict[tuple[object, ...], BuildContext] = {}
        self._rows: dict[tuple[str, ...], _Rows | None] = {}
        self._num_done = 0

    def run(self) -> None:
        """Trains all jobs, those that fit together in chunks."""
        groups: dict[tuple[object, ...], list[_Job]] = {}
        alone: list[_Job] = []
        reasons: dict[str, None] = {}
        for job in self._jobs:
            start = self._start(job.runs[0])
            reason = self._why_alone(job, start)
            if reason or start.network is None:
                alone.append(job)
                reasons[reason] = None
                continue
            config = job.runs[0].config
            groups.setdefault((*shape_of(start.network), config.trainer, config.optim.name), []).append(job)
        for group in groups.values():
            size = self._draws_at_once(group[0])
            for first in range(0, len(group), size):
                self._train_chunk(group[first : first + size])
        for reason in reasons:
            _log.warning("draws are trained one after the other, not together: %s", reason)
        for job in alone:
            self._train_alone(job)

    def _start(self, run: FoldRun) -> FoldStart:
        """Begins a fold; what the data tell is found once for all draws."""
        if not run.track.uses_network(run.config):
            return start_fold(run)
        key = (run.fold.index, tuple(run.config.model.encoders), run.config.data.window_s)
        if key not in self._contexts:
            self._contexts[key] = build_context(run.track, run.config, run.reader, run.rows(run.fold.train))
        return start_fold(run, self._contexts[key])

    def _why_alone(self, job: _Job, start: FoldStart) -> str:
        """Says why a draw cannot be trained together with others; "" where it can."""
        run = job.runs[0]
        config = run.config
        if start.network is None:
            return "the system has no network"
        if run.track.class_loss(config, start.fitted) is None:
            return "what the system learns or answers is more than a classifier's"
        if start.unlabelled:
            return "the system sees unlabelled rows in training"
        faults = {
            "model.pretrained": config.model.pretrained is not None,
            "data.window_s": config.data.window_s is not None,
            "trainer.accumulate": config.trainer.accumulate != 1,
            "trainer.ema_decay": config.trainer.ema_decay is not None,
            "trainer.precision": config.trainer.precision != "32-true",
            "trainer.max_steps": config.trainer.max_steps != -1,
        }
        reason = next((f"{key} is set" for key, is_set in faults.items() if is_set), "")
        reason = reason or why_not_stacked(start.network)
        if not reason and self._rows_of(job, start) is None:
            reason = "some clips have more than one row of a stream"
        return reason

    def _rows_of(self, job: _Job, start: FoldStart) -> _Rows | None:
        """Reads the rows of all folds, once for each choice of streams."""
        if start.network is None or start.context is None:
            return None
        names = start.network.backbone.stream_names
        if names not in self._rows:
            rows: list[Sample] = []
            places: tuple[dict[str, int], dict[str, int]] = {}, {}
            for run in job.runs:
                asked = [run.track.as_asked(run.config, sample) for sample in run.rows(run.fold.val)]
                for side, samples in zip(places, (run.rows(run.fold.train), asked), strict=True):
                    for sample in samples:
                        if sample.sample_id not in side:
                            side[sample.sample_id] = len(rows)
                            rows.append(sample)
            infos = {name: start.context.streams[name] for name in names}
            table = read_table(job.runs[0].reader, rows, infos)
            self._rows[names] = None if table is None else _Rows(table=table, train=places[0], val=places[1])
        return self._rows[names]

    def _draws_at_once(self, job: _Job) -> int:
        config = job.runs[0].config
        most = config.runtime.max_models
        if most is None:
            most = MODELS_ON_CPU if choose_device(config).type == "cpu" else MODELS_ON_GPU
        return max(1, most // len(job.runs))

    def _train_chunk(self, jobs: Sequence[_Job]) -> None:
        first = jobs[0].runs[0]
        stacked = [[self._stacked(job, run) for run in job.runs] for job in jobs]
        rows = self._rows[tuple(first.config.model.encoders)]
        if rows is None:
            return
        members = [item.member for items in stacked for item in items]
        device = choose_device(first.config)

        def show(num_epochs: int) -> None:
            if first.progress is not None:
                told = f"{len(members)} models as one, epoch {num_epochs} of {first.config.trainer.max_epochs}"
                first.progress.show(f"{first.evaluation}, {self._told_done()}", None, told)

        try:
            trained = train_together(
                members, rows.table, first.config.trainer, mode=self._kept.mode, device=device, after_epoch=show
            )
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                f"runtime.max_models: {len(members)} networks at once do not fit into the memory of {device}; lower "
                f"it to {max(1, len(members) // 2)} or less and go on with run.resume=true"
            ) from error
        parts = [trained[place : place + len(first_runs)] for place, first_runs in _starts(stacked)]
        self._keep(jobs, stacked, parts)

    def _stacked(self, job: _Job, run: FoldRun) -> _Stacked:
        start = self._start(run)
        loss = run.track.class_loss(run.config, start.fitted)
        rows = self._rows_of(job, start)
        if start.network is None or loss is None or rows is None:
            raise ConfigError(
                f"draws.space: fold {run.fold.index} of draw {job.draw.index} differs from fold 0 in kind"
            )
        member = Member(
            network=start.network,
            rows=_fold_rows(run, start, loss, rows),
            loss=loss,
            optim=run.config.optim,
            seed=seed_of(run.config.seed, run.evaluation, run.fold.index),
        )
        return _Stacked(run=run, start=start, member=member)

    def _keep(
        self, jobs: Sequence[_Job], stacked: Sequence[Sequence[_Stacked]], trained: Sequence[Sequence[Trained]]
    ) -> None:
        """Writes the checkpoints of the chunk's best draw if it is the best so far, and then notes all as finished."""
        results = []
        for job, items, found in zip(jobs, stacked, trained, strict=True):
            answers = [
                item.start.fitted.classes[index]
                for item, fold in zip(items, found, strict=True)
                for index in fold.answers
            ]
            folds = [(item.epoch, item.value) for item in found]
            results.append(_result(job, answers, folds))
        best = self._kept.ranked(results)[0]
        if self._kept.is_better(best, self._kept.read()):
            place = results.index(best)
            for item, fold in zip(stacked[place], trained[place], strict=True):
                network = item.member.network
                network.load_state_dict(dict(fold.state))
                finish_fold(item.run, item.start, network.eval())
                _write_curve(item.run, fold)
        self._kept.finish(results)
        self._num_done += len(jobs)

    def _train_alone(self, job: _Job) -> None:
        """Trains a draw's folds as those of any evaluation."""
        answers: list[Any] = []
        folds = []
        monitor = f"val/{self._kept.monitor}"
        better = max if self._kept.mode == "max" else min
        for run in job.runs:
            if run.progress is not None:
                run.progress.show(f"{run.evaluation}, {self._told_done()}", None, f"fold {run.fold.index + 1}")
            val = run.rows(run.fold.val)
            found = [item.answer for item in answer_with(finished_fold(run) or train_fold(run), val, run.reader)]
            value = float(run.track.metrics(found, _truths(run))[self._kept.monitor])
            curve = [row for row in read_curve(run.folder / "curve.csv") if row["metric"] == monitor]
            values = [float(row["value"]) for row in curve]
            folds.append((int(curve[values.index(better(values))]["epoch"]) if curve else 0, value))
            answers += found
        self._kept.finish([_result(job, answers, folds)])
        self._num_done += 1

    def _told_done(self) -> str:
        return f"draws: {self._num_done} of {len(self._jobs)} done"


def _starts(stacked: Sequence[Sequence[_Stacked]]) -> list[tuple[int, Sequence[_Stacked]]]:
    """Gives where each draw's members begin."""
    found, place = [], 0
    for items in stacked:
        found.append((place, items))
        place += len(items)
    return found


def _truths(run: FoldRun) -> list[Any]:
    return [run.track.answer_of(sample) for sample in run.rows(run.fold.val)]


def _fold_rows(run: FoldRun, start: FoldStart, loss: ClassLoss, rows: _Rows) -> FoldRows:
    target = [int(start.fitted.target(sample)[loss.target]) for sample in start.train]
    weights = [sample.weight for sample in start.train]
    classes, truths, monitor = start.fitted.classes, _truths(run), run.track.monitor

    def score(answers: np.ndarray) -> float:
        return float(run.track.metrics([classes[index] for index in answers], truths)[monitor])

    return FoldRows(
        train=torch.tensor([rows.train[sample.sample_id] for sample in start.train]),
        target=torch.tensor(target),
        weight=torch.tensor(weights, dtype=torch.float32) if any(item != 1.0 for item in weights) else None,
        val=torch.tensor([rows.val[sample.sample_id] for sample in start.val]),
        score=score,
    )


def _result(job: _Job, answers: Sequence[Any], folds: Sequence[tuple[int, float]]) -> DrawResult:
    first = job.runs[0]
    truths = [truth for run in job.runs for truth in _truths(run)]
    metrics = first.track.metrics(answers, truths)
    return DrawResult(
        draw=job.draw.index,
        values=job.draw.values,
        metrics={name: float(metrics[name]) for name in first.track.metric_names},
        folds=[
            {"fold": run.fold.index, "best_epoch": epoch, "value": value}
            for run, (epoch, value) in zip(job.runs, folds, strict=True)
        ],
    )


def _write_curve(run: FoldRun, trained: Trained) -> None:
    """Writes curve.csv as mersuite.training.callbacks.CurveWriter does."""
    lines = ["epoch,step,metric,value"]
    for epoch, (loss, value) in enumerate(zip(trained.losses, trained.values, strict=True)):
        step = (epoch + 1) * trained.num_steps
        lines.append(f"{epoch},{step},train/loss,{float(loss)!r}")
        lines.append(f"{epoch},{step},val/{run.track.monitor},{float(value)!r}")
    write_text(run.folder / "curve.csv", "\n".join(lines) + "\n")
