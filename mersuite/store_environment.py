"""One LMDB environment a process: opening, snapshots, growth, and what a fork does to them.

Why a registry: LMDB must not be opened twice in one process (its file locks belong to the process), while a reader,
a second reader and `prepare` may well live in one. All stores of a path share one environment, opened for writing
where the folder allows it; who may write is decided by mersuite.store_lock.

Why snapshots are objects: an array that was read without a copy lies in LMDB's memory map and stays valid only while
its read transaction and the map do. Each such array holds its Snapshot, so neither can go before it.
"""

from __future__ import annotations

import os
import shutil
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import numpy as np

from mersuite.errors import StoreError

FORMAT = b"mersuite features 1"
DATA_FILE = "data.mdb"
DATABASES = (b"entries", b"names", b"sources")
_MAX_READERS = 512
_SLACK_PAGES = 16
"""Pages at the end that LMDB may have counted and never written: a page taken and given back in one transaction."""

_environments: weakref.WeakValueDictionary[str, Environment] = weakref.WeakValueDictionary()
_registry_lock = threading.RLock()


class NotMadeError(StoreError):
    """There is no store yet, or another process is just making it."""


class Snapshot:
    """A read transaction, kept open as long as anything read from it is in use.

    It keeps its Environment too, so that the registry finds it however the store was left.
    """

    __slots__ = ("__weakref__", "databases", "environment", "transaction")

    def __init__(self, environment: Environment, handle: lmdb.Environment, databases: dict[bytes, Any]) -> None:
        self.environment = environment
        self.databases = databases
        self.transaction = handle.begin(buffers=True)

    def get(self, database: bytes, key: bytes) -> memoryview | None:
        """Gives a value's bytes in LMDB's memory; valid while this object lives."""
        return self.transaction.get(key, db=self.databases[database])

    def cursor(self, database: bytes) -> lmdb.Cursor:
        """Gives a cursor over a database."""
        return self.transaction.cursor(db=self.databases[database])

    def array(self, body: memoryview, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """Gives a read-only array over bytes of this snapshot, which keeps the snapshot alive."""
        plain = np.frombuffer(body, dtype).reshape(shape)
        if not plain.flags.aligned:
            plain = plain.copy()  # small values lie inside a tree page, at any even address
            plain.flags.writeable = False
            return plain
        return np.asarray(_Pinned(self, plain))


class _Pinned:
    """Owner of an array's memory, as numpy's array interface wants it."""

    __slots__ = ("__array_interface__", "body", "snapshot")

    def __init__(self, snapshot: Snapshot, plain: np.ndarray) -> None:
        self.snapshot = snapshot
        self.body = plain
        self.__array_interface__ = plain.__array_interface__


class Environment:
    """The process's one handle on a store's files."""

    def __init__(self, path: Path, map_size_bytes: int, create: bool) -> None:
        self.path = path
        self.names: dict[bytes, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._map_size_bytes = map_size_bytes
        self._lock = threading.RLock()
        self._env: lmdb.Environment | None = None
        self._databases: dict[bytes, Any] = {}
        self._current: Snapshot | None = None
        self._live: weakref.WeakSet[Snapshot] = weakref.WeakSet()
        self._forked = False
        self._kept: Snapshot | None = None
        self._users = 0
        self._inode = 0
        self._open(create)

    # ---- opening
    def _open(self, create: bool) -> lmdb.Environment:
        data, lock = self.path / DATA_FILE, self.path / "lock.mdb"
        if not data.exists() and not create:
            raise NotMadeError(f"{self.path} is not a feature store (no {DATA_FILE}); `mersuite prepare` makes one")
        writable = os.access(self.path, os.W_OK) and all(
            os.access(item, os.W_OK) for item in (data, lock) if item.exists()
        )
        try:
            env = self._open_handle(readonly=not writable, lock=writable or os.access(lock, os.W_OK), create=create)
            try:
                if writable:
                    env.reader_check()
                self._check_whole(env)
                self._databases = self._open_databases(env, create)
            except BaseException:
                env.close()
                raise
        except lmdb.Error as error:
            raise StoreError(
                f"{self.path}: {DATA_FILE} is damaged or not made by mersuite ({error}); give another "
                "store.path, or delete the folder and run `mersuite prepare` again"
            ) from error
        self._env = env
        self._inode = data.stat().st_ino
        return env

    def _open_handle(self, *, readonly: bool, lock: bool, create: bool) -> lmdb.Environment:
        data = self.path / DATA_FILE
        least = data.stat().st_size if data.exists() else 0
        map_size = max(self._map_size_bytes, least)
        while True:
            try:
                return lmdb.open(
                    str(self.path),
                    map_size=map_size,
                    max_dbs=len(DATABASES),
                    max_readers=_MAX_READERS,
                    readonly=readonly,
                    lock=lock,
                    create=create,
                    readahead=False,
                )
            except lmdb.MemoryError:
                # Address space is limited here (`ulimit -v`): begin smaller, and grow as the store does.
                if map_size == least:
                    raise
                map_size = max(least, map_size // 4)

    @property
    def stands(self) -> bool:
        """Whether the path still leads to the file that is open here."""
        data = self.path / DATA_FILE
        return data.exists() and data.stat().st_ino == self._inode

    def _check_whole(self, env: lmdb.Environment) -> None:
        pages, page_bytes = env.info()["last_pgno"] + 1, env.stat()["psize"]
        size = (self.path / DATA_FILE).stat().st_size
        if size < (pages - _SLACK_PAGES) * page_bytes:
            raise StoreError(
                f"{self.path}: {DATA_FILE} is cut short: it has {size} bytes of {pages * page_bytes}; copy it "
                "again, or delete the folder and run `mersuite prepare` again"
            )

    def _open_databases(self, env: lmdb.Environment, create: bool) -> dict[bytes, Any]:
        with env.begin() as transaction:
            found, num_entries = transaction.get(b"format"), transaction.stat()["entries"]
        if found == FORMAT:
            return {name: env.open_db(name, create=False) for name in DATABASES}
        if found is not None or num_entries:
            what = f"format {found.decode(errors='replace')!r}" if found else "an LMDB database of something else"
            raise StoreError(
                f"{self.path} holds {what}; this version reads {FORMAT.decode()!r}: give another store.path or run "
                "`mersuite prepare` into a new folder"
            )
        if not create:
            raise NotMadeError(f"{self.path} is an empty feature store; run `mersuite prepare`")
        with env.begin(write=True) as transaction:
            databases = {name: env.open_db(name, txn=transaction) for name in DATABASES}
            transaction.put(b"format", FORMAT)
        return databases

    def forget_after_fork(self) -> None:
        """Lets go of what a forked child inherits; called in the child.

        The handles are dropped, not closed: closing would clear the parent's place in the reader table. Where arrays
        that were read before the fork still hold their snapshot, the child goes on reading from that one, because
        LMDB cannot be opened a second time beside it.
        """
        self._lock = threading.RLock()
        self._forked = True
        current, self._current = self._current, None
        # Where an older snapshot cannot go, the newest must stay too, or this process would only see old entries.
        self._kept = current if any(item is not current for item in self._live) else None
        self._env = None
        self._databases = {}

    def _inherited(self) -> Snapshot | None:
        if not self._forked:
            return None
        newest = max(self._live, key=lambda snapshot: snapshot.transaction.id(), default=None)
        self._forked = newest is not None
        return newest

    def _handle(self) -> lmdb.Environment:
        if self._inherited() is not None:
            raise StoreError(
                f"{self.path}: a forked process cannot write while it holds arrays that were read before the fork; "
                "write from the process that read them"
            )
        return self._env or self._open(create=False)

    def enter(self) -> None:
        """Counts one more store that uses this."""
        self._users += 1

    def leave(self) -> None:
        """Counts one store less; after the last one nothing but arrays in use keeps the files open."""
        self._users -= 1
        if self._users == 0:
            self._current = None

    # ---- reading
    def read(self, database: bytes, key: bytes) -> tuple[Snapshot, memoryview | None]:
        """Gives a value's bytes and the snapshot they lie in; a value written since the last look is found too."""
        with self._lock:
            snapshot = self._current or self.snapshot()
            value = snapshot.get(database, key)
            if value is None and self._env is not None and self._env.info()["last_txnid"] != snapshot.transaction.id():
                del snapshot  # where the map must be moved, nothing may hold the old one
                snapshot = self.snapshot()
                value = snapshot.get(database, key)
            return snapshot, value

    def snapshot(self) -> Snapshot:
        """Gives a view on the newest committed state, and reads from it from now on.

        Raises:
            StoreError: If another process made the store larger while arrays read from it are in use here.
        """
        with self._lock:
            inherited = self._inherited()
            if inherited is not None:
                return inherited
            env = self._handle()
            try:
                fresh = Snapshot(self, env, self._databases)
            except lmdb.MapResizedError:
                self._resize(env, 0)
                fresh = Snapshot(self, env, self._databases)
            self._live.add(fresh)
            self._current = fresh
            return fresh

    # ---- writing
    def write(self, change: Callable[[lmdb.Transaction, dict[bytes, Any]], int], size_bytes: int) -> int:
        """Runs a change in one transaction: all of it is stored, or nothing.

        Args:
            change: Given the transaction and the databases; may run again after the store has grown.
            size_bytes: What it adds, for growth and for the message when the disk is full.

        Raises:
            StoreError: If no space is left, or the store must grow while arrays read from it are in use here.
        """
        with self._lock:
            env = self._handle()
            self._check_space(size_bytes)
            while True:
                try:
                    with env.begin(write=True) as transaction:
                        result = change(transaction, self._databases)
                    self._current = None  # the next read sees what was written
                    return result
                except lmdb.MapResizedError:
                    self._resize(env, 0)
                except lmdb.MapFullError:
                    self._resize(env, max(2 * env.info()["map_size"], self.size_bytes + 2 * size_bytes))
                except lmdb.Error as error:
                    raise StoreError(
                        f"{self.path}: nothing was written ({error}); {_gib(size_bytes)} are needed and "
                        f"{_gib(shutil.disk_usage(self.path).free)} are free: make space or give another store.path"
                    ) from error

    def _check_space(self, size_bytes: int) -> None:
        free = shutil.disk_usage(self.path).free
        if free < size_bytes:
            raise StoreError(
                f"{self.path}: no space left: {_gib(size_bytes)} are needed and {_gib(free)} are free; nothing was "
                "written: make space or give another store.path"
            )

    def _resize(self, env: lmdb.Environment, size_bytes: int) -> None:
        # Moving the map under an array that lies in it would crash the process.
        self._current = None
        if len(self._live):
            raise StoreError(
                f"{self.path}: the store must grow while arrays read from it are in use in this process; "
                "run `mersuite prepare` before, in a process of its own, or copy the arrays"
            )
        env.set_mapsize(size_bytes)

    @property
    def size_bytes(self) -> int:
        """Bytes of the file that are in use or free for later entries."""
        env = self._handle()
        return (env.info()["last_pgno"] + 1) * env.stat()["psize"]


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.3g} GiB"


def environment_of(path: Path, *, map_size_bytes: int, create: bool) -> Environment:
    """Gives the process's environment of a path, opening it where needed.

    Raises:
        StoreError: If it is no store, is damaged or has another format.
    """
    key = str(path.resolve())
    with _registry_lock:
        found = _environments.get(key)
        if found is None or not found.stands:
            found = Environment(path, map_size_bytes, create)
            _environments[key] = found
        return found


def _forget_all() -> None:
    global _registry_lock
    _registry_lock = threading.RLock()
    for environment in list(_environments.values()):
        environment.forget_after_fork()


os.register_at_fork(after_in_child=_forget_all)
