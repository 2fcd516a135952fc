"""What a stored stream was made from, as one hash: extractor, its version and knobs, and the bytes of its sources.

Paths and runtime settings never enter: data may be moved and prepared with any number of workers.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mersuite.clip import Clip, Media
from mersuite.errors import DataError
from mersuite.features.base import Extractor
from mersuite.schema import plain
from mersuite.store import FeatureStore, SourceHash

_COMPANIONS = {".vhdr": (".eeg", ".vmrk"), ".set": (".fdt",), ".hdr": (".wl1", ".wl2", ".inf", ".set", ".evt")}
"""Files of the same stem that a recording's main file refers to: BrainVision, EEGLAB, NIRx."""
_SETTLED_S = 2.0
"""A file that changed less than this ago is hashed again next time: it may change once more within one clock tick."""


def input_streams(extractor: Extractor, clip: Clip) -> tuple[str, ...]:
    """Gives the clip's media streams that an extractor reads."""
    return tuple(name for item in extractor.inputs if (name := item.removesuffix("?")) in clip.media)


def lacking_streams(extractor: Extractor, clip: Clip) -> tuple[str, ...]:
    """Gives the streams that an extractor needs and the clip lacks."""
    return tuple(name for name in extractor.inputs if not name.endswith("?") and name not in clip.media)


def source_files(path: Path) -> tuple[tuple[str, Path], ...]:
    """Gives all files behind a recording with names that do not depend on where it lies.

    A folder gives everything in it; the main file of a format that spreads over several gives its companions too.
    """
    if path.is_dir():
        return tuple((item.relative_to(path).as_posix(), item) for item in sorted(path.rglob("*")) if item.is_file())
    others = [(suffix, path.with_suffix(suffix)) for suffix in _COMPANIONS.get(path.suffix.lower(), ())]
    return (("", path), *((name, item) for name, item in others if item.is_file()))


@dataclass(slots=True)
class SourceHashes:
    """Contents of source files, each hashed once; what a store remembers of unchanged files is used.

    Attributes:
        store: Where earlier hashes are remembered; None where there is no store yet.
        found: Path to hash and size.
        fresh: Those that the store does not know yet.
    """

    store: FeatureStore | None
    found: dict[Path, SourceHash] = field(default_factory=dict)
    fresh: dict[Path, SourceHash] = field(default_factory=dict)
    _files: dict[Path, tuple[tuple[str, Path], ...]] = field(default_factory=dict)

    def add(self, clips: Iterable[Clip], extractors: Iterable[Extractor], num_threads: int) -> None:
        """Hashes every file that the extractors will read.

        Raises:
            DataError: If a file is missing or unreadable.
        """
        wanted: dict[Path, str] = {}
        parts = list(extractors)
        for clip in clips:
            for stream in {name for part in parts for name in input_streams(part, clip)}:
                media = clip.media[stream]
                if isinstance(media, Media):
                    for _, path in self._of(media.path):
                        wanted.setdefault(path, f"clip {clip.clip_id!r}, stream {stream!r}")
        todo = []
        for path, where in wanted.items():
            remembered = self._remembered(path, where)
            if remembered is None:
                todo.append(path)
            else:
                self.found[path] = remembered
        with ThreadPoolExecutor(num_threads) as pool:
            for path, item in zip(todo, pool.map(_hash_file, todo), strict=True):
                self.found[path] = item
                if time.time_ns() - item.mtime_ns > _SETTLED_S * 1e9:
                    self.fresh[path] = item

    def _of(self, path: Path) -> tuple[tuple[str, Path], ...]:
        if path not in self._files:
            self._files[path] = source_files(path)
        return self._files[path]

    def _remembered(self, path: Path, where: str) -> SourceHash | None:
        try:
            status = path.stat()
        except OSError as error:
            raise DataError(
                f"{where}: {path} cannot be read ({error.strerror}); `mersuite check` lists what is there"
            ) from error
        known = self.store.source_hash(path) if self.store is not None else None
        return known if known and (known.size_bytes, known.mtime_ns) == (status.st_size, status.st_mtime_ns) else None

    def describe(self, media: Media | str) -> dict[str, Any]:
        """Gives everything about a medium that decides its features: content and fields, no path."""
        if isinstance(media, str):
            return {"text": media}
        return {
            "content": [[name, self.found[path].sha256] for name, path in self._of(media.path)],
            "key": media.key,
            "start_s": media.start_s,
            "duration_s": media.duration_s,
            "rate_hz": media.rate_hz,
            "ch_names": list(media.ch_names),
            "ch_types": list(media.ch_types),
            "unit": media.unit,
        }

    def size_bytes(self, media: Media | str) -> int:
        """Gives the size of a medium's files, or of its text."""
        return (
            len(media)
            if isinstance(media, str)
            else sum(self.found[path].size_bytes for _, path in self._of(media.path))
        )


def _hash_file(path: Path) -> SourceHash:
    status = path.stat()
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror})") from error
    return SourceHash(size_bytes=status.st_size, mtime_ns=status.st_mtime_ns, sha256=digest)


def fingerprint(extractor: Extractor, clips: Sequence[Clip], hashes: SourceHashes) -> str:
    """Gives the SHA-256, as hex, of all that decides what an extractor gives for clips that are extracted together."""
    kind = type(extractor)
    content: Mapping[str, Any] = {
        "extractor": f"{kind.__module__}.{kind.__qualname__}",
        "version": extractor.version,
        **({"state": digest} if (digest := extractor.state_digest()) else {}),
        "config": {name: value for name, value in plain(extractor.config).items() if name not in kind.no_effect},
        "clips": [
            [clip.clip_id, {name: hashes.describe(clip.media[name]) for name in input_streams(extractor, clip)}]
            for clip in sorted(clips, key=lambda clip: clip.clip_id)
        ],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
