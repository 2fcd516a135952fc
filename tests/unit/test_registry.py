from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mersuite import registry
from mersuite.errors import ConfigError
from mersuite.track import Track


@pytest.fixture
def own_tracks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A `tracks` folder with one track, a folder without a description, and one that cannot be imported."""
    folder = tmp_path / "tracks"
    for name, text in {
        "toy": '"""Toys, sorted.\n\nMore."""',
        "bare": "x = 1",
        "broken": '"""Breaks."""\n1 / 0',
    }.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(text)
    monkeypatch.setattr(registry, "TRACKS_DIR", folder)
    registry.tracks.cache_clear()
    registry.load.cache_clear()
    yield folder
    registry.tracks.cache_clear()
    registry.load.cache_clear()


def test_tracks_are_folders_with_a_description_and_none_is_imported(own_tracks: Path):
    assert registry.tracks() == {"broken": "Breaks.", "toy": "Toys, sorted."}
    assert registry.folder("toy") == own_tracks / "toy"


def test_ps_is_a_track():
    track = registry.load("ps")
    assert isinstance(track, Track) and track.name == "ps"
    assert registry.load("ps") is track


def test_unknown_track_is_refused_with_the_nearest_name():
    with pytest.raises(ConfigError, match=r"track: there is no track 'pss'; did you mean 'ps'\?"):
        registry.load("pss")


def test_another_package_named_tracks_is_told_of(own_tracks: Path):
    with pytest.raises(ConfigError, match="something else named `tracks` hides the tracks of mersuite: Python finds"):
        registry.load("toy")


@pytest.mark.parametrize("place", ["tracks/__init__.py", "tracks.py"])
def test_stray_tracks_in_the_working_directory_is_named(tmp_path: Path, place: str):
    stray = tmp_path / place
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("")
    root = Path(registry.__file__).resolve().parent.parent
    code = f"import sys; sys.path[:0] = ['', {str(root)!r}]; from mersuite.cli import main; main()"
    command = [sys.executable, "-c", code, "config", "track=ps"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found = stray if place.endswith("tracks.py") else stray.parent
    assert done.returncode == 2 and done.stdout == ""
    assert f"Python finds {found}, expected" in done.stderr and "Traceback" not in done.stderr


def test_missing_tracks_package_is_told_of(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    registry.load.cache_clear()
    with pytest.raises(
        ConfigError, match=r"Python finds None, expected .*start mersuite from another working directory"
    ):
        registry.load("ps")
