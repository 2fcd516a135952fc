"""One outer fold: fit, train, calibrate on validation rows, answer the held-out rows once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from mersuite.clip import Output, Sample
from mersuite.config import RunConfig
from mersuite.data.datamodule import WindowDataModule
from mersuite.data.splits import Fold
from mersuite.data.unlabelled import apart_from
from mersuite.errors import ConfigError, DataError
from mersuite.inference import (
    Checkpoint,
    build_network,
    decoded,
    describe_streams,
    load_checkpoint,
    load_tensors,
    raw_outputs,
    save_checkpoint,
)
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.network import Network
from mersuite.prepare import FeatureReader
from mersuite.run_folder import claim_folder, is_first_process, samples_digest, write_json
from mersuite.tables import merge_windows
from mersuite.track import Fitted, Track

if TYPE_CHECKING:
    from pytorch_lightning import Callback

    from mersuite.training.module import SupervisedModule
    from mersuite.training.progress import RunProgress

BEST = "best.ckpt"
TRAINED = "trained.json"
ReportFunction = Callable[[int, float], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRun:
    """Everything that one fold needs.

    Attributes:
        track: The track.
        config: The evaluated system's configuration.
        evaluation: Its name.
        samples: All samples by id.
        reader: Their features.
        fold: Which samples are train, val and held out.
        folder: Where checkpoints go.
        report: Called with (epoch, monitored value) after each epoch; may raise to stop.
        progress: Shows steps where given.
        unlabelled: Samples that training may see without labels, for tracks that ask for some (Track.unlabelled).
    """

    track: Track
    config: RunConfig
    evaluation: str
    samples: Mapping[str, Sample]
    reader: FeatureReader
    fold: Fold
    folder: Path
    report: ReportFunction | None = None
    progress: RunProgress | None = None
    unlabelled: tuple[Sample, ...] = ()

    def rows(self, ids: Sequence[str]) -> list[Sample]:
        """Samples by their ids."""
        return [self.samples[item] for item in ids]

    def unlabelled_rows(self) -> list[Sample]:
        """Unlabelled samples that the configured system sees in training, as the track asks them.

        Those that share a group of cv.by with validation or held-out rows stay away.

        Raises:
            ConfigError: If the system asks for some and they were not read.
            DataError: If none is left.
        """
        use = self.track.unlabelled(self.config)
        if use is None:
            return []
        if not self.unlabelled:
            raise ConfigError(
                f"{self.evaluation} sees split {use.split} without labels in training, and it was not read: options "
                "that need it cannot be switched on by fold_overrides or a search space; set them in the configuration"
            )
        others = self.rows((*self.fold.val, *self.fold.held_out))
        kept = apart_from(self.unlabelled, others, self.config.cv.by)
        if not kept:
            raise DataError(
                f"all samples of split {use.split} share a {' or '.join(self.config.cv.by)} with rows that are held "
                "out; training cannot see any of them: change cv.by, or switch the options off that need them"
            )
        return [self.track.as_asked(self.config, sample) for sample in kept]


def seed_of(seed: int, evaluation: str, fold: int) -> int:
    """Gives a seed that depends on the run's seed, the evaluation and the fold, and on nothing that ran before.

    Why: a resumed run that skips finished folds then goes on with the same numbers.
    """
    name = np.frombuffer(evaluation.encode(), dtype=np.uint8)
    return int(np.random.SeedSequence([seed, fold, *name.tolist()]).generate_state(1)[0])


def train_fold(run: FoldRun) -> Checkpoint:
    """Trains one fold's system and writes its best.ckpt; goes on with an interrupted one.

    Held-out rows are not touched, unless the protocol validates on them (Evaluation.selects_on_reported).

    Raises:
        ConfigError: If the folder holds a fold of other data.
    """
    from mersuite.training.rounds import tidy_rounds, train_rounds

    claim_fold(run)
    start = start_fold(run)
    checkpoint = finish_fold(run, start, None if start.network is None else train_rounds(run, start, start.network))
    tidy_rounds(run.folder)
    return checkpoint


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldStart:
    """A fold before its network is trained.

    Attributes:
        train: Training samples.
        val: Validation samples, as the track asks them.
        fitted: Fitted parts after fit.
        network: The untrained network; None for systems without one.
        context: What it was built for.
        unlabelled: Unlabelled samples that it sees in training, as the track asks them; those with none of its streams
            are left out.
    """

    train: Sequence[Sample]
    val: Sequence[Sample]
    fitted: Fitted
    network: Network | None
    context: BuildContext | None
    unlabelled: Sequence[Sample] = ()


def start_fold(run: FoldRun, context: BuildContext | None = None) -> FoldStart:
    """Fits what is learned without gradient steps and builds the network, from the fold's own seed.

    Args:
        run: The fold.
        context: What another system was built for on the same training rows and streams; None looks at the data.
    """
    torch.manual_seed(seed_of(run.config.seed, run.evaluation, run.fold.index))
    train = run.rows(run.fold.train)
    val = [run.track.as_asked(run.config, sample) for sample in run.rows(run.fold.val)]
    fitted = run.track.fitted(run.config)
    fitted.fit(train, val, run.reader.get)
    network, unlabelled = None, []
    if run.track.uses_network(run.config):
        if context is None:
            context = build_context(run.track, run.config, run.reader, train)
        context = replace(context, classes=fitted.classes)
        network = build_network(run.track, run.config, context, fitted)
        unlabelled = _with_streams(run, train, run.unlabelled_rows())
    return FoldStart(
        train=train,
        val=val,
        fitted=fitted,
        network=network,
        context=None if network is None else context,
        unlabelled=unlabelled,
    )


def _with_streams(run: FoldRun, train: Sequence[Sample], unlabelled: Sequence[Sample]) -> list[Sample]:
    """Gives the unlabelled samples that have a stream of the model, checked against the training samples.

    Raises:
        DataError: If there are some and none has, or a stream is another one than the training samples have.
    """
    streams = run.config.model.encoders
    kept = [
        sample
        for sample in unlabelled
        if any(
            (stored := sample.stored(stream)) is not None and run.reader.get(sample.clip_id, stored) is not None
            for stream in streams
        )
    ]
    if unlabelled and not kept:
        raise DataError(
            f"none of {len(unlabelled)} unlabelled samples, such as {unlabelled[0].sample_id!r}, has one of the "
            f"streams {', '.join(streams)}; `mersuite check` lists what is there"
        )
    if kept:
        describe_streams(run.reader, [*train, *kept], streams, may_lack=True)
    return kept


def finish_fold(run: FoldRun, start: FoldStart, network: Network | None) -> Checkpoint:
    """Calibrates on validation rows and writes best.ckpt.

    Labels of validation rows are learned from only where these rows are not held out as well
    (Evaluation.selects_on_reported).
    """
    context, fitted, val = start.context, start.fitted, start.val
    streams = None if context is None else context.streams
    seen = known_outputs(run, fitted, network, start.train, streams) if fitted.calibrates_on_train else []
    known = known_outputs(run, fitted, network, val, streams)
    fitted.calibrate(known, seen)
    outputs = {sample.sample_id: output for sample, output in known}
    if not set(run.fold.val) & set(run.fold.held_out):
        fitted.refit([(sample, outputs.get(sample.sample_id)) for sample in val])
    checkpoint = Checkpoint(
        track=run.track,
        config=run.config,
        evaluation=run.evaluation,
        fold=run.fold.index,
        fitted=fitted,
        network=network,
        context=context,
    )
    if is_first_process():
        save_checkpoint(run.folder / BEST, checkpoint)
        for name in ("best_weights.ckpt", TRAINED):
            (run.folder / name).unlink(missing_ok=True)
    return checkpoint


def known_outputs(
    run: FoldRun,
    fitted: Fitted,
    network: Network | None,
    samples: Sequence[Sample],
    streams: Mapping[str, StreamInfo] | None = None,
) -> list[tuple[Sample, Output]]:
    """Pairs samples with their raw outputs; [] for systems that have none.

    Args:
        run: The fold.
        fitted: Its fitted parts.
        network: Its network, if it has one.
        samples: What to answer.
        streams: What the network was built for: samples may be asked without one of its streams.
    """
    raw = raw_outputs(fitted, network, run.config, samples, run.reader, streams)
    return [(item, output) for item in samples if (output := raw[item.sample_id]) is not None]


def build_context(
    track: Track,
    config: RunConfig,
    reader: FeatureReader,
    samples: Sequence[Sample],
    *,
    classes: tuple[str, ...] = (),
) -> BuildContext:
    """Collects what a network is shaped by from the data, the track and the classes that its fitted parts found."""
    return BuildContext(
        streams=describe_streams(reader, samples, config.model.encoders),
        window_s=config.data.window_s,
        token_rate_hz=track.token_rate_hz,
        classes=classes,
    )


def train_network(run: FoldRun, start: FoldStart, network: Network) -> Network:
    """Trains a network on the rows of `start`; gives it in evaluation mode, with its best weights."""
    from mersuite.training.module import SupervisedModule
    from mersuite.training.trainer import BEST_WEIGHTS

    if run.config.model.pretrained is not None:
        from mersuite.models.pretrain import load_encoders

        load_encoders(run.config.model.pretrained, network.backbone)
    if run.config.model.freeze_encoders:
        if run.config.model.pretrained is None:
            raise ConfigError(
                "model.freeze_encoders: needs model.pretrained=FILE; untrained encoders would stay untrained"
            )
        network.backbone.freeze_encoders()
    fitted, val, use = start.fitted, start.val, run.track.unlabelled(run.config)
    targets = [run.track.answer_of(sample) for sample in val]

    def score_val(outputs: Sequence[Output]) -> Mapping[str, float]:
        merged = merge_windows(outputs, val)
        raw = {item.sample_id: fitted.raw_output(item, run.reader.get, merged[item.sample_id]) for item in val}
        final = {item.sample_id: fitted.apply(item, raw[item.sample_id]) for item in val}
        answers = [prediction.answer for prediction in decoded(run.track, run.config, val, final)]
        return run.track.metrics(answers, targets)

    if not (run.folder / TRAINED).is_file():
        module = SupervisedModule(network, run.track, run.config, fitted, score_val)
        data = WindowDataModule(
            run.config,
            train=start.train,
            val=val,
            reader=run.reader,
            target_of=fitted.target,
            seed=seed_of(run.config.seed, run.evaluation, run.fold.index),
            known=None if start.context is None else start.context.streams,
            unlabelled=start.unlabelled,
            share=0.0 if use is None else use.share,
        )
        _fit_network(run, module, data)
    state = load_tensors(run.folder / BEST_WEIGHTS)["state_dict"]
    network.float()  # answers are computed in float32, whatever the weights were trained in
    network.load_state_dict({name.removeprefix("network."): tensor for name, tensor in state.items()})
    return network.eval()


def _fit_network(run: FoldRun, module: SupervisedModule, data: WindowDataModule) -> None:
    """Trains until the end, and notes that it was reached.

    Why the note: the last checkpoint does not hold that training was stopped early, so a run that is killed before its
    fold is finished would train on when it is resumed.

    Raises:
        ConfigError: If the memory of the device does not suffice.
    """
    from mersuite.training.callbacks import ReportEpoch
    from mersuite.training.trainer import LAST, build_trainer

    seed = seed_of(run.config.seed, run.evaluation, run.fold.index)
    run.folder.mkdir(parents=True, exist_ok=True)
    monitor = f"val/{run.track.monitor}"
    callbacks: list[Callback] = [ReportEpoch(monitor, run.report)] if run.report else []
    callbacks += [run.progress.callback(monitor)] if run.progress else []
    trainer = build_trainer(
        run.config, run.folder, seed=seed, monitor=monitor, mode=run.track.monitor_mode, extra_callbacks=callbacks
    )
    last = run.folder / LAST
    try:
        trainer.fit(module, datamodule=data, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    except torch.OutOfMemoryError as error:
        size = run.config.trainer.batch_size
        raise ConfigError(
            f"trainer.batch_size: {run.evaluation} with batches of {size} does not fit into the memory of the device; "
            f"lower it to {max(1, size // 2)} or less in another run.dir (trainer.accumulate=2 then takes steps of as "
            "many rows), or use runtime.accelerator=cpu"
        ) from error
    write_json(run.folder / TRAINED, {"epochs": trainer.current_epoch, "steps": trainer.global_step})


def finished_fold(run: FoldRun) -> Checkpoint | None:
    """Gives the checkpoint of a fold that is already finished, else None.

    Raises:
        ConfigError: If it is a fold of other data.
    """
    path = run.folder / BEST
    if not path.is_file():
        return None
    claim_fold(run)
    return load_checkpoint(path)


def claim_fold(run: FoldRun) -> None:
    """Notes rows, targets and signals of the fold in its folder, or makes sure that they are those noted there.

    Raises:
        ConfigError: If they differ.
    """
    sides = {side: run.rows(getattr(run.fold, side)) for side in ("train", "val", "held_out")}
    if unlabelled := run.unlabelled_rows():
        sides["unlabelled"] = unlabelled
    clip_ids = {sample.clip_id for samples in sides.values() for sample in samples}
    digests = {f"{side} rows or labels": samples_digest(samples) for side, samples in sides.items()}
    claim_folder(run.folder, {**digests, "signals": run.reader.signature(clip_ids)})
