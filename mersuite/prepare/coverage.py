"""The report that `prepare` ends with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamCoverage:
    """How far one stream reaches.

    Attributes:
        stream: Its name.
        extractor: Name of the extractor's entry under `features`.
        num_clips: Clips of the data.
        num_covered: Clips that have it in the store.
        left_out: Reason to the clips that have none for it.
        size_bytes: Bytes in the store.
        seconds: Computing time of its extractor in this run, summed over workers.
    """

    stream: str
    extractor: str
    num_clips: int
    num_covered: int
    left_out: Mapping[str, tuple[str, ...]]
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What `prepare` ends with.

    Attributes:
        store_path: The store.
        streams: One a stream.
        num_computed: Clips extracted in this run, counted once an extractor.
    """

    store_path: Path
    streams: tuple[StreamCoverage, ...]
    num_computed: int

    def table(self) -> tuple[list[str], list[list[object]]]:
        """Columns and rows for people."""
        columns = ["stream", "extractor", "clips", "left out", "MiB", "seconds"]
        rows: list[list[object]] = []
        for item in self.streams:
            reasons = "; ".join(f"{len(clips)}: {reason}" for reason, clips in item.left_out.items())
            covered = f"{item.num_covered} of {item.num_clips}"
            rows.append(
                [item.stream, item.extractor, covered, reasons, f"{item.size_bytes / 2**20:.1f}", f"{item.seconds:.1f}"]
            )
        return columns, rows

    def summary(self) -> dict[str, Any]:
        """JSON form."""
        return {
            "store": str(self.store_path),
            "num_computed": self.num_computed,
            "streams": {
                item.stream: {
                    "extractor": item.extractor,
                    "num_clips": item.num_clips,
                    "num_covered": item.num_covered,
                    "left_out": {reason: len(clips) for reason, clips in item.left_out.items()},
                    "size_bytes": item.size_bytes,
                    "seconds": item.seconds,
                }
                for item in self.streams
            },
        }
