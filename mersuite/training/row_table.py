"""Vectors of clips in memory, one tensor a stream, and which of them a fold learns from and is chosen by.

Axes: R rows in memory, S streams, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mersuite.clip import Sample
from mersuite.data.dataset import SignalReader
from mersuite.models.base import StreamInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class RowTable:
    """Rows in memory.

    Attributes:
        vectors: (R, C) float32 for each stream of the networks, in their order; zeros where a row lacks the stream.
        there: (R, S) bool, True = the row has the stream.
    """

    vectors: tuple[torch.Tensor, ...]
    there: torch.Tensor

    def to(self, device: torch.device) -> RowTable:
        """Gives the table on a device."""
        return RowTable(vectors=tuple(item.to(device) for item in self.vectors), there=self.there.to(device))


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRows:
    """Which rows a network learns from and is chosen by.

    Attributes:
        train: (n,) int64 places in the table.
        target: (n,) int64 classes.
        weight: (n,) float32 weights in the loss; None means all 1.
        val: (v,) int64 places in the table.
        score: (v,) int64 classes as answered -> the value that chooses the epoch.
    """

    train: torch.Tensor
    target: torch.Tensor
    weight: torch.Tensor | None
    val: torch.Tensor
    score: Callable[[np.ndarray], float]


def read_table(reader: SignalReader, samples: Sequence[Sample], streams: Mapping[str, StreamInfo]) -> RowTable | None:
    """Reads the samples' vectors, a row a sample in their order; None where a clip has more than one row of a stream.

    Args:
        reader: Gives stored streams.
        samples: What to read.
        streams: Streams of the networks, in their order; they were compared over all samples.
    """
    there = torch.zeros((len(samples), len(streams)), dtype=torch.bool)
    vectors = []
    for place, (stream, info) in enumerate(streams.items()):
        rows = np.zeros((len(samples), info.num_channels), dtype=np.float32)
        for row, sample in enumerate(samples):
            stored = sample.stored(stream)
            signal = None if stored is None else reader.get(sample.clip_id, stored)
            if signal is None:
                continue
            if signal.data.shape != (1, info.num_channels):
                return None
            rows[row] = signal.data[0]
            there[row, place] = True
        vectors.append(torch.from_numpy(rows))
    return RowTable(vectors=tuple(vectors), there=there)
