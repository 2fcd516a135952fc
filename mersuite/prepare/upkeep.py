"""Looking after a store: what it holds, whether it is whole, and what no longer belongs in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mersuite.clip import Clip
from mersuite.features.base import Extractor
from mersuite.prepare.reader import stream_fingerprints
from mersuite.store import FeatureStore


def describe(store_path: Path) -> dict[str, Any]:
    """Gives the size of a store and, for each data set and stream, its clips, entries and bytes.

    More entries than clips mean that settings, code or files changed since; `prune` deletes the older ones.

    Raises:
        StoreError: If there is no store, or it is damaged.
    """
    rows: dict[tuple[str, str], tuple[set[str], list[int]]] = {}
    with FeatureStore(store_path, readonly=True) as store:
        for key in store.all_keys():
            clips, sizes = rows.setdefault((key.dataset, key.stream), (set(), []))
            clips.add(key.clip_id)
            sizes.append(store.entry_size_bytes(key))
        size_bytes = store.size_bytes
    streams = [
        {"dataset": dataset, "stream": stream, "clips": len(clips), "entries": len(sizes), "size_bytes": sum(sizes)}
        for (dataset, stream), (clips, sizes) in sorted(rows.items())
    ]
    num_entries = sum(len(sizes) for _, sizes in rows.values())
    return {"path": str(store_path), "size_bytes": size_bytes, "num_entries": num_entries, "streams": streams}


def verify(store_path: Path, *, remove: bool = False) -> dict[str, Any]:
    """Reads every entry of a store and compares it with its checksum.

    Args:
        store_path: The store.
        remove: Delete damaged entries, so that the next `prepare` makes them again.

    Returns:
        "ok", "num_entries" (before any were removed), "num_removed", and "damaged" with dataset, clip_id, stream and
        problem of each.

    Raises:
        StoreError: If there is no store, its pages are damaged, or another process is writing it while remove is set.
    """
    with FeatureStore(store_path, readonly=True) as store:
        damaged = store.verify()
        num_entries = sum(1 for _ in store.all_keys())
    num_removed = 0
    if remove and damaged:
        with FeatureStore(store_path, readonly=False) as writer:
            num_removed = writer.remove([item.key for item in damaged])
    return {
        "path": str(store_path),
        "ok": not damaged,
        "num_entries": num_entries,
        "num_removed": num_removed,
        "damaged": [
            {
                "dataset": item.key.dataset,
                "clip_id": item.key.clip_id,
                "stream": item.key.stream,
                "problem": item.problem,
            }
            for item in damaged
        ],
    }


def prune(store_path: Path, clips: Sequence[Clip], extractors: Mapping[str, Extractor]) -> dict[str, Any]:
    """Deletes what other settings, older code or other files made of the streams that these extractors make of clips.

    An entry goes only where the wanted one of the same clip and stream is there; all else stays. Another track that
    makes a stream of the same clips with settings of its own has to prepare it again. The file keeps its size, and
    later entries use the room.

    Raises:
        ConfigError: If two extractors write one stream.
        DataError: If a source file cannot be read.
        StoreError: If there is no store, or another process is writing it.
    """
    FeatureStore(store_path, readonly=True).close()  # writing would make a store where there is none
    keep = {key.fingerprint for key in stream_fingerprints(clips, extractors, store_path).values()}
    with FeatureStore(store_path, readonly=False) as store:
        num_deleted = store.prune(keep)
        num_left = sum(1 for _ in store.all_keys())
    return {"path": str(store_path), "num_deleted": num_deleted, "num_entries": num_left}
