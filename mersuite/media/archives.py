"""Archives that lie beside data and that nobody has extracted yet. The code submission carries this file."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_ARCHIVE = re.compile(r"\.(zip|tar|7z|rar|tgz|tbz2|txz)(\.\d{3})?$|\.tar\.(gz|bz2|xz|zst)$", re.IGNORECASE)


def archives_in(folders: Iterable[Path]) -> list[Path]:
    """Gives the archives, whole or in parts, that lie in some folders, sorted; folders that are not there have none."""
    there = [folder for folder in folders if folder.is_dir()]
    return sorted(path for folder in there for path in folder.iterdir() if _ARCHIVE.search(path.name))
