"""The sections of a run's configuration that every track shares; each dataclass is the schema of one YAML section."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from mersuite.errors import ConfigError
from mersuite.schema import Named, named, require, require_all


def _at_least(section: Any, least: int, *keys: str) -> list[tuple[bool, str]]:
    return [
        (getattr(section, key) >= least, f"{key}: need {least} or more, got {getattr(section, key)}") for key in keys
    ]


DATA_PLACES = ("root", "manifest", "features", "faces", "groups")
"""Keys of DataConfig that say where things lie: they decide no number by themselves and differ between machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What is read.

    Attributes:
        root: Folder in the organisers' layout.
        manifest: A manifest csv of own recordings, instead of root.
        features: Folder of pre-extracted features, <folder>/<name>.npy below it; null means features/ in root.
        faces: Folder that holds face_speaker/ and face_listener/, as `mersuite faces` writes them; null means root.
        groups: A csv with a column name and one column for each further group of a training clip, such as dialogue.
            Why: the organisers' files do not say which clips belong together, and splits may go by it.
        skip_missing: Leave out training clips that have no file at all instead of refusing the data.
        window_s: Length of the stretches that the network sees, in seconds; null for whole clips.
            Why fixed: trial length, padding and absolute time tell which clip it is.
        stride_s: Step between windows, in seconds; overlapping answers are averaged.
        jitter: Draw window starts anew in each training epoch.
    """

    root: Path | None = None
    manifest: Path | None = None
    features: Path | None = None
    faces: Path | None = None
    groups: Path | None = None
    skip_missing: bool = False
    window_s: float | None = None
    stride_s: float | None = None
    jitter: bool = True

    def __post_init__(self) -> None:
        require_all(
            (self.window_s is None or self.window_s > 0, f"window_s: need a length above 0 s, got {self.window_s}"),
            (self.stride_s is None or self.stride_s > 0, f"stride_s: need a step above 0 s, got {self.stride_s}"),
            (self.root is None or self.manifest is None, "give either data.root or data.manifest, not both"),
        )

    @property
    def place(self) -> Path:
        """The folder or file that is read.

        Raises:
            ConfigError: If neither is configured or it does not exist.
        """
        place = self.root or self.manifest
        if place is None:
            raise ConfigError(
                "data.root: no data given; add data.root=DIR (organisers' layout) or data.manifest=FILE.csv"
            )
        if not place.exists():
            key = "data.root" if self.root else "data.manifest"
            raise ConfigError(f"{key}: {place} does not exist")
        return place


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """Where prepared features are kept.

    Attributes:
        path: Folder of the store; null means `store/` beside the data.
    """

    path: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """The shared backbone.

    Attributes:
        encoders: Stream name to its encoder. Streams not named here are not read.
        fusion: How encoded streams are joined.
        modality_dropout: Chance that a stream is hidden from a training sample; one stream always stays.
        pretrained: Encoder weights from `fit pretrain=true` or a safetensors file.
        freeze_encoders: Keep pretrained encoders as they are.
    """

    encoders: Mapping[str, Named] = named("encoder", default_factory=dict)
    fusion: Named = named("fusion", default_factory=lambda: _default_fusion())
    modality_dropout: float = 0.0
    pretrained: Path | None = None
    freeze_encoders: bool = False

    def __post_init__(self) -> None:
        rate = self.modality_dropout
        require(0.0 <= rate < 1.0, f"modality_dropout: need 0 <= rate < 1, got {rate}")


def _default_fusion() -> Named:
    from mersuite import catalog

    return Named(name="concat", config=catalog.find("fusion", "concat").Config())


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Self-supervised pretraining of the encoders: what is hidden and rebuilt (masked reconstruction).

    Attributes:
        split: Whose recordings are used: train, test or all. Why train: with the others, scores on the test people
            become transductive. People named in cv.held_out are left out either way.
        time_rate: Share of the time of a stream that is hidden.
        signal_span_s: Length of a hidden stretch of a recording. Why 0.1: shorter than a token, so that what is around
            it can tell it.
        feature_span_s: Length of a hidden stretch of features.
        channel_rate: Share of channels hidden over the whole window, to be told from the others.
        hidden: Width of the decoder, which is thrown away afterwards.
        num_sources: Waveforms that the decoder mixes into the channels of a recording.
        reach: Tokens that the decoder sees at once, an odd number.
    """

    split: Literal["train", "test", "all"] = "train"
    time_rate: float = 0.4
    signal_span_s: float = 0.1
    feature_span_s: float = 2.0
    channel_rate: float = 0.25
    hidden: int = 64
    num_sources: int = 8
    reach: int = 5

    def __post_init__(self) -> None:
        rates = (self.time_rate, self.channel_rate)
        spans = (self.signal_span_s, self.feature_span_s)
        require_all(
            *_at_least(self, 1, "hidden", "num_sources"),
            (
                all(0.0 <= rate < 1.0 for rate in rates) and sum(rates) > 0.0,
                f"need 0 <= time_rate, channel_rate < 1 and not both 0, got {rates}",
            ),
            (min(spans) > 0, f"need signal_span_s and feature_span_s above 0 s, got {spans}"),
            (self.reach >= 1 and self.reach % 2 == 1, f"reach: need an odd number of tokens, got {self.reach}"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimConfig:
    """Optimiser and learning-rate schedule.

    Attributes:
        name: adamw, adam or sgd.
        lr: Peak learning rate.
        weight_decay: Not applied to biases, norms and other one-dimensional parameters.
        schedule: constant, cosine (to a hundredth) or linear (to zero), over all steps of the run.
        warmup_fraction: Share of all steps with linear warm-up.
    """

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-2
    schedule: Literal["constant", "cosine", "linear"] = "cosine"
    warmup_fraction: float = 0.05

    def __post_init__(self) -> None:
        share = self.warmup_fraction
        require_all(
            (0 < self.lr < math.inf, f"lr: need a rate above 0, got {self.lr}"),
            (0 <= self.weight_decay < math.inf, f"weight_decay: need 0 or more, got {self.weight_decay}"),
            (0 <= share < 1, f"warmup_fraction: need 0 <= share < 1, got {share}"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """How long and how a network trains.

    Attributes:
        max_epochs: Upper bound of epochs.
        patience: Epochs without a better validation metric before stopping; null never stops early.
        batch_size: Rows a step and process.
        accumulate: Batches whose gradients are added before a step.
        gradient_clip: Largest gradient norm; null does not clip.
        ema_decay: Decay of the exponential moving average of the weights that is validated and kept; null keeps the raw
            weights.
        precision: Lightning's name of a precision, such as 32-true or bf16-mixed.
        max_steps: Upper bound of optimiser steps; -1 for none.
    """

    max_epochs: int = 20
    patience: int | None = 8
    batch_size: int = 32
    accumulate: int = 1
    gradient_clip: float | None = 1.0
    ema_decay: float | None = None
    precision: Literal["32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true"] = "32-true"
    max_steps: int = -1

    def __post_init__(self) -> None:
        clip, decay, patience, steps = self.gradient_clip, self.ema_decay, self.patience, self.max_steps
        require_all(
            *_at_least(self, 1, "max_epochs", "batch_size", "accumulate"),
            (decay is None or 0 < decay < 1, f"ema_decay: need 0 < decay < 1 or null, got {decay}"),
            (patience is None or patience >= 1, f"patience: need 1 or more or null, got {patience}"),
            (clip is None or clip > 0, f"gradient_clip: need a norm above 0 or null, got {clip}"),
            (steps == -1 or steps >= 1, f"max_steps: need 1 or more, or -1 for no bound, got {steps}"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CvConfig:
    """Outer folds. Each has train, val (cut from the training groups) and held-out rows, which are scored once.

    Attributes:
        by: Groups that held-out rows differ in from all training rows: `subject`, `clip`, or `subject,clip` for both.
        folds: How many.
        val_fraction: Share of the training groups kept for early stopping and every other choice.
        held_out: Names of the groups of one single fixed split, instead of folds.
    """

    by: tuple[str, ...] = ("clip",)
    folds: int = 5
    val_fraction: float = 0.2
    held_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require_all(
            (self.folds >= 2, f"folds: need 2 or more, got {self.folds}"),
            (0 < self.val_fraction < 1, f"val_fraction: need 0 < share < 1, got {self.val_fraction}"),
            (len(self.by) > 0, "by: need at least one group, such as subject"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnValue:
    """One hyper-parameter that each draw gives a value of its own.

    Attributes:
        keys: Configuration keys that take the value; `*` stands for every entry, as in model.encoders.*.hidden.
        choices: Values, drawn evenly; or
        low: Lowest value of a range that is drawn from evenly.
        high: Highest value of it.
    """

    keys: tuple[str, ...]
    choices: tuple[Any, ...] = ()
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        ends = (self.low, self.high)
        is_range = self.low is not None and self.high is not None and self.low <= self.high
        require_all(
            (len(self.keys) > 0, "keys: need at least one configuration key"),
            (
                is_range if not self.choices else ends == (None, None),
                f"need choices, or low <= high, got choices={list(self.choices)}, low={self.low}, high={self.high}",
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawsConfig:
    """Random draws of hyper-parameters, for evaluations that follow a protocol which chooses among them.

    Attributes:
        num_draws: Draws, each trained on all folds.
        num_best: Of how many of them, the best ones, mean and deviation are reported.
        space: Free name to what is drawn; {} trains every draw as configured, with seeds of its own.
    """

    num_draws: int = 1
    num_best: int = 10
    space: Mapping[str, DrawnValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require_all(*_at_least(self, 1, "num_draws", "num_best"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSection:
    """Where a run is kept.

    Attributes:
        dir: The run folder.
        resume: Go on with what is in it; without, a folder that holds a run is refused.
    """

    dir: Path | None = None
    resume: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeConfig:
    """What changes speed but no number; outside every fingerprint.

    Attributes:
        num_workers: Processes that load batches; 0 loads in the main process.
        prepare_workers: Processes that extract features; 0 means one for each core.
        accelerator: Lightning's accelerator: auto, cpu, gpu, ...
        devices: Devices (or CPU processes) a node.
        num_nodes: Machines.
        strategy: Lightning's strategy: auto, ddp, fsdp, deepspeed.
        progress: Show progress bars.
        threads: Threads of PyTorch in each process; null leaves its default.
        max_models: Networks that are trained together as one where they can be, but at least all folds of one draw;
            null means 25 on a CPU and 250 on a GPU. Lower it where memory does not suffice.
    """

    num_workers: int = 0
    prepare_workers: int = 0
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps", "tpu"] = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    progress: bool = True
    threads: int | None = None
    max_models: int | None = None

    def __post_init__(self) -> None:
        threads, most = self.threads, self.max_models
        require_all(
            *_at_least(self, 0, "num_workers", "prepare_workers"),
            *_at_least(self, 1, "devices", "num_nodes"),
            (threads is None or threads >= 1, f"threads: need 1 or more or null, got {threads}"),
            (most is None or most >= 1, f"max_models: need 1 or more or null, got {most}"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepConfig:
    """Hyper-parameter search.

    Attributes:
        num_trials: Trials of the whole study, those already in the storage counted in.
        storage: Optuna storage URL (sqlite:///file.db, postgresql://...) or a path that ends in .log for a journal
            file; null means sweep.db in run.dir.
        study: Name of the study inside the storage.
        space: YAML file of the search space; null means tracks/<track>/sweep.yaml.
        prune: Stop trials that fall behind.
        timeout_s: Stop the search of each outer fold after this many seconds; a trial that runs is finished first.
    """

    num_trials: int = 20
    storage: str | None = None
    study: str | None = None
    space: Path | None = None
    prune: bool = True
    timeout_s: float | None = None

    def __post_init__(self) -> None:
        limit = self.timeout_s
        require_all(
            *_at_least(self, 1, "num_trials"),
            (limit is None or limit > 0, f"timeout_s: need a time above 0 s or null, got {limit}"),
        )
