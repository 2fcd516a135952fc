"""Tiny pretrained models for the tests of feature extraction."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Gives the folder of a tiny model by name, as transformers writes it; tests read it and never write into it."""
    import tiny_models

    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = tiny_models.write(name, tmp_path_factory.mktemp("models"))
        return folders[name]

    return folder
