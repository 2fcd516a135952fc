"""Self-supervised pretraining as a run: recordings without labels in, encoder weights that say whom they saw out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler

from mersuite.clip import Batch, Sample
from mersuite.config import RunConfig
from mersuite.data.datamodule import WindowDataModule
from mersuite.data.splits import natural_key
from mersuite.errors import ConfigError, DataError, did_you_mean
from mersuite.inference import gather, load_tensors
from mersuite.models.backbone import Backbone, build_backbone
from mersuite.models.pretrain import MaskedReconstruction, SeenRecordings, load_encoders, save_encoders, seen_recordings
from mersuite.prepare import FeatureReader
from mersuite.run_folder import RunWriter, claim_folder, is_first_process, read_curve, samples_digest, write_run_json
from mersuite.track import Track, TrackData
from mersuite.training.folds import build_context, seed_of
from mersuite.training.optim import build_optimizer, schedule_factor
from mersuite.training.progress import RunProgress
from mersuite.training.trainer import BEST_WEIGHTS, LAST, build_trainer

WEIGHTS = "encoders.safetensors"
MONITOR = "val/loss"
_NAME = "pretraining"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recordings:
    """Recordings to pretrain on, a bare sample each: no target, no text.

    Attributes:
        group: The group they are split by.
        train: What is learned from.
        val: Of other people; they choose the best epoch.
        left_out: Members of the group that cv.held_out keeps away.
        num_bare: Clips without any of the model's streams, which are left out.
    """

    group: str
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    left_out: tuple[str, ...] = ()
    num_bare: int = 0

    def members(self, samples: Sequence[Sample]) -> list[str]:
        """Gives the members of the group among samples."""
        return sorted({sample.groups[self.group] for sample in samples}, key=natural_key)


class PretrainingModule(pl.LightningModule):
    """Trains encoders by masked reconstruction.

    Args:
        model: Encoders and decoders.
        config: The run's configuration.
        seed: Decides what validation hides, the same in every epoch.
    """

    def __init__(self, model: MaskedReconstruction, config: RunConfig, seed: int) -> None:
        super().__init__()
        self.model = model
        self._run_config = config
        self._seed = seed

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        """Gives the mean of the streams' losses, and logs each."""
        return self._logged("train", batch)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Logs the losses with what is hidden drawn from the seed and the batch's place alone.

        Why: epochs are then told apart by their weights and not by luck, and a resumed run draws alike.
        """
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            entropy = np.random.SeedSequence([self._seed, batch_idx, self.global_rank])
            torch.manual_seed(int(entropy.generate_state(1)[0]))
            self._logged("val", batch)

    def _logged(self, stage: str, batch: Batch) -> torch.Tensor:
        losses = self.model.stream_losses(batch)
        total = torch.stack(list(losses.values())).mean()
        # streams differ from batch to batch, and processes must log the same names: only the total is joined
        self.log(f"{stage}/loss", total.detach(), on_epoch=True, on_step=False, batch_size=len(batch), sync_dist=True)
        values = {f"{stage}/{name}": loss.detach() for name, loss in losses.items()}
        self.log_dict(values, on_epoch=True, on_step=False, batch_size=len(batch))
        return total

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Gives the configured optimiser with its schedule stepped after every optimiser step."""
        optimizer = build_optimizer(self.model, self._run_config.optim)
        num_steps = max(1, int(self.trainer.estimated_stepping_batches))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule_factor(self._run_config.optim, num_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def choose_recordings(track: Track, config: RunConfig, samples: Sequence[Sample], reader: FeatureReader) -> Recordings:
    """Splits recordings by the track's people, never by windows; those of cv.held_out are left out.

    Raises:
        ConfigError: If cv.held_out names nobody of the data.
        DataError: If there are fewer than two people with recordings.
    """
    group = track.reports_by
    bare = {
        sample.clip_id: replace(sample, target={}, texts={}, weight=1.0) for sample in samples if group in sample.groups
    }
    known = sorted({member for sample in bare.values() for member in sample.groups.values()}, key=natural_key)
    for name in config.cv.held_out:
        if name not in known:
            raise ConfigError(f"cv.held_out: nobody is called {name!r}; {did_you_mean(name, known)}")
    away = set(config.cv.held_out)
    left_out = {item.groups[group] for item in bare.values() if away & set(item.groups.values())}
    allowed = [item for item in bare.values() if not away & set(item.groups.values())]
    streams = config.model.encoders
    used = [item for item in allowed if any(reader.get(item.clip_id, stream) is not None for stream in streams)]
    members = sorted({item.groups[group] for item in used}, key=natural_key)
    if len(members) < 2:
        raise DataError(
            f"pretraining: {len(members)} {group} with recordings of {', '.join(streams)}, need 2 or more: one is kept "
            "for validation; add recordings, or look at pretrain.split and cv.held_out"
        )
    order = np.random.default_rng([config.seed, len(members)]).permutation(len(members))
    count = min(max(1, round(config.cv.val_fraction * len(members))), len(members) - 1)
    val = {members[index] for index in order[:count]}
    return Recordings(
        group=group,
        train=tuple(item for item in used if item.groups[group] not in val),
        val=tuple(item for item in used if item.groups[group] in val),
        left_out=tuple(sorted(left_out, key=natural_key)),
        num_bare=len(allowed) - len(used),
    )


def run_pretraining(
    track: Track, config: RunConfig, data: TrackData, reader: FeatureReader, folder: RunWriter
) -> dict[str, Any]:
    """Trains the configured encoders on recordings without labels; resumable at any instant.

    Targets are never read. The weights with the lowest validation loss are kept, with the names of everybody whose
    recordings were used.

    Args:
        track: Names the group of people.
        config: model.encoders, pretrain.*, data.*, trainer.*, optim.* and cv.val_fraction are read.
        data: Recordings, rated or not.
        reader: Their features.
        folder: Opened with run_folder.open_run(config, pretraining=True).

    Returns:
        weights (path), val_loss (1 is what knowing nothing gives), epochs, run, group, train, val, left_out (names),
        num_recordings, notes.

    Raises:
        ConfigError: If encoders are frozen, configuration and data do not fit, or a resumed run began with other data.
        DataError: If there are fewer than two people.
    """
    if config.model.freeze_encoders:
        raise ConfigError("model.freeze_encoders: pretraining trains the encoders; leave it out with pretrain=true")
    recordings = choose_recordings(track, config, data.samples, reader)
    samples = (*recordings.train, *recordings.val)
    digests = {
        "train rows": samples_digest(recordings.train),
        "val rows": samples_digest(recordings.val),
        "signals": reader.signature({sample.clip_id for sample in samples}),
    }
    claim_folder(folder.path, digests)
    weights = folder.path / WEIGHTS
    record = {
        "split": config.pretrain.split,
        "group": recordings.group,
        "train": recordings.members(recordings.train),
        "val": recordings.members(recordings.val),
        "left_out": list(recordings.left_out),
        "num_recordings": len(samples),
    }
    if not weights.is_file():
        write_run_json(folder, config, {}, pretraining={**record, "weights": None})
        seed = seed_of(config.seed, _NAME, 0)
        torch.manual_seed(seed)
        backbone = build_backbone(config.model, build_context(track, config, reader, samples))
        _train(config, backbone, recordings, reader, folder.path, seed)
        if is_first_process():
            infos = {name: backbone.encoder(name).info for name in backbone.stream_names}
            seen = SeenRecordings(group=recordings.group, members=tuple(recordings.members(samples)), streams=infos)
            save_encoders(weights, backbone, seen)
            (folder.path / BEST_WEIGHTS).unlink()
    losses = [float(row["value"]) for row in read_curve(folder.path / "curve.csv") if row["metric"] == MONITOR]
    record |= {"weights": WEIGHTS, "val_loss": min(losses), "epochs": len(losses)}
    write_run_json(folder, config, {}, pretraining=record)
    notes = [*data.notes]
    if recordings.num_bare:
        notes.append(f"{recordings.num_bare} clips have none of the model's streams and were left out")
    return {**record, "weights": str(weights), "run": str(folder.path), "notes": notes}


def _train(
    config: RunConfig, backbone: Backbone, recordings: Recordings, reader: FeatureReader, folder: Path, seed: int
) -> None:
    """Trains, and leaves the backbone with the best weights."""
    if config.model.pretrained is not None:
        load_encoders(config.model.pretrained, backbone)
    backbone.fusion.requires_grad_(False)  # it takes no part, and DDP wants a gradient for all that could have one
    module = PretrainingModule(MaskedReconstruction(backbone, config.pretrain), config, seed)
    data = WindowDataModule(
        config, train=recordings.train, val=recordings.val, reader=reader, target_of=None, seed=seed
    )
    with RunProgress(1, enabled=config.runtime.progress and is_first_process()) as progress:
        progress.start_fold(_NAME, 0, 1)
        trainer = build_trainer(
            config, folder, seed=seed, monitor=MONITOR, mode="min", extra_callbacks=[progress.callback(MONITOR)]
        )
        last = folder / LAST
        trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
        progress.finish_fold()
    state = load_tensors(folder / BEST_WEIGHTS)["state_dict"]
    own = {name.removeprefix("model."): tensor for name, tensor in state.items()}
    module.model.load_state_dict(own)
    gather([])  # no process goes on, and removes the file, before all have read it


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainedOn:
    """What a result must say about the encoders that it began with.

    Attributes:
        weights: The file.
        group: Whose members are counted, such as subject; "" where the file does not say.
        held_out_seen: Members among the held-out rows whose recordings were used in pretraining.
        num_held_out: Members among the held-out rows.
    """

    weights: str
    group: str
    held_out_seen: tuple[str, ...]
    num_held_out: int

    def sentence(self, kind: str = "held-out") -> str:
        """Gives it for people.

        Args:
            kind: What the rows are.

        >>> PretrainedOn(weights="a.safetensors", group="subject", held_out_seen=("s1",), num_held_out=3).sentence()
        'encoders pretrained, without labels, also on recordings of 1 of 3 held-out subjects: transductive'
        """
        if not self.group:
            return f"encoders pretrained on recordings that their file does not name, perhaps {kind} ones"
        if not self.held_out_seen:
            return f"encoders pretrained on recordings of no {kind} {self.group}"
        seen = f"{len(self.held_out_seen)} of {self.num_held_out} {kind} {self.group}s"
        return f"encoders pretrained, without labels, also on recordings of {seen}: transductive"

    def plain(self) -> dict[str, Any]:
        """Gives it for run.json."""
        return json.loads(json.dumps(asdict(self)))


def pretrained_on(config: RunConfig, held_out: Sequence[Sample]) -> PretrainedOn | None:
    """Compares the people of held-out rows with those whose recordings pretrained the encoders.

    People are told by their names, so the same person under another name is not found.

    Returns:
        None where model.pretrained is not set. Of a file that is gone nothing is known.

    Raises:
        ConfigError: If the file is damaged.
    """
    path = config.model.pretrained
    if path is None:
        return None
    seen = seen_recordings(path) if path.is_file() else None
    group = "" if seen is None else seen.group
    names = {sample.groups[group] for sample in held_out if group in sample.groups}
    both = sorted(names & set(() if seen is None else seen.members), key=natural_key)
    return PretrainedOn(weights=str(path), group=group, held_out_seen=tuple(both), num_held_out=len(names))
