"""The search space of a sweep: which configuration keys are searched, and where."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mersuite.config import RunConfig, read_yaml, with_overrides
from mersuite.errors import ConfigError
from mersuite.schema import Faults, build_dataclass, require, require_all

if TYPE_CHECKING:
    import optuna

_FIXED = {
    "features": "the store is read as it was prepared",
    "seed": "folds go by it",
    "cv": "every trial of a study has the same folds",
    "fold_overrides": "a sweep writes them",
    "evaluate": "it changes no number",
    "run": "it changes no number",
    "runtime": "it changes no number",
    "store": "it changes no number",
    "sweep": "it changes no number",
    "track": "a sweep is of one track",
    "data.root": "every trial of a study has the same data",
    "data.manifest": "every trial of a study has the same data",
}
"""Keys, or sections, that are no hyper-parameters, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One searched key.

    Attributes:
        type: float, int or categorical.
        low: Lowest value, for numbers.
        high: Highest value, for numbers.
        log: Search on a logarithmic scale.
        step: Step between values; null for none.
        choices: Values, for categorical.
    """

    type: Literal["float", "int", "categorical"]
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    choices: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        if self.type == "categorical":
            odd = [item for item in self.choices if not isinstance(item, (bool, int, float, str, type(None)))]
            require_all(
                (len(self.choices) > 0, "choices: a categorical key needs at least one value"),
                (not odd, f"choices: need numbers, texts, true, false or null, got {odd[:1]}"),
                (self.low is None and self.high is None, "low, high: a categorical key has choices only"),
            )
            return
        ordered = self.low is not None and self.high is not None and self.low <= self.high
        require_all(
            (ordered, f"low, high: need low <= high, got {self.low} and {self.high}"),
            (not self.choices, f"choices: only a categorical key has them, got type {self.type}"),
            (not self.log or (self.low or 0.0) > 0, f"log: need low above 0, got {self.low}"),
            (not self.log or self.step is None, f"step: need null with log, got {self.step}"),
            (self.step is None or self.step > 0, f"step: need a step above 0, got {self.step}"),
        )
        values = (self.low, self.high, self.step)
        whole = all(item is None or float(item).is_integer() for item in values)
        require(self.type == "float" or whole, f"low, high, step: need whole numbers for type int, got {values}")

    def ends(self) -> tuple[Any, ...]:
        """Gives the values that show whether the whole range fits: every choice, or both ends."""
        if self.type == "categorical":
            return self.choices
        ends = (self.low or 0.0, self.high or 0.0)
        return tuple(map(int, ends)) if self.type == "int" else ends

    def suggest(self, trial: optuna.Trial, key: str) -> Any:
        """Draws a value for a trial."""
        if self.type == "categorical":
            return trial.suggest_categorical(key, list(self.choices))
        low, high = float(self.low or 0.0), float(self.high or 0.0)
        if self.type == "int":
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(key, int(low), int(high), log=self.log, step=step)
        return trial.suggest_float(key, low, high, log=self.log, step=self.step)


def read_space(path: Path, config: RunConfig, taken: Collection[str] = ()) -> dict[str, Dimension]:
    """Reads a search space: dotted configuration key to its range.

    Args:
        path: YAML file.
        config: What the keys and both ends of every range must fit.
        taken: Keys that the searched system itself sets.

    Raises:
        ConfigError: If the file is missing or empty, or with every range and key that does not fit the configuration.
    """
    if not path.is_file():
        raise ConfigError(f"sweep.space: {path} does not exist")
    values = read_yaml(path)
    if not values:
        raise ConfigError(f"sweep.space: {path} names no key to search")
    faults = Faults()
    space: dict[str, Dimension] = {}
    for key, item in values.items():
        dimension = build_dataclass(Dimension, item, key, faults)
        if dimension is None:
            continue
        reason = _why_fixed(key, taken)
        if reason:
            faults.add(key, f"cannot be searched: {reason}")
        else:
            space[key] = dimension
            _try_ends(config, key, dimension, faults)
    try:
        faults.raise_if_any()
    except ConfigError as error:
        raise ConfigError(f"sweep.space: {path}: {error}") from error
    return space


def _why_fixed(key: str, taken: Collection[str]) -> str:
    if key in taken:
        return "the searched system sets it"
    return next((why for name, why in _FIXED.items() if key == name or key.startswith(f"{name}.")), "")


def _try_ends(config: RunConfig, key: str, dimension: Dimension, faults: Faults) -> None:
    for value in dimension.ends():
        try:
            with_overrides(config, {key: value})
        except ConfigError as error:
            faults.add("", f"{error} (searched value {value!r})")
            return
