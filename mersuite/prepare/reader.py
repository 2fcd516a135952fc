"""Reading exactly the streams that a configuration makes."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from mersuite.clip import Clip, Signal
from mersuite.errors import StoreError
from mersuite.features.base import Extractor
from mersuite.prepare.plan import make_plan
from mersuite.store import FeatureStore, open_if_made
from mersuite.store_entry import StoreKey


def num_cores() -> int:
    """Gives the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def stream_fingerprints(
    clips: Sequence[Clip], extractors: Mapping[str, Extractor], store_path: Path
) -> dict[tuple[str, str], StoreKey]:
    """Gives (clip_id, stream) -> the store's key of exactly what these extractors make of these files.

    Raises:
        ConfigError: If two extractors write one stream.
        DataError: If a source file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        store = open_if_made(store_path)
        if store is not None:
            stack.enter_context(store)
        plan = make_plan(clips, extractors, store, num_cores())
    return {
        (clip.clip_id, stream): group.key(clip, stream)
        for group in plan.groups
        for clip in group.clips
        for stream in group.extractor.outputs()
    }


class FeatureReader:
    """Reads the streams that a configuration makes of given clips, and no others. It may be pickled.

    Args:
        store_path: The store.
        clip_ids: Clips it is for.
        streams: Streams it knows.
        keys: (clip_id, stream) to the store's key; clips that an extractor leaves out are absent.
    """

    def __init__(
        self,
        store_path: Path,
        *,
        clip_ids: Sequence[str],
        streams: Sequence[str],
        keys: Mapping[tuple[str, str], StoreKey],
    ) -> None:
        self.streams = tuple(streams)
        self._store_path = store_path
        self._clip_ids = frozenset(clip_ids)
        self._keys = dict(keys)
        self._store: FeatureStore | None = None

    @classmethod
    def open(cls, store_path: Path, clips: Sequence[Clip], extractors: Mapping[str, Extractor]) -> Self:
        """Gives a reader of prepared clips.

        Raises:
            StoreError: If something is not prepared, or was prepared from other files or with other settings.
        """
        keys = stream_fingerprints(clips, extractors, store_path)
        streams = [stream for extractor in extractors.values() for stream in extractor.outputs()]
        reader = cls(store_path, clip_ids=[clip.clip_id for clip in clips], streams=streams, keys=keys)
        if keys:
            store = open_if_made(store_path)
            if store is None:
                raise StoreError(f"store.path: there is no feature store at {store_path}; run `mersuite prepare`")
            reader._store = store
            missing = store.missing(keys.values())
            if missing:
                key = missing[0]
                stale = store.fingerprints(key.dataset, key.clip_id, key.stream)
                why = "was made by another configuration or from other files" if stale else "is not prepared"
                raise StoreError(
                    f"{store_path}: {key.stream!r} of clip {key.clip_id!r} {why} ({len(missing)} of {len(keys)} "
                    "entries are missing); run `mersuite prepare` with the same settings"
                )
        return reader

    def signature(self, clip_ids: Collection[str]) -> str:
        """Gives a digest of what the clips' streams are made from: files, extractors and settings."""
        keys = sorted(key for (clip_id, _), key in self._keys.items() if clip_id in clip_ids)
        return hashlib.sha256(repr([tuple(key) for key in keys]).encode()).hexdigest()

    def _opened(self) -> FeatureStore:
        if self._store is None:
            self._store = FeatureStore(self._store_path, readonly=True)
        return self._store

    def get(self, clip_id: str, stream: str) -> Signal | None:
        """Reads a clip's stream without copying; None where the clip has none.

        Raises:
            StoreError: If the reader is not for this clip or stream, or the entry is damaged.
        """
        key = self._keys.get((clip_id, stream))
        if key is not None:
            return self._opened().get(key)
        if stream not in self.streams:
            have = ", ".join(self.streams) or "none"
            raise StoreError(f"no extractor makes the stream {stream!r} (there are: {have}); add one under `features`")
        if clip_id not in self._clip_ids:
            raise StoreError(f"clip {clip_id!r} is not among the {len(self._clip_ids)} clips that were prepared")
        return None

    def vectors(self, clip_ids: Sequence[str], stream: str) -> dict[str, np.ndarray] | None:
        """Reads a stream of one vector a clip for many different clips at once.

        Returns:
            Clip to its (channel,) float32, without the clips that an extractor left out; None where streams are
            anything but vectors of one width, or an extractor gave none: then get tells what they are.
        """
        known = {clip_id: key for clip_id in clip_ids if (key := self._keys.get((clip_id, stream))) is not None}
        found = self._opened().get_vectors(list(known.values())) if known else None
        return None if found is None else dict(zip(known, found, strict=True))

    def example(self, stream: str) -> Signal | None:
        """Gives the stream of the first clip that has it; None where none has."""
        found = (self._opened().get(key) for (_, name), key in self._keys.items() if name == stream)
        return next((signal for signal in found if signal is not None), None)
