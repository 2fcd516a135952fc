"""Finds encoders, fusions and extractors by the name of the file that defines them."""

from __future__ import annotations

import ast
import importlib
import inspect
from functools import cache
from pathlib import Path
from typing import Any

from mersuite.errors import ConfigError, did_you_mean

_KINDS = {
    "encoder": ("mersuite.models.encoders", "mersuite.models.base", "Encoder"),
    "fusion": ("mersuite.models.fusion", "mersuite.models.base", "Fusion"),
    "extractor": ("mersuite.features", "mersuite.features.base", "Extractor"),
}


@cache
def names(kind: str) -> tuple[str, ...]:
    """Gives the names of all parts of a kind, sorted: files with a class derived from the kind's base. Imports none."""
    package, _, base_name = _KINDS[kind]
    folders = importlib.import_module(package).__path__
    files = [path for folder in folders for path in Path(folder).glob("*.py")]
    return tuple(sorted(path.stem for path in files if path.stem != "base" and _defines(path, base_name)))


def _defines(path: Path, base_name: str) -> bool:
    """Whether a file has a class that names the base among its own; a source file is read, not run."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    bases = [ast.unparse(base) for node in tree.body if isinstance(node, ast.ClassDef) for base in node.bases]
    return any(base.partition("[")[0].rpartition(".")[2].endswith(base_name) for base in bases)


@cache
def find(kind: str, name: str) -> type[Any]:
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
        if inspect.isclass(item)
        and issubclass(item, base)
        and item.__module__ == module.__name__
        and not inspect.isabstract(item)
    ]
    if len(found) != 1:
        raise ConfigError(f"{module.__name__} must define exactly one {base_name}, found {len(found)}")
    return found[0]
