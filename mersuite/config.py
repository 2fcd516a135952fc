"""The configuration of a run: its dataclasses are the schema, YAML files and `key=value` hold values only.

Layers, later wins: dataclass defaults, configs/base.yaml, tracks/<track>/config.yaml, each `config=<file>`,
`key=value`. What data can tell (channels, classes, widths) is never in here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from mersuite.config_layers import (
    changes,
    find_config_file,
    merge,
    nest,
    parse_overrides,
    read_yaml,
    shipped_configs,
)
from mersuite.config_sections import (
    DATA_PLACES,
    CvConfig,
    DataConfig,
    DrawnValue,
    DrawsConfig,
    ModelConfig,
    OptimConfig,
    PretrainConfig,
    RunSection,
    RuntimeConfig,
    StoreConfig,
    SweepConfig,
    TrainerConfig,
)
from mersuite.errors import ConfigError, did_you_mean
from mersuite.schema import Faults, Named, build, build_dataclass, named, part_places, plain, require_all


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
    pretrain: PretrainConfig = field(default_factory=PretrainConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    cv: CvConfig = field(default_factory=CvConfig)
    draws: DrawsConfig = field(default_factory=DrawsConfig)
    run: RunSection = field(default_factory=RunSection)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    sweep: SweepConfig = field(default_factory=SweepConfig)
    evaluate: tuple[str, ...] = ()
    fold_overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wrong = [key for key in self.fold_overrides if not key.isdecimal()]
        require_all(
            (0 <= self.seed < 2**32, f"seed: need 0 to {2**32 - 1}, got {self.seed}"),
            (not wrong, f"fold_overrides: need the index of a fold, got {', '.join(map(repr, wrong))}"),
        )

    @property
    def store_path(self) -> Path:
        """Folder of the feature store: beside the data where none is configured."""
        # not resolve(): a link to shared data would put the store beside their target
        return self.store.path or Path(os.path.abspath(self.data.place)).parent / "store"  # noqa: PTH100


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
    own = values.pop(track_name, None)
    options = build_dataclass(options_class, {} if own is None else own, track_name, faults)
    known = [item.name for item in fields(RunConfig) if item.name != "options"]
    for key in list(values):
        if key not in known:
            faults.add(str(key), f"unknown key; {did_you_mean(str(key), [*known, track_name])}")
            values.pop(key)
    config = build_dataclass(RunConfig, {**values, "track": track_name, "options": options}, "", faults)
    if not faults.lines:
        _check_fold_overrides(config, faults)
    faults.raise_if_any()
    return config


def _check_fold_overrides(config: RunConfig, faults: Faults) -> None:
    """Notes overrides that would fail only when their fold's turn comes, perhaps after hours."""
    shared = replace(config, fold_overrides={})
    for fold, overrides in config.fold_overrides.items():
        try:
            with_overrides(shared, overrides)
        except ConfigError as error:
            faults.add(f"fold_overrides.{fold}", str(error))


def part_places_of(options_class: type, track_name: str) -> frozenset[tuple[str, ...]]:
    """Gives the keys below which a track's configuration holds named parts, for merging its layers."""
    own = {(track_name, *place) for place in part_places(options_class)}
    return frozenset(part_places(RunConfig) | own)


def to_plain(config: RunConfig) -> dict[str, Any]:
    """Gives the configuration as nested mappings, from which build_run_config makes it again."""
    values = plain(config)
    options = values.pop("options")
    return {
        "track": config.track,
        config.track: options,
        **{key: item for key, item in values.items() if key != "track"},
    }


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
    parts = part_places_of(options_class, track_name)
    values: dict[str, Any] = {}
    for path in layers:
        if path.is_file():
            values = merge(values, read_yaml(path), parts)
    values = merge(values, overrides or {}, parts)
    named_track = values.pop("track", track_name)
    if named_track != track_name:
        raise ConfigError(f"track: the files are for track {named_track!r}, but track={track_name} was asked for")
    return build_run_config(values, track_name, options_class)


def with_overrides(config: RunConfig, overrides: Mapping[str, Any]) -> RunConfig:
    """Gives the configuration with dotted keys changed, such as {"ps.system": "signal"}; every check runs again."""
    options_class = type(config.options)
    values = merge(to_plain(config), nest(overrides), part_places_of(options_class, config.track))
    if values.pop("track") != config.track:
        raise ConfigError(f"track: cannot be overridden; the configuration is for track {config.track!r}")
    return build_run_config(values, config.track, options_class)


def with_paths(config: RunConfig, *, data: DataConfig | None = None, store: StoreConfig | None = None) -> RunConfig:
    """Gives a checkpoint's configuration with the places of another machine."""
    places = replace(config.data, **{name: getattr(data, name) for name in DATA_PLACES}) if data else config.data
    return replace(config, data=places, store=store or config.store)


__all__ = [
    "DATA_PLACES",
    "CvConfig",
    "DataConfig",
    "DrawnValue",
    "DrawsConfig",
    "ModelConfig",
    "OptimConfig",
    "PretrainConfig",
    "RunConfig",
    "RunSection",
    "RuntimeConfig",
    "StoreConfig",
    "SweepConfig",
    "TrainerConfig",
    "build",
    "build_run_config",
    "changes",
    "find_config_file",
    "load_run_config",
    "merge",
    "parse_overrides",
    "part_places_of",
    "read_yaml",
    "shipped_configs",
    "to_plain",
    "with_overrides",
    "with_paths",
]
