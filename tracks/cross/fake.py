"""Writes small made-up clips in the layout of MER2026; what is in them: mersuite/data/fake_clips.py."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mersuite.data.fake_clips import ClipsConfig as FakeConfig
from mersuite.data.fake_clips import write_clips
from mersuite.data.fake_files import claim_folder
from mersuite.schema import plain

__all__ = ["FakeConfig", "write_fake"]


def write_fake(config: FakeConfig, out: Path) -> Mapping[str, Any]:
    """Writes clips, or what is missing of them after an interruption, and gives counts and the best possible scores.

    Raises:
        DataError: If the folder holds something else, or was made with other options.
    """
    claim_folder(out, "cross", plain(config))
    return write_clips(config, out)
