"""The right to write a store."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from mersuite.errors import StoreError

LOCK_FILE = "writer.lock"
_POLL_S = 0.1
_held_locks: set[Path] = set()
os.register_at_fork(after_in_child=_held_locks.clear)


class WriterLock:
    """The right to write a store, held by one process at a time and given back by the system when it dies.

    Why fcntl and not flock: a forked child does not inherit it, so an orphaned worker cannot hold on to it.

    Args:
        path: The store's folder.
        wait: Wait for the holder instead of raising.
        on_wait: Called once with the holder's description when it has to wait.

    Raises:
        StoreError: If this process holds it already, or another one does and wait is False.
    """

    def __init__(self, path: Path, *, wait: bool, on_wait: Callable[[str], None]) -> None:
        self._folder = path.resolve()
        # Looked at first: opening and closing the file again would give this process's lock back.
        if self._folder in _held_locks:
            raise StoreError(f"{path} is already open for writing in this process; close that store first")
        told = False
        while (file := _try_lock(self._folder / LOCK_FILE)) is None:
            holder = _lock_holder(self._folder / LOCK_FILE)
            if not wait:
                raise StoreError(f"{path} is being written by {holder}; wait for it to end or give another store.path")
            if not told:
                on_wait(holder)
                told = True
            time.sleep(_POLL_S)
        _held_locks.add(self._folder)
        self._release = weakref.finalize(self, _release_lock, self._folder, file)

    def release(self) -> None:
        """Gives the lock back."""
        self._release()


def _try_lock(path: Path) -> int | None:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        os.close(file)
        return None
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
    return file


def _lock_holder(path: Path) -> str:
    try:
        note = json.loads(path.read_text())
        return f"process {note['pid']} on {note['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _release_lock(folder: Path, file: int) -> None:
    os.close(file)
    _held_locks.discard(folder)
