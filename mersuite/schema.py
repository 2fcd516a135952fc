"""Plain mappings to typed dataclasses: the one place where configuration values are checked.

Uses the standard library only, because a code submission rebuilds its configuration with it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from mersuite.errors import ConfigError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A part chosen by name with its own typed knobs: `{name: eegnet, num_filters: 8}` in YAML.

    Attributes:
        name: File name of the part.
        config: An instance of the part's Config.
    """

    name: str
    config: Any


def named(kind: str, **field_options: Any) -> Any:
    """Declares a dataclass field of type Named (or Mapping[str, Named]) whose parts come from one catalog kind."""
    return dataclasses.field(metadata={"kind": kind}, **field_options)


@dataclass(slots=True)
class Faults:
    """Collects every fault of a configuration, so that a user sees all of them at once."""

    lines: list[str] = dataclasses.field(default_factory=list)

    def add(self, key: str, message: str) -> None:
        """Notes one fault at a dotted key."""
        self.lines.append(f"{key}: {message}" if key else message)

    def raise_if_any(self) -> None:
        """Raises ConfigError with all faults, one a line."""
        if self.lines:
            head = "" if len(self.lines) == 1 else f"{len(self.lines)} faults in the configuration:\n  "
            raise ConfigError(head + "\n  ".join(self.lines))


def build(cls: type, values: Mapping[str, Any] | None, *, where: str = "") -> Any:
    """Builds a dataclass from a plain mapping, checking every key and value.

    Args:
        cls: The dataclass; its annotations are the schema.
        values: Nested mapping, as YAML gives it. None means all defaults.
        where: Dotted key of the mapping, for messages.

    Raises:
        ConfigError: With every unknown key, missing key and wrong value at once.
    """
    faults = Faults()
    result = build_dataclass(cls, {} if values is None else values, where, faults)
    faults.raise_if_any()
    return result


def plain(value: Any) -> Any:
    """Turns a dataclass, and all within it, into mappings, lists and scalars that `build` and YAML understand."""
    if isinstance(value, Named):
        return {"name": value.name, **plain(value.config)}
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def part_places(cls: type) -> frozenset[tuple[str, ...]]:
    """Gives the keys below which a dataclass holds named parts, a tuple a place; "*" stands for any key.

    A field that `named` declares is a place itself, or each of its entries where it is a mapping.
    """
    hints = typing.get_type_hints(cls)
    found: set[tuple[str, ...]] = set()
    for item in fields(cls):
        hint = hints[item.name]
        if "kind" in item.metadata:
            origin = get_origin(hint)
            many = isinstance(origin, type) and issubclass(origin, Mapping)
            found.add((item.name, "*") if many else (item.name,))
        elif isinstance(hint, type) and is_dataclass(hint):
            found |= {(item.name, *place) for place in part_places(hint)}
    return frozenset(found)


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key


def build_dataclass(cls: type, values: Any, where: str, faults: Faults) -> Any:
    """Builds a dataclass like `build`, but notes faults instead of raising them; None where there are any.

    Args:
        cls: The dataclass.
        values: Mapping, or an instance of cls, which is given back.
        where: Dotted key of the mapping.
        faults: Where to note faults.
    """
    if isinstance(values, cls):
        return values
    if not isinstance(values, Mapping):
        faults.add(where, f"need a mapping with keys of {cls.__name__}, got {values!r}")
        return None
    hints = typing.get_type_hints(cls)
    known = {item.name: item for item in fields(cls) if item.init}
    for key in values:
        if key not in known:
            faults.add(_join(where, str(key)), f"unknown key; {did_you_mean(str(key), known)}")
    arguments: dict[str, Any] = {}
    before = len(faults.lines)
    for name, item in known.items():
        if name in values:
            arguments[name] = _convert(hints[name], values[name], _join(where, name), faults, item.metadata.get("kind"))
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            faults.add(_join(where, name), "a value is needed and none was given")
    if len(faults.lines) > before:
        return None
    try:
        return cls(**arguments)
    except ConfigError as error:
        for line in str(error).splitlines():
            key, sign, _ = line.partition(":")
            if sign and key.split(".")[0] in known:
                faults.add("", _join(where, line))  # "optim.lr: need ...", as for a value of a wrong type
            else:
                faults.add(where, line)
        return None


