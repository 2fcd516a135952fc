"""The one supervised LightningModule of all tracks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler

from mersuite.clip import Batch, Output
from mersuite.config import RunConfig
from mersuite.inference import gather
from mersuite.models.network import Network, outputs_of
from mersuite.track import Fitted, Track
from mersuite.training.optim import build_optimizer, schedule_factor

Scorer = Callable[[Sequence[Output]], Mapping[str, float]]
"""Window outputs of all validation samples -> metrics by name, with the function that `mersuite score` uses."""


class SupervisedModule(pl.LightningModule):
    """Trains a network on a track's loss and scores whole validation samples after every epoch.

    Args:
        network: Backbone and head.
        track: Gives the loss.
        config: The run's configuration.
        fitted: The fold's fitted parts, which the loss may read.
        score_val: Merges, decodes and scores the validation outputs.
    """

    def __init__(self, network: Network, track: Track, config: RunConfig, fitted: Fitted, score_val: Scorer) -> None:
        super().__init__()
        self.network = network
        self._track = track
        self._run_config = config
        self._fitted = fitted
        self._score_val = score_val
        self._val_outputs: list[Output] = []
        self._num_steps = 1

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Gives the sum of the track's and the fusion's loss terms, and logs each."""
        batch.progress = self.global_step / self._num_steps
        batch = self._track.augment(self._run_config, batch)
        output, fused = self.network(batch)
        terms = {**self._track.loss(self._run_config, output, fused, batch, self._fitted), **fused.losses}
        total = torch.stack([term.float() for term in terms.values()]).sum()
        self.log("train/loss", total.detach(), on_epoch=True, on_step=False, sync_dist=True, batch_size=len(batch))
        if len(terms) > 1:
            logged = {f"train/{name}": term.detach() for name, term in terms.items()}
            self.log_dict(logged, on_epoch=True, on_step=False, sync_dist=True, batch_size=len(batch))
        return total

    def on_validation_epoch_start(self) -> None:
        """Forgets outputs of an earlier, interrupted validation."""
        self._val_outputs = []

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps the outputs of the batch's windows."""
        output, _ = self.network(batch)
        self._val_outputs.extend(outputs_of(output, batch))

    def on_validation_epoch_end(self) -> None:
        """Scores the windows of all processes, merged to whole samples, and logs val/<metric>."""
        metrics = self._score_val(gather(self._val_outputs))
        self._val_outputs = []
        for name, value in metrics.items():
            self.log(f"val/{name}", float(value), rank_zero_only=False, sync_dist=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Gives the configured optimiser with its schedule stepped after every optimiser step."""
        optimizer = build_optimizer(self.network, self._run_config.optim)
        num_steps = self._num_steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule_factor(self._run_config.optim, num_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
