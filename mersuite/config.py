"""The configuration of a run: its dataclasses are the schema, YAML files and `key=value` hold values only.

Layers, later wins: dataclass defaults, configs/base.yaml, tracks/<track>/config.yaml, each `config=<file>`,
`key=value`. What data can tell (channels, classes, widths) is never in here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from mersuite.errors import ConfigError, did_you_mean
from mersuite.schema import Faults, Named, _build_dataclass, build, named, plain, require

PACKAGE_DIR = Path(__file__).resolve().parent


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """What is read.

    Attributes:
        root: Folder in the organisers' layout.
        manifest: A manifest csv of own recordings, instead of root.
        window_s: Length of the stretches that the network sees, in seconds; null for whole clips.
            Why fixed: trial length, padding and absolute time tell which clip it is.
        stride_s: Step between windows, in seconds; overlapping answers are averaged.
        jitter: Draw window starts anew in each training epoch.
    """

    root: Path | None = None
    manifest: Path | None = None
    window_s: float | None = None
    stride_s: float | None = None
    jitter: bool = True

    def __post_init__(self) -> None:
        require(self.window_s is None or self.window_s > 0, f"window_s: need a length above 0 s, got {self.window_s}")
        require(self.stride_s is None or self.stride_s > 0, f"stride_s: need a step above 0 s, got {self.stride_s}")
        require(self.root is None or self.manifest is None, "give either data.root or data.manifest, not both")

    @property
    def place(self) -> Path:
        """The folder or file that is read.

        Raises:
            ConfigError: If neither is configured or it does not exist.
        """
        place = self.root or self.manifest
        if place is None:
            raise ConfigError("data.root: no data given; add data.root=DIR (organisers' layout) or data.manifest=FILE.csv")
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
    from mersuite.schema import build_named

    result = build_named("fusion", "concat", "model.fusion")
    assert result is not None  # noqa: S101  build_named raises when it cannot build
    return result


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
        require(self.lr > 0, f"lr: need a rate above 0, got {self.lr}")
        require(self.weight_decay >= 0, f"weight_decay: need 0 or more, got {self.weight_decay}")
        require(0 <= self.warmup_fraction < 1, f"warmup_fraction: need 0 <= share < 1, got {self.warmup_fraction}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainerConfig:
    """How long and how a network trains.

    Attributes:
        max_epochs: Upper bound of epochs.
        patience: Epochs without a better validation metric before stopping; null never stops early.
        batch_size: Rows a step and process.
        accumulate: Batches whose gradients are added before a step.
        gradient_clip: Largest gradient norm; null does not clip.
        ema_decay: Decay of the exponential moving average of the weights that is validated and kept; null keeps raw weights.
        precision: Lightning's name of a precision, such as 32-true or bf16-mixed.
        max_steps: Upper bound of optimiser steps; -1 for none.
    """

    max_epochs: int = 20
    patience: int | None = 8
    batch_size: int = 32
    accumulate: int = 1
    gradient_clip: float | None = 1.0
    ema_decay: float | None = None
    precision: str = "32-true"
    max_steps: int = -1

    def __post_init__(self) -> None:
        for key in ("max_epochs", "batch_size", "accumulate"):
            require(getattr(self, key) >= 1, f"{key}: need 1 or more, got {getattr(self, key)}")
        decay = self.ema_decay
        require(decay is None or 0 < decay < 1, f"ema_decay: need 0 < decay < 1 or null, got {decay}")
        require(self.patience is None or self.patience >= 1, f"patience: need 1 or more or null, got {self.patience}")


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
        require(self.folds >= 2, f"folds: need 2 or more, got {self.folds}")
        require(0 < self.val_fraction < 1, f"val_fraction: need 0 < share < 1, got {self.val_fraction}")
        require(len(self.by) > 0, "by: need at least one group, such as subject")


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
        accelerator: Lightning's accelerator: auto, cpu, gpu.
        devices: Devices (or CPU processes) a node.
        num_nodes: Machines.
        strategy: Lightning's strategy: auto, ddp, fsdp, deepspeed.
        progress: Show progress bars.
        threads: Threads of PyTorch in each process; null leaves its default.
    """

    num_workers: int = 0
    prepare_workers: int = 0
    accelerator: str = "auto"
    devices: int = 1
    num_nodes: int = 1
    strategy: str = "auto"
    progress: bool = True
    threads: int | None = None


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
        timeout_s: Stop after this many seconds.
    """

    num_trials: int = 20
    storage: str | None = None
    study: str | None = None
    space: Path | None = None
    prune: bool = True
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """Everything that decides the numbers of a run, and where they go.

    Attributes:
        track: Name of the track.
        options: The track's own Config; in YAML and on the command line its key is the track's name.
        seed: Seeds weights, shuffling, folds and bootstrap.
        features: Extractors that `prepare` runs, by a free name.
        evaluate: Names of the evaluations to run; () runs all that the track offers.
        fold_overrides: Index of an outer fold to dotted keys and values for it alone, as `mersuite sweep` writes them.
            They hold for evaluations that are split like cv.by, whose folds they were chosen in.
    """

    track: str
    options: Any
    seed: int = 0
    data: DataConfig = field(default_factory=DataConfig)
    store: StoreConfig = field(default_factory=StoreConfig)
    features: Mapping[str, Named] = named("extractor", default_factory=dict)
    model: ModelConfig = field(default_factory=ModelConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    cv: CvConfig = field(default_factory=CvConfig)
    run: RunSection = field(default_factory=RunSection)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    evaluate: tuple[str, ...] = ()
    fold_overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def store_path(self) -> Path:
        """Folder of the feature store."""
        return self.store.path or self.data.place.parent / "store"


def build_run_config(values: Mapping[str, Any], track_name: str, options_class: type) -> RunConfig:
    """Builds the typed configuration from merged layers.

    Args:
        values: Nested mapping; the track's own options stand under the key of its name.
        track_name: The active track.
        options_class: Its Config dataclass.

    Raises:
        ConfigError: With all faults at once.
    """
    faults = Faults()
    values = dict(values)
    options = _build_dataclass(options_class, values.pop(track_name, {}) or {}, track_name, faults)
    known = [item.name for item in fields(RunConfig) if item.name != "options"]
    for key in list(values):
        if key not in known:
            faults.add(str(key), f"unknown key; {did_you_mean(str(key), [*known, track_name])}")
            values.pop(key)
    config = _build_dataclass(RunConfig, {**values, "track": track_name, "options": options}, "", faults)
    faults.raise_if_any()
    return config


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Gives the configuration as nested mappings, from which build_run_config makes it again."""
    values = plain(config)
    options = values.pop("options")
    return {"track": config.track, config.track: options, **{key: item for key, item in values.items() if key != "track"}}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merges nested mappings, the second one wins. A part that changes its `name` brings none of the old one's knobs.

    >>> merge({"fusion": {"name": "concat", "width": 8}}, {"fusion": {"name": "gated"}})
    {'fusion': {'name': 'gated'}}
    >>> merge({"optim": {"lr": 0.1, "name": "sgd"}}, {"optim": {"lr": 0.2}})
    {'optim': {'lr': 0.2, 'name': 'sgd'}}
    >>> merge({"fusion": {"name": "concat", "width": 8}}, {"fusion": "gated"})
    {'fusion': 'gated'}
    """
    result = dict(base)
    for key, item in over.items():
        old = result.get(key)
        if isinstance(old, str) and isinstance(item, Mapping) and "name" not in item:
            old = {"name": old}
        other_part = isinstance(old, Mapping) and isinstance(item, Mapping) and item.get("name", old.get("name")) != old.get("name")
        if isinstance(old, Mapping) and isinstance(item, Mapping) and not other_part:
            result[key] = merge(old, item)
        else:
            result[key] = item
    return result


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file of values, with OmegaConf's interpolation.

    Raises:
        ConfigError: If it is not a YAML mapping.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        loaded = OmegaConf.load(path)
        values = OmegaConf.to_container(loaded, resolve=True)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a valid configuration file: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: need a mapping of keys to values, got {type(values).__name__}")
    return {str(key): item for key, item in values.items()}


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Turns `key=value` words into a nested mapping; values follow YAML's grammar.

    >>> parse_overrides(["cv.folds=3", "cv.by=subject,clip", "ps.prior=off"])
    {'cv': {'folds': 3, 'by': 'subject,clip'}, 'ps': {'prior': False}}

    Raises:
        ConfigError: If a word has no `=` or its value is not valid.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    result: dict[str, Any] = {}
    for word in overrides:
        if "=" not in word or word.startswith("="):
            raise ConfigError(f"{word!r}: need key=value")
        try:
            values = OmegaConf.to_container(OmegaConf.from_dotlist([word]), resolve=True)
        except (YAMLError, OmegaConfBaseException) as error:
            raise ConfigError(f"{word!r}: {' '.join(str(error).split())}") from error
        result = merge(result, values)  # type: ignore[arg-type]
    return result


def shipped_configs() -> Path:
    """The folder of the configuration files that come with the package."""
    packaged = PACKAGE_DIR / "_configs"
    return packaged if packaged.is_dir() else PACKAGE_DIR.parent / "configs"


def find_config_file(name: str, track_folder: Path) -> Path:
    """Finds a `config=` file: as given, then among the shipped ones, then in the track's folder.

    Raises:
        ConfigError: If it is nowhere.
    """
    for place in (Path(), shipped_configs(), track_folder):
        for path in (place / name, place / f"{name}.yaml"):
            if path.is_file():
                return path
    shipped = [str(path.relative_to(shipped_configs())) for path in sorted(shipped_configs().rglob("*.yaml"))]
    raise ConfigError(f"config={name}: no such file here or among the shipped ones; {did_you_mean(name, shipped)}")


def load_run_config(
    track_name: str,
    options_class: type,
    track_folder: Path,
    *,
    files: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Merges all layers and builds the typed configuration.

    Raises:
        ConfigError: If a file is missing or any key or value does not fit.
    """
    layers = [shipped_configs() / "base.yaml", track_folder / "config.yaml"]
    layers += [find_config_file(name, track_folder) for name in files]
    values: dict[str, Any] = {}
    for path in layers:
        if path.is_file():
            values = merge(values, read_yaml(path))
    values = merge(values, overrides or {})
    named_track = values.pop("track", track_name)
    if named_track != track_name:
        raise ConfigError(f"track: the files are for track {named_track!r}, but track={track_name} was asked for")
    return build_run_config(values, track_name, options_class)


def with_overrides(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """Gives the configuration with dotted keys changed, such as {"ps.system": "signal"}; every check runs again."""
    nested: dict[str, Any] = {}
    for key, item in overrides.items():
        parts = key.split(".")
        for part in reversed(parts[1:]):
            item = {part: item}
        nested = merge(nested, {parts[0]: item})
    values = merge(to_plain(config), nested)
    values.pop("track")
    return build_run_config(values, config.track, type(config.options))


def with_paths(config: RunConfig, *, data: DataConfig | None = None, store: StoreConfig | None = None) -> RunConfig:
    """Gives a checkpoint's configuration with the places of another machine."""
    places = replace(config.data, root=data.root, manifest=data.manifest) if data else config.data
    return replace(config, data=places, store=store or config.store)


__all__ = [
    "CvConfig",
    "DataConfig",
    "ModelConfig",
    "OptimConfig",
    "RunConfig",
    "RunSection",
    "RuntimeConfig",
    "StoreConfig",
    "SweepConfig",
    "TrainerConfig",
    "build",
    "build_run_config",
    "find_config_file",
    "load_run_config",
    "merge",
    "parse_overrides",
    "read_yaml",
    "shipped_configs",
    "to_plain",
    "with_overrides",
    "with_paths",
]
