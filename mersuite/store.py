"""The feature store: prepared streams in one LMDB database, read without copying.

One process writes at a time, any number read, also forked and spawned DataLoader workers. A group of entries is
written in one transaction, so a process may be killed at any instant and the store holds whole groups only.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import lmdb
import numpy as np

from mersuite.clip import Signal
from mersuite.errors import StoreError
from mersuite.store_entry import (
    Names,
    StoreKey,
    check_signal,
    checksum_matches,
    copy_bodies,
    key_bytes,
    names_record,
    pack,
    parse_key,
    unpack,
)
from mersuite.store_environment import DATA_FILE, Environment, NotMadeError, environment_of
from mersuite.store_lock import LOCK_FILE, WriterLock

_log = logging.getLogger(__name__)
DEFAULT_MAP_SIZE_BYTES = 16 * 2**30
"""Address space reserved at first, not disk; it doubles when it is full."""
_OWN_FILES = frozenset({DATA_FILE, "lock.mdb", LOCK_FILE})
_ENTRIES, _NAMES, _SOURCES = b"entries", b"names", b"sources"


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """An entry that is not as it was written.

    Attributes:
        key: Which entry.
        problem: What is wrong with it.
    """

    key: StoreKey
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceHash:
    """The content that a source file had when it was of this size and time of change."""

    size_bytes: int
    mtime_ns: int
    sha256: str


_VECTORS_AT_ONCE = 512
"""Vectors that are copied together: so many of 1,024 channels fit into a processor's cache."""