def build_named(kind: str, value: Any, where: str, faults: Faults | None = None) -> Named | None:
    """Builds `{name: ..., knobs}` or a bare name into a Named with the part's own Config.

    Args:
        kind: Catalog kind ("encoder", "fusion", "extractor").
        value: Mapping with a name, or the name alone.
        where: Dotted key, for messages.
        faults: Where to note faults; None raises them.

    Raises:
        ConfigError: If there is no such part or a knob does not fit, and faults is None.
    """
    from mersuite import catalog

    own = Faults() if faults is None else faults
    result = None
    mapping = {"name": value} if isinstance(value, str) else value
    if isinstance(mapping, Named):
        return mapping
    if not isinstance(mapping, Mapping) or not isinstance(mapping.get("name"), str):
        own.add(where, f"need {{name: ..., knobs}} or a name, got {value!r}; {did_you_mean('', catalog.names(kind))}")
    elif mapping["name"] not in catalog.names(kind):
        hint = did_you_mean(mapping["name"], catalog.names(kind))
        own.add(_join(where, "name"), f"there is no {kind} {mapping['name']!r}; {hint}")
    else:
        part = catalog.find(kind, mapping["name"])
        knobs = {key: item for key, item in mapping.items() if key != "name"}
        config = build_dataclass(part.Config, knobs, where, own)
        result = Named(name=mapping["name"], config=config)
    if faults is None:
        own.raise_if_any()
    return result


def _convert(hint: Any, value: Any, where: str, faults: Faults, kind: str | None = None) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return value
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value, where, faults, kind)
    if origin is Literal:
        if value in arguments and not (isinstance(value, bool) and not any(item is value for item in arguments)):
            return value
        faults.add(where, f"got {value!r}; {did_you_mean(str(value), map(str, arguments))}")
        return None
    if hint is Named:
        return build_named(kind or "", value, where, faults)
    if isinstance(hint, type) and is_dataclass(hint):
        return build_dataclass(hint, {} if value is None else value, where, faults)
    if origin in (tuple, list) or (isinstance(origin, type) and issubclass(origin, Sequence)):
        return _convert_sequence(arguments, value, where, faults, kind)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        value = {} if value is None else value
        if not isinstance(value, Mapping):
            faults.add(where, f"need a mapping, got {value!r}")
            return None
        return {
            str(key): _convert(arguments[1], item, _join(where, str(key)), faults, kind)
            for key, item in value.items()
            if item is not None or _takes_none(arguments[1])  # `model.encoders.eeg=null` takes an entry out
        }
    return _convert_scalar(hint, value, where, faults)


def _takes_none(hint: Any) -> bool:
    return hint is Any or hint is object or type(None) in get_args(hint)


def _convert_union(arguments: tuple[Any, ...], value: Any, where: str, faults: Faults, kind: str | None) -> Any:
    if value is None and type(None) in arguments:
        return None
    choices = [item for item in arguments if item is not type(None)]
    attempts = []
    for choice in choices:
        attempt = Faults()
        result = _convert(choice, value, where, attempt, kind)
        if not attempt.lines:
            return result
        attempts.append(attempt)
    if len(choices) == 1 and (choices[0] not in _WANTED or type(None) not in arguments):
        faults.lines += attempts[0].lines
    else:
        faults.add(where, f"need {' or '.join(map(_wanted, arguments))}, got {value!r}")
    return None


def _convert_sequence(arguments: tuple[Any, ...], value: Any, where: str, faults: Faults, kind: str | None) -> Any:
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    if not isinstance(value, Sequence):
        value = [value]
    fixed = len(arguments) > 1 and arguments[-1] is not Ellipsis
    if fixed and len(value) != len(arguments):
        faults.add(where, f"need {len(arguments)} values, got {len(value)}: {list(value)!r}")
        return None
    hints = arguments if fixed else (arguments[0],) * len(value)
    return tuple(
        _convert(hint, item, f"{where}[{i}]", faults, kind)
        for i, (hint, item) in enumerate(zip(hints, value, strict=True))
    )


_WANTED: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    type(None): "null",
}


def _wanted(hint: Any) -> str:
    if get_origin(hint) is Literal:
        return " or ".join(map(str, get_args(hint)))
    return _WANTED.get(hint, str(getattr(hint, "__name__", hint)))


def _convert_scalar(hint: Any, value: Any, where: str, faults: Faults) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is bool:
        if isinstance(value, bool):
            return value
    elif hint is int:
        if number and (isinstance(value, int) or value.is_integer()):
            return int(value)
        if isinstance(value, str) and value.strip().removeprefix("-").isdecimal():
            return int(value)
    elif hint is float:
        if number or isinstance(value, str):  # YAML 1.1 reads 1e-3 as a text
            with contextlib.suppress(ValueError):
                return float(value)
    elif hint is str:
        if number or isinstance(value, str):
            return str(value)
    elif hint is Path:
        if number or isinstance(value, Path) or (isinstance(value, str) and value):
            return Path(str(value)).expanduser()
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    faults.add(where, f"need {_wanted(hint)}, got {value!r}")
    return None


def require(condition: bool, message: str) -> None:
    """Raises ConfigError with the message unless the condition holds; for __post_init__ of Config classes."""
    if not condition:
        raise ConfigError(message)


def require_all(*checks: tuple[bool, str]) -> None:
    """Raises ConfigError with the messages of all conditions that do not hold, one a line; for __post_init__.

    Raises:
        ConfigError: If any condition does not hold.
    """
    wrong = [message for condition, message in checks if not condition]
    if wrong:
        raise ConfigError("\n".join(wrong))
