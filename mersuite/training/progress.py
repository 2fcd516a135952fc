"""One line of progress for a whole run: which system, which fold, which epoch, how good."""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class RunProgress:
    """A progress bar over the folds of all evaluations, or the trials of a sweep, on stderr where a person watches.

    Args:
        num_parts: Folds of all evaluations together, or trials.
        enabled: False shows nothing.
    """

    def __init__(self, num_parts: int, *, enabled: bool) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not (enabled and sys.stderr.isatty()),
            transient=True,
        )
        self._folds = self._progress.add_task("folds", total=num_parts, note="")
        self._steps = self._progress.add_task("", total=None, visible=False, note="")

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._progress.stop()

    def start_fold(self, evaluation: str, index: int, num_folds: int) -> None:
        """Names the fold that begins."""
        self._progress.update(self._folds, description=f"{evaluation}, fold {index + 1} of {num_folds}")
        self._progress.reset(self._steps, visible=False, note="")

    def finish_fold(self) -> None:
        """Counts a finished fold."""
        self._progress.advance(self._folds)

    def show(self, description: str, done: int | None, note: str) -> None:
        """Says what is under way, how many of all parts are done, and what is known so far.

        Args:
            description: What is under way.
            done: Finished parts; None leaves their number as it is.
            note: What is known so far.
        """
        self._progress.update(self._folds, description=description, completed=done, note=note)
        self._progress.reset(self._steps, visible=False, note="")

    def callback(self, monitor: str) -> pl.Callback:
        """Gives a Lightning callback that moves the line of steps.

        Args:
            monitor: Logged name shown beside it.
        """
        return _Steps(self._progress, self._steps, monitor)


class _Steps(pl.Callback):
    def __init__(self, progress: Progress, task: Any, monitor: str) -> None:
        self._progress = progress
        self._task = task
        self._monitor = monitor

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total = int(trainer.estimated_stepping_batches)
        self._progress.reset(
            self._task, total=total, completed=trainer.global_step, visible=True, description="  steps", note=""
        )

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self._progress.update(self._task, completed=trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._monitor in trainer.callback_metrics:
            value = float(trainer.callback_metrics[self._monitor])
            note = f"epoch {trainer.current_epoch + 1}, {self._monitor} {value:.2f}"
            self._progress.update(self._task, note=note)