class FeatureStore:
    """Streams by (dataset, clip_id, stream, fingerprint).

    Arrays that `get` gives are read-only views on the store's memory map. They stay valid as long as something refers
    to them, also after `close` and in forked children. A pickled store is a reader of the same path.

    Args:
        path: The store's folder.
        readonly: True to read; False to write too, which makes the folder and takes the writer's lock.
        wait: Wait for another writer instead of raising.
        map_size_bytes: Address space to reserve at first.

    Raises:
        StoreError: If the folder is no store, is damaged, has another format, or is being written by another process.
    """

    def __init__(
        self, path: Path, *, readonly: bool, wait: bool = False, map_size_bytes: int = DEFAULT_MAP_SIZE_BYTES
    ) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"store.path: {self.path} is a file, need a folder")
        self.readonly = readonly
        self._writer = None if readonly else _lock_for_writing(self.path, wait)
        try:
            found = environment_of(self.path, map_size_bytes=map_size_bytes, create=not readonly)
        except BaseException:
            if self._writer is not None:
                self._writer.release()
            raise
        found.enter()
        self._environment: Environment | None = found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _open_reader, (self.path,)

    def close(self) -> None:
        """Gives the writer's lock back and lets go of the files; arrays that were read stay valid."""
        if self._environment is not None:
            self._environment.leave()
            self._environment = None
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def _open(self) -> Environment:
        if self._environment is None:
            raise StoreError(f"{self.path}: this store was closed; open it again")
        return self._environment

    def _open_to_write(self) -> Environment:
        if self._writer is None:
            raise StoreError(f"{self.path}: this store was opened for reading; open it with readonly=False to write")
        return self._open()

    # ---- reading
    def has(self, key: StoreKey) -> bool:
        """Whether the entry is there; a note that the stream does not exist counts."""
        return self._open().read(_ENTRIES, key_bytes(key))[1] is not None

    def missing(self, keys: Iterable[StoreKey]) -> list[StoreKey]:
        """Gives those keys that have no entry, in the order given."""
        return [key for key in keys if not self.has(key)]

    def get(self, key: StoreKey) -> Signal | None:
        """Reads a stream without copying; None where the extractor gave none for this clip.

        Raises:
            StoreError: If there is no such entry or it is damaged.
        """
        snapshot, value = self._open().read(_ENTRIES, key_bytes(key))
        if value is None:
            made = self.fingerprints(key.dataset, key.clip_id, key.stream)
            why = (
                "what is stored was made by another configuration or from other files"
                if made
                else "it was not prepared"
            )
            raise StoreError(
                f"{self.path} has no entry for {key}: {why}; run `mersuite prepare` with the same settings"
            )
        return unpack(key, value, self._names, snapshot.array)

    def get_many(self, keys: Sequence[StoreKey]) -> list[Signal | None]:
        """Reads several streams, in the order given."""
        return [self.get(key) for key in keys]

    def get_vectors(self, keys: Sequence[StoreKey]) -> np.ndarray | None:
        """Reads streams of one vector each into one array, many times faster than one by one.

        Args:
            keys: Different ones.

        Returns:
            (key, channel) float32, or None where some entry is missing, is a note that there is none, or is anything
            but one vector of the same width, names and unit as the first: then get tells what it is.
        """
        encoded = [key_bytes(key) for key in keys]
        if not encoded or len(set(encoded)) != len(encoded):
            return None
        snapshot, first = self._open().read(_ENTRIES, encoded[0])
        like = None if first is None else unpack(keys[0], first, self._names, snapshot.array)
        if first is None or like is None or like.data.shape[0] != 1 or like.data.dtype != np.float32:
            return None
        result = np.empty((len(keys), like.data.shape[1]), np.float32)
        with snapshot.cursor(_ENTRIES) as cursor:
            for start in range(0, len(keys), _VECTORS_AT_ONCE):
                found = cursor.getmulti(encoded[start : start + _VECTORS_AT_ONCE])
                rows = result[start : start + _VECTORS_AT_ONCE]
                if len(found) != len(rows) or not copy_bodies([value for _, value in found], first, rows):
                    return None
        return result

    def _names(self, digest: bytes) -> Names:
        environment = self._open()
        if digest not in environment.names:
            raw = environment.read(_NAMES, digest)[1]
            if raw is None:
                raise KeyError("its channel names")
            ch_names, ch_types = json.loads(bytes(raw))
            environment.names[digest] = (tuple(ch_names), tuple(ch_types))
        return environment.names[digest]

    def all_keys(self) -> Iterator[StoreKey]:
        """Gives the keys of all entries, sorted."""
        for key, _ in self._items(b""):
            yield key

    def fingerprints(self, dataset: str, clip_id: str, stream: str) -> tuple[str, ...]:
        """Gives the fingerprints under which a stream of a clip is stored."""
        prefix = "\0".join((dataset, clip_id, stream, "")).encode()
        return tuple(key.fingerprint for key, _ in self._items(prefix))

    def _items(self, prefix: bytes) -> Iterator[tuple[StoreKey, memoryview]]:
        snapshot = self._open().snapshot()
        with snapshot.cursor(_ENTRIES) as cursor:
            found = cursor.set_range(prefix) if prefix else cursor.first()
            while found and bytes(cursor.key()[: len(prefix)]) == prefix:
                yield parse_key(cursor.key()), memoryview(cursor.value())
                found = cursor.next()

    def entry_size_bytes(self, key: StoreKey) -> int:
        """Gives the size of an entry, its header included; 0 where there is none."""
        value = self._open().read(_ENTRIES, key_bytes(key))[1]
        return 0 if value is None else len(value)

    @property
    def size_bytes(self) -> int:
        """Bytes of the store's file."""
        return self._open().size_bytes

    def verify(self) -> tuple[Damage, ...]:
        """Reads everything and compares it with the checksums; gives what is damaged.

        Raises:
            StoreError: If LMDB's own pages are damaged, so that entries cannot be listed.
        """
        damages = []
        try:
            for key, value in self._items(b""):
                try:
                    whole = checksum_matches(key, value)
                except StoreError as error:
                    damages.append(Damage(key=key, problem=str(error)))
                    continue
                if not whole:
                    damages.append(Damage(key=key, problem=f"{key}: the checksum does not match"))
        except lmdb.Error as error:
            raise StoreError(
                f"{self.path}: {DATA_FILE} is damaged ({error}); delete the folder and run `mersuite prepare` again"
            ) from error
        return tuple(damages)

    # ---- writing
    def put(self, entries: Mapping[StoreKey, Signal | None], sources: Mapping[Path, SourceHash] | None = None) -> int:
        """Writes entries in one transaction: all or none. Existing ones are replaced.

        Args:
            entries: Streams; None notes that the extractor gave none, so that it is not asked again.
            sources: Hashes of source files to remember along with them.

        Returns:
            Bytes of the entries.

        Raises:
            StoreError: If a value is not finite (time, channel) float32, no space is left, or the store was opened
                for reading.
        """
        environment = self._open_to_write()
        for key, signal in entries.items():
            if signal is not None:
                check_signal(key, signal)
        size_bytes = sum(0 if signal is None else signal.data.nbytes for signal in entries.values())

        def change(transaction: lmdb.Transaction, databases: dict[bytes, Any]) -> int:
            written = 0
            for key, signal in entries.items():
                digest = b""
                if signal is not None:
                    digest, record = names_record(signal)
                    transaction.put(digest, record, overwrite=False, db=databases[_NAMES])
                value = pack(signal, digest)
                transaction.put(key_bytes(key), value, db=databases[_ENTRIES])
                written += len(value)
            for path, item in (sources or {}).items():
                transaction.put(_source_key(path), json.dumps(asdict(item)).encode(), db=databases[_SOURCES])
            return written

        return environment.write(change, size_bytes)

    def remove(self, keys: Collection[StoreKey]) -> int:
        """Deletes entries, such as damaged ones; their space is used by later ones. Gives how many there were."""

        def change(transaction: lmdb.Transaction, databases: dict[bytes, Any]) -> int:
            return sum(transaction.delete(key_bytes(key), db=databases[_ENTRIES]) for key in keys)

        return self._open_to_write().write(change, 0)

    def prune(self, keep: Collection[str]) -> int:
        """Deletes superseded entries: those of a stream of a clip that is also stored under a fingerprint in keep.

        Streams without any entry in keep are left alone, because they belong to another track or data set.

        Returns:
            How many entries were deleted. The file does not shrink; later entries use the space.
        """
        wanted = frozenset(keep)
        kept = {key[:3] for key in self.all_keys() if key.fingerprint in wanted}
        return self.remove([key for key in self.all_keys() if key[:3] in kept and key.fingerprint not in wanted])

    # ---- source files
    def source_hash(self, path: Path) -> SourceHash | None:
        """Gives what is remembered of a source file's content."""
        raw = self._open().read(_SOURCES, _source_key(path))[1]
        return None if raw is None else SourceHash(**json.loads(bytes(raw)))


def _source_key(path: Path) -> bytes:
    return hashlib.sha256(os.fsencode(path.resolve())).digest()


def open_if_made(path: Path) -> FeatureStore | None:
    """Gives a reader, or None where no store was made yet.

    Raises:
        StoreError: If what is there is damaged, or is something else.
    """
    try:
        return FeatureStore(path, readonly=True)
    except NotMadeError:
        return None


def _open_reader(path: Path) -> FeatureStore:
    return FeatureStore(path, readonly=True)


def _lock_for_writing(path: Path, wait: bool) -> WriterLock:
    try:
        path.mkdir(parents=True, exist_ok=True)
        others = sorted(item.name for item in path.iterdir() if item.name not in _OWN_FILES)
    except OSError as error:
        raise StoreError(f"{path}: cannot make a feature store here ({error}); give another store.path") from error
    if others and not (path / DATA_FILE).exists():
        raise StoreError(
            f"{path} is no feature store and holds {others[0]!r}; give an empty or new folder as store.path"
        )
    if not os.access(path, os.W_OK):
        raise StoreError(f"{path}: no permission to write; give another store.path")
    return WriterLock(
        path, wait=wait, on_wait=lambda holder: _log.info("%s: waiting for %s, which is writing it", path, holder)
    )
