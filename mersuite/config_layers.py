"""Layers of configuration: files and `key=value` words as plain mappings, and how a later one covers an earlier one."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mersuite.errors import ConfigError, did_you_mean

PACKAGE_DIR = Path(__file__).resolve().parent
Place = tuple[str, ...]

_WORDS = {
    "": None,
    "~": None,
    "null": None,
    "true": True,
    "on": True,
    "yes": True,
    "false": False,
    "off": False,
    "no": False,
}


def merge(
    base: Mapping[str, Any], over: Mapping[str, Any], parts: Collection[Place] = (), place: Place = ()
) -> dict[str, Any]:
    """Covers one layer with a later one. A part that changes its `name` brings none of the old one's knobs.

    Args:
        base: The earlier layer.
        over: The later layer, which wins.
        parts: Where named parts stand, as schema.part_places gives it. Why: other sections have a `name` too (the
            optimiser, the loss), and changing that must not drop their other values.
        place: Keys that lead to these mappings.

    >>> merge({"fusion": {"name": "concat", "width": 8}}, {"fusion": {"name": "gated"}}, {("fusion",)})
    {'fusion': {'name': 'gated'}}
    >>> merge({"fusion": {"name": "concat", "width": 8}}, {"fusion": "gated"}, {("fusion",)})
    {'fusion': {'name': 'gated'}}
    >>> merge({"optim": {"lr": 0.1, "name": "sgd"}}, {"optim": {"name": "adam"}}, {("fusion",)})
    {'optim': {'lr': 0.1, 'name': 'adam'}}
    """
    result = dict(base)
    for key, item in over.items():
        old, here = result.get(key), (*place, key)
        if _is_part(here, parts):
            old, item = _spelled_out(old), _spelled_out(item)
            if (
                isinstance(old, Mapping)
                and isinstance(item, Mapping)
                and item.get("name", old.get("name")) != old.get("name")
            ):
                old = None
        both = isinstance(old, Mapping) and isinstance(item, Mapping)
        result[key] = merge(old, item, parts, here) if both else item  # type: ignore[arg-type]
    return result


def changes(
    base: Mapping[str, Any], values: Mapping[str, Any], parts: Collection[Place] = (), place: Place = ()
) -> dict[str, Any]:
    """Gives the smallest layer that turns base into values; null takes out what only base has.

    >>> changes({"optim": {"lr": 0.1, "name": "sgd"}}, {"optim": {"lr": 0.2, "name": "sgd"}})
    {'optim': {'lr': 0.2}}
    """
    result: dict[str, Any] = {key: None for key in base if key not in values}
    for key, item in values.items():
        old, here = base.get(key), (*place, key)
        other_part = _is_part(here, parts) and _name_of(old) != _name_of(item)
        if isinstance(old, Mapping) and isinstance(item, Mapping) and not other_part:
            inner = changes(old, item, parts, here)
            if inner:
                result[key] = inner
        elif key not in base or old != item:
            result[key] = item
    return result


def _is_part(place: Place, parts: Collection[Place]) -> bool:
    return place in parts or (*place[:-1], "*") in parts


def _spelled_out(item: Any) -> Any:
    return {"name": item} if isinstance(item, str) else item


def _name_of(item: Any) -> Any:
    return item.get("name") if isinstance(item, Mapping) else item


def nest(keys: Mapping[str, Any] | Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Turns dotted keys into one nested layer, whatever their order.

    >>> nest({"model.fusion.width": 8, "model.fusion": "gated", "seed": 1})
    {'model': {'fusion': {'width': 8, 'name': 'gated'}}, 'seed': 1}

    Raises:
        ConfigError: If a key has an empty part.
    """
    result: dict[str, Any] = {}
    for key, item in keys.items() if isinstance(keys, Mapping) else keys:
        names = key.split(".")
        if not all(names):
            raise ConfigError(f"{key!r}: need names between the dots of a key, such as optim.lr")
        inner = result
        for name in names[:-1]:
            below = inner.get(name)
            if not isinstance(below, dict):
                below = {} if below is None else {"name": below}
            inner[name] = below
            inner = below
        old = inner.get(names[-1])
        if isinstance(old, dict) and isinstance(item, str):
            old["name"] = item
        elif isinstance(old, dict) and isinstance(item, Mapping):
            inner[names[-1]] = merge(old, item)
        else:
            inner[names[-1]] = copy.deepcopy(item)
    return result


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML file of values, with OmegaConf's interpolation; keys become texts.

    Raises:
        ConfigError: If it cannot be read or is not a YAML mapping.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        loaded = OmegaConf.load(path)
        values = OmegaConf.to_container(loaded, resolve=True)
    except (YAMLError, OmegaConfBaseException, OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a valid configuration file: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: need a mapping of keys to values, got {type(values).__name__}")
    return _text_keys(values)


def _text_keys(values: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): _text_keys(item) if isinstance(item, Mapping) else item for key, item in values.items()}


def parse_value(text: str) -> Any:
    """Gives the value of a `key=value` word.

    true/false (or on/off, yes/no), null (or nothing) and numbers as Python writes them are what they look like. What
    begins with a quote, [ or { is YAML, ${...} is OmegaConf's interpolation, and everything else is the text itself,
    which a field of numbers still reads. Why not YAML throughout: it would read 010 as 8, 2024_07_01 as a number,
    12:30:00 as 45000, and cut a path at " #".

    >>> [parse_value(text) for text in ("3", "0.5", "off", "null", "007", "1e-3", "a #b", "[1, a]")]
    [3, 0.5, False, None, '007', '1e-3', 'a #b', [1, 'a']]

    Raises:
        ConfigError: If a list, mapping, quoted text or interpolation is malformed.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    text = text.strip()
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for number in (int, float):
        with contextlib.suppress(ValueError):
            if str(number(text)) == text:
                return number(text)
    if text[0] not in "\"'[{" and "${" not in text:
        return text
    try:
        loaded = OmegaConf.create(f"value: {text}") if text[0] in "\"'[{" else OmegaConf.create({"value": text})
        values = OmegaConf.to_container(loaded, resolve=True)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{text!r}: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or set(values) != {"value"}:
        raise ConfigError(f"{text!r}: not one value; put a text with line breaks or brackets in quotes")
    value = values["value"]
    return _text_keys(value) if isinstance(value, Mapping) else value


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """Turns `key=value` words into one nested layer; see parse_value. Of a key given twice the last one counts.

    >>> parse_overrides(["cv.folds=3", "cv.by=subject,clip", "ps.prior=off"])
    {'cv': {'folds': 3, 'by': 'subject,clip'}, 'ps': {'prior': False}}

    Raises:
        ConfigError: If a word has no `=`, a key has an empty part, or a value is malformed.
    """
    pairs = []
    for word in overrides:
        key, sign, text = word.partition("=")
        if not sign or not key:
            raise ConfigError(f"{word!r}: need key=value")
        try:
            pairs.append((key, parse_value(text)))
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from error
    return nest(pairs)


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
