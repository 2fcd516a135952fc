"""Finds tracks: each folder of the `tracks` package that lies beside mersuite is one."""

from __future__ import annotations

import ast
import importlib
import importlib.util
from functools import cache
from pathlib import Path

from mersuite.errors import ConfigError, did_you_mean
from mersuite.track import Track

TRACKS_DIR = Path(__file__).resolve().parent.parent / "tracks"


@cache
def tracks() -> dict[str, str]:
    """Gives track names and their one-line descriptions, read with `ast`; nothing is imported."""
    found = {}
    for path in sorted(TRACKS_DIR.glob("*/__init__.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        if text:
            found[path.parent.name] = text.splitlines()[0]
    return found


def folder(name: str) -> Path:
    """The folder of a track, with its config.yaml, sweep.yaml and README.md."""
    return TRACKS_DIR / name


@cache
def load(name: str) -> Track:
    """Imports a track and gives it.

    Raises:
        ConfigError: If there is no such track, or another package named `tracks` stands in the way.
    """
    if name not in tracks():
        raise ConfigError(f"track: there is no track {name!r}; {did_you_mean(name, tracks())}")
    found = _found_tracks()
    if found != TRACKS_DIR.resolve():
        raise ConfigError(
            f"something else named `tracks` hides the tracks of mersuite: Python finds {found}, expected {TRACKS_DIR}; "
            "start mersuite from another working directory, or rename it"
        )
    return importlib.import_module(f"tracks.{name}").Track()


def _found_tracks() -> Path | None:
    spec = importlib.util.find_spec("tracks")
    if spec is None:
        return None
    places = list(spec.submodule_search_locations or ())
    return Path(places[0] if places else spec.origin or "").resolve()
