"""Lightning callbacks: reproducible epochs, atomic checkpoints, learning curves, pruning."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from mersuite.run_folder import read_curve


class SeedEachEpoch(pl.Callback):
    """Seeds PyTorch's generators from (seed, epoch, rank) at the start of every training epoch.

    Why: dropout of an epoch then depends on nothing that came before it, so a run that was killed and resumed goes on
    with exactly the numbers of an uninterrupted one.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Seeds the epoch."""
        entropy = np.random.SeedSequence([self._seed, trainer.current_epoch, trainer.global_rank])
        torch.manual_seed(int(entropy.generate_state(1)[0]))


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints beside their place and renames them, so that a kill never leaves half of one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Saves the checkpoint in one step that either happens or does not."""
        partial = f"{path}.partial"
        super().save_checkpoint(checkpoint, partial, storage_options)
        Path(partial).replace(path)


class CurveWriter(pl.Callback):
    """Writes what was logged in each epoch to a csv: epoch, step, metric, value."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the file, or drops rows of epochs that a resumed run does again."""
        if not trainer.is_global_zero:
            return
        kept = [row for row in read_curve(self._path) if int(row["epoch"]) < trainer.current_epoch]
        self._write(kept)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Adds the epoch's values."""
        if not trainer.is_global_zero:
            return
        rows = read_curve(self._path)
        for metric, value in sorted(trainer.callback_metrics.items()):
            rows.append(
                {
                    "epoch": str(trainer.current_epoch),
                    "step": str(trainer.global_step),
                    "metric": metric,
                    "value": repr(float(value)),
                }
            )
        rate = trainer.optimizers[0].param_groups[0]["lr"] if trainer.optimizers else float("nan")
        rows.append(
            {"epoch": str(trainer.current_epoch), "step": str(trainer.global_step), "metric": "lr", "value": repr(rate)}
        )
        self._write(rows)

    def _write(self, rows: list[dict[str, str]]) -> None:
        partial = self._path.with_suffix(".partial")
        with partial.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, ["epoch", "step", "metric", "value"])
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self._path)


class ReportEpoch(pl.Callback):
    """Calls a function with (epoch, monitored value) after each validation; it may raise to stop the run.

    Why own: Optuna's integration callback subclasses `lightning.pytorch`, whose classes are not those of
    pytorch_lightning.
    """

    def __init__(self, monitor: str, report: Callable[[int, float], None]) -> None:
        self._monitor = monitor
        self._report = report

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Reports the epoch's value."""
        if not trainer.sanity_checking and self._monitor in trainer.callback_metrics:
            self._report(trainer.current_epoch, float(trainer.callback_metrics[self._monitor]))
