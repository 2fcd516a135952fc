"""Files that are there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file for writing under a temporary name; it gets its own name when all has been written.

    The folder is made where it is not there. When something is raised on the way nothing is left behind, and what had
    the name before stays; a killed process leaves the file of the temporary name, `.<name>.<process>.part`.

    Args:
        path: The file's own name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream:
            yield stream
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
