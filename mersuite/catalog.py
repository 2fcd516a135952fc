"""Finds encoders, fusions and extractors by the name of the file that defines them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache

from mersuite.errors import ConfigError, did_you_mean

_KINDS = {
    "encoder": ("mersuite.models.encoders", "mersuite.models.base", "Encoder"),
    "fusion": ("mersuite.models.fusion", "mersuite.models.base", "Fusion"),
    "extractor": ("mersuite.features", "mersuite.features.base", "Extractor"),
}


@cache
def names(kind: str) -> tuple[str, ...]:
    """Gives the names of all parts of a kind, sorted; imports none of them."""
    package = importlib.import_module(_KINDS[kind][0])
    return tuple(sorted(item.name for item in pkgutil.iter_modules(package.__path__) if item.name != "base"))


@cache
def find(kind: str, name: str) -> type:
    """Gives the class that the file `name` of a kind's folder defines.

    Raises:
        ConfigError: If there is no such file.
    """
    package, base_module, base_name = _KINDS[kind]
    if name not in names(kind):
        raise ConfigError(f"there is no {kind} {name!r}; {did_you_mean(name, names(kind))}")
    base = getattr(importlib.import_module(base_module), base_name)
    module = importlib.import_module(f"{package}.{name}")
    found = [
        item
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, base) and item.__module__ == module.__name__ and not inspect.isabstract(item)
    ]
    if len(found) != 1:
        raise ConfigError(f"{module.__name__} must define exactly one {base_name}, found {len(found)}")
    return found[0]
