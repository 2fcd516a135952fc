"""Windows of stored streams as batches, read in one pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from mersuite.clip import Batch, Sample, Signal, WindowKey
from mersuite.data.collate import pad_rows, stack_targets
from mersuite.data.windows import window_rows
from mersuite.errors import DataError
from mersuite.models.base import StreamInfo

_MAX_OPEN = 16_384
"""Streams kept open between batches. They are views and cost some 600 bytes each; finding one again costs 10 us."""
_MAX_TABLE_BYTES = 2**30
"""Vectors of all samples are kept in memory up to this size a stream."""
TargetOf = Callable[[Sample], Mapping[str, np.ndarray]]


class SignalReader(Protocol):
    """What stored streams are read with; mersuite.prepare.FeatureReader is one.

    One that also has `vectors(clip_ids, stream)` is asked for the vectors of all clips at once.
    """

    def get(self, clip_id: str, stream: str) -> Signal | None:
        """Gives a clip's stream, or None where the clip has none."""

    def example(self, stream: str) -> Signal | None:
        """Gives the stream of some clip that has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Layout:
    num_channels: int
    rate_hz: float
    dtype: np.dtype


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A vector a sample, all in memory: what a network on whole clips reads every epoch.

    Attributes:
        values: (clip, 1, channel) float32; the last row is zeros, for samples without the stream.
        place: Sample id to its row.
    """

    values: torch.Tensor
    place: Mapping[str, int]

    def rows(self, sample_ids: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        index = torch.tensor([self.place[name] for name in sample_ids])
        return self.values[index], (index < len(self.values) - 1).unsqueeze(1)


class WindowDataset(torch.utils.data.Dataset):
    """Batches of windows, cut from continuous stored streams.

    `__getitems__`, which a DataLoader calls with the indices of a batch, gives a ready Batch; the collate function is
    mersuite.data.collate.as_is. An index is a position in `windows` or a WindowKey of one of the samples, which is how
    a sampler shifts windows without the dataset having a state.

    Streams that a clip lacks are zeros with a mask of False. A stream that ends up to one row before its window does
    (rates such as 1000/21 Hz) is padded with a masked row; more than that is an error.
    Targets with two axes (second, dimension) of samples with a duration are cut to the window; others stay whole.

    Args:
        samples: What the windows are of; at least one.
        windows: From plan_windows.
        reader: Gives stored streams.
        streams: Which streams.
        target_of: Gives a sample's target, called once a sample here and now; None where there is none to give.
        known: What a trained network knows of its streams; one that no clip has then is missing from every row.

    Raises:
        DataError: If there is no sample, no clip has a stream that is not known either, or targets do not fit each
            other or their sample.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        windows: Sequence[WindowKey],
        reader: SignalReader,
        streams: Collection[str],
        target_of: TargetOf | None,
        *,
        known: Mapping[str, StreamInfo] | None = None,
    ) -> None:
        if not samples or not windows:
            raise DataError("there is no sample to load; check the folds (cv.*) and `mersuite check`")
        self.windows = list(windows)
        self._samples = {sample.sample_id: sample for sample in samples}
        self._reader = reader
        self._layouts = {stream: _layout_of(reader, stream, samples, known or {}) for stream in streams}
        self._targets = {} if target_of is None else {item.sample_id: dict(target_of(item)) for item in samples}
        self._target_names = _common_names(self._targets)
        self._text_names = sorted({name for sample in samples for name in sample.texts})
        self._open: dict[tuple[str, str], Signal | None] = {}
        self._tables: dict[str, _Table | None] = {}
        self._has_weights = any(sample.weight != 1.0 for sample in samples)

    def __getstate__(self) -> dict[str, Any]:
        # A pickled view would carry its data along; a worker opens its own.
        return {**self.__dict__, "_open": {}, "_tables": {}}

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int | WindowKey) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int | WindowKey]) -> Batch:
        """Reads a batch.

        Raises:
            DataError: If a stream does not cover a window or differs between clips.
        """
        keys = [index if isinstance(index, WindowKey) else self.windows[index] for index in indices]
        samples = [self._samples[key.sample_id] for key in keys]
        streams, masks = {}, {}
        for stream, layout in self._layouts.items():
            streams[stream], masks[stream] = self._read(stream, layout, keys, samples)
        target = {
            name: stack_targets([self._cut(name, key, item) for key, item in zip(keys, samples, strict=True)])
            for name in self._target_names
        }
        return Batch(
            keys=keys,
            streams=streams,
            masks=masks,
            target=target,
            weight=torch.tensor([item.weight for item in samples]) if self._has_weights else None,
            texts={name: [item.texts.get(name, "") for item in samples] for name in self._text_names},
        )

    def _read(
        self, stream: str, layout: _Layout, keys: Sequence[WindowKey], samples: Sequence[Sample]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        table = self._table(stream, layout) if layout.rate_hz == 0.0 else None
        if table is not None:
            return table.rows([key.sample_id for key in keys])
        parts: list[np.ndarray | None] = []
        fixed = layout.rate_hz > 0 and all(key.duration_s == keys[0].duration_s > 0 for key in keys)
        for key, sample in zip(keys, samples, strict=True):
            stored = sample.stored(stream)
            signal = None if stored is None else self._signal(sample.clip_id, stored, layout)
            parts.append(None if signal is None else _window_of(signal, key, stream, sample.clip_id))
        num_rows = window_rows(layout.rate_hz, 0.0, keys[0].duration_s)[1] if fixed else None
        return pad_rows(parts, num_rows=num_rows, num_channels=layout.num_channels, dtype=layout.dtype)

    def _table(self, stream: str, layout: _Layout) -> _Table | None:
        if stream not in self._tables:
            self._tables[stream] = _table_of(self._reader, list(self._samples.values()), stream, layout)
        return self._tables[stream]

    def _signal(self, clip_id: str, stream: str, layout: _Layout) -> Signal | None:
        place = (clip_id, stream)
        if place not in self._open:
            if len(self._open) >= _MAX_OPEN:
                self._open.clear()
            self._open[place] = self._checked(clip_id, stream, layout)
        return self._open[place]

    def _checked(self, clip_id: str, stream: str, layout: _Layout) -> Signal | None:
        signal = self._reader.get(clip_id, stream)
        if signal is None:
            return None
        found = (signal.data.shape[1], signal.rate_hz, signal.data.dtype)
        if found != (layout.num_channels, layout.rate_hz, layout.dtype):
            raise DataError(
                f"stream {stream!r}: clip {clip_id!r} has {found[0]} channels at {found[1]:g} Hz ({found[2]}), others "
                f"have {layout.num_channels} at {layout.rate_hz:g} Hz ({layout.dtype}); all clips must agree"
            )
        return signal

    def _cut(self, name: str, key: WindowKey, sample: Sample) -> np.ndarray:
        array = np.asarray(self._targets[key.sample_id][name])
        if sample.duration_s is None or array.ndim != 2 or key.duration_s == 0.0:
            return array
        first, count = window_rows(1.0, key.start_s, key.duration_s)
        if first < 0 or first + count > len(array):
            raise DataError(
                f"sample {key.sample_id!r}: target {name!r} has {len(array)} seconds, the window needs {first} to "
                f"{first + count}"
            )
        return array[first : first + count]


def example_of(reader: SignalReader, samples: Sequence[Sample], stream: str) -> Signal | None:
    """Gives the signal of some clip that plays the part of a model's stream for the samples; None where none does."""
    names = dict.fromkeys(sample.stored(stream) for sample in samples)
    found = (reader.example(name) for name in names if name is not None)
    return next((signal for signal in found if signal is not None), None)


def _layout_of(
    reader: SignalReader, stream: str, samples: Sequence[Sample], known: Mapping[str, StreamInfo]
) -> _Layout:
    signal = example_of(reader, samples, stream)
    if signal is None and stream in known:
        info = known[stream]
        return _Layout(num_channels=info.num_channels, rate_hz=info.rate_hz, dtype=np.dtype(info.dtype))
    if signal is None:
        raise DataError(
            f"stream {stream!r}: no clip has it; take it out with model.encoders.{stream}=null or add its recordings"
        )
    if signal.data.dtype == np.int64 and signal.data.shape[1] != 1:
        raise DataError(f"stream {stream!r}: token ids need one channel, got {signal.data.shape[1]}")
    return _Layout(num_channels=signal.data.shape[1], rate_hz=signal.rate_hz, dtype=signal.data.dtype)


def _table_of(reader: SignalReader, samples: Sequence[Sample], stream: str, layout: _Layout) -> _Table | None:
    """Reads a stream of one vector a clip for all samples; None where it must be read one by one.

    Why: a clip at a time costs twenty times as much, every fold and evaluation reads them anew, and 20,000 vectors of
    1,024 take 80 MB.
    """
    read_many = getattr(reader, "vectors", None)
    if read_many is None or layout.dtype != np.float32:
        return None
    wanted = {sample.sample_id: (sample.clip_id, sample.stored(stream)) for sample in samples}
    vectors: dict[tuple[str, str | None], np.ndarray] = {}
    for stored in dict.fromkeys(name for _, name in wanted.values() if name is not None):
        clip_ids = dict.fromkeys(clip_id for clip_id, name in wanted.values() if name == stored)
        found = read_many(list(clip_ids), stored)
        if found is None or any(len(vector) != layout.num_channels for vector in found.values()):
            return None
        vectors |= {(clip_id, stored): vector for clip_id, vector in found.items()}
    if not vectors or len(vectors) * layout.num_channels * 4 > _MAX_TABLE_BYTES:
        return None
    values = np.zeros((len(vectors) + 1, 1, layout.num_channels), np.float32)
    np.stack(list(vectors.values()), out=values[:-1, 0])
    rows = {key: row for row, key in enumerate(vectors)}
    place = {name: rows.get(key, len(vectors)) for name, key in wanted.items()}
    return _Table(values=torch.from_numpy(values), place=place)


def _window_of(signal: Signal, key: WindowKey, stream: str, clip_id: str) -> np.ndarray:
    """Cuts a view; one that lacks its last row is one row shorter."""
    if signal.rate_hz == 0 or key.duration_s == 0.0:
        return signal.data
    first, count = window_rows(signal.rate_hz, key.start_s, key.duration_s, signal.start_s)
    if first < 0 or first + count > len(signal.data) + 1:
        raise DataError(
            f"stream {stream!r} of clip {clip_id!r} runs from {signal.start_s:g} to "
            f"{signal.start_s + signal.duration_s:g} s and does not cover the window {key.start_s:g} to "
            f"{key.start_s + key.duration_s:g} s; compare the recording's length with its labels (`mersuite check`)"
        )
    return signal.data[first : first + count]


def _common_names(targets: Mapping[str, Mapping[str, np.ndarray]]) -> tuple[str, ...]:
    first: tuple[str, ...] | None = None
    for sample_id, target in targets.items():
        names = tuple(target)
        if first is None:
            first = names
        elif set(names) != set(first):
            raise DataError(f"sample {sample_id!r} has targets {sorted(names)}, others have {sorted(first)}")
    return first or ()
