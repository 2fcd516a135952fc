"""Config to pytorch_lightning.Trainer."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, EMAWeightAveraging, ModelCheckpoint

from mersuite.config import RunConfig
from mersuite.training.callbacks import AtomicCheckpointIO, CurveWriter, SeedEachEpoch

BEST_WEIGHTS = "best_weights.ckpt"
LAST = "last.ckpt"


def quiet_lightning() -> None:
    """Silences Lightning's banners and its advice on worker counts, which bury our own messages."""
    for name in ("pytorch_lightning", "lightning_fabric", "pytorch_lightning.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory.*exists and is not empty.*")
    # val/* is computed from the gathered outputs of all processes, so every process logs the same value
    warnings.filterwarnings("ignore", message=r".*It is recommended to use `self.log\('val/.*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*LeafSpec.*deprecated.*")
    warnings.filterwarnings("ignore", message=".*recommended to use `self.log.*sync_dist=True.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # frozen encoders are


def build_trainer(
    config: RunConfig, folder: Path, *, seed: int, monitor: str, mode: str, extra_callbacks: Sequence[pl.Callback] = ()
) -> pl.Trainer:
    """Gives a Trainer that keeps the best and the last state of a network in a folder.

    Args:
        config: The run's configuration.
        folder: Where checkpoints and curve.csv go.
        seed: Seeds every epoch.
        monitor: Logged name that the best checkpoint and early stopping go by, such as "val/mae".
        mode: "min" or "max".
        extra_callbacks: More callbacks, such as a pruning one.
    """
    quiet_lightning()
    trainer, runtime = config.trainer, config.runtime
    callbacks: list[pl.Callback] = [SeedEachEpoch(seed), CurveWriter(folder / "curve.csv"), *extra_callbacks]
    if trainer.ema_decay is not None:
        callbacks.append(EMAWeightAveraging(decay=trainer.ema_decay))
    if trainer.patience is not None:
        callbacks.append(EarlyStopping(monitor=monitor, mode=mode, patience=trainer.patience))
    callbacks += [
        _checkpoint(folder, BEST_WEIGHTS, monitor=monitor, mode=mode, save_weights_only=True),
        _checkpoint(folder, LAST),
    ]
    return pl.Trainer(
        max_epochs=trainer.max_epochs,
        max_steps=trainer.max_steps,
        accumulate_grad_batches=trainer.accumulate,
        gradient_clip_val=trainer.gradient_clip,
        precision=trainer.precision,
        accelerator=runtime.accelerator,
        devices=runtime.devices,
        num_nodes=runtime.num_nodes,
        strategy=runtime.strategy,
        deterministic="warn",
        callbacks=callbacks,
        plugins=[AtomicCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
        default_root_dir=folder,
    )


def _checkpoint(folder: Path, name: str, **options: Any) -> ModelCheckpoint:
    return ModelCheckpoint(
        dirpath=folder, filename=Path(name).stem, save_top_k=1, enable_version_counter=False, **options
    )
