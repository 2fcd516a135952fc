"""Rows of unequal length into one tensor with a mask, and batches into one batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from mersuite.clip import Batch
from mersuite.errors import DataError

IGNORED_CLASS = -100
"""Padding of whole-number targets: PyTorch's cross-entropy skips it."""


def pad_rows(
    parts: Sequence[np.ndarray | None], *, num_rows: int | None, num_channels: int, dtype: np.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Puts pieces of a stream into one tensor, padded with zeros at the end.

    Args:
        parts: (time, channel) each; None for a sample that lacks the stream.
        num_rows: Rows of the result; None means those of the longest part, at least 1.
        num_channels: Channels of every part.
        dtype: float32, or int64 for token ids.

    Returns:
        (batch, time, channel) of dtype, or (batch, token) for int64, and (batch, time) bool, True = real.
    """
    length = num_rows if num_rows is not None else max([1, *(len(part) for part in parts if part is not None)])
    rows = np.empty((len(parts), length, num_channels), dtype)
    mask = np.ones((len(parts), length), dtype=bool)
    for index, part in enumerate(parts):
        count = 0 if part is None else len(part)
        if part is not None:
            rows[index, :count] = part
        if count < length:
            rows[index, count:] = 0
            mask[index, count:] = False
    if rows.dtype == np.int64:
        rows = rows[:, :, 0]
    return torch.from_numpy(rows), torch.from_numpy(mask)


def stack_targets(arrays: Sequence[np.ndarray]) -> torch.Tensor:
    """Stacks targets: float32, or int64 for whole numbers. Ragged first axes are padded with NaN, or -100.

    Why NaN: a padded second that slips into a loss or a metric shows at once, and masks are `~isnan(target)`.

    Raises:
        DataError: If the arrays differ in more than their first axis.
    """
    whole = all(np.issubdtype(array.dtype, np.integer) for array in arrays)
    shapes = {array.shape[1:] for array in arrays} | {(array.ndim,) for array in arrays if array.ndim != arrays[0].ndim}
    if len(shapes) > 1:
        raise DataError(
            f"targets of one name need equal shapes but for the first axis, got {[a.shape for a in arrays]}"
        )
    if arrays[0].ndim == 0:
        return torch.from_numpy(np.stack(arrays).astype(np.int64 if whole else np.float32))
    shape = (len(arrays), max(len(array) for array in arrays), *arrays[0].shape[1:])
    result = np.full(shape, IGNORED_CLASS, np.int64) if whole else np.full(shape, np.nan, np.float32)
    for index, array in enumerate(arrays):
        result[index, : len(array)] = array
    return torch.from_numpy(result)


def as_is(batch: Any) -> Any:
    """The collate function for datasets that read whole batches."""
    return batch


def join(batches: Sequence[Batch]) -> Batch:
    """Joins batches row by row; shorter streams and targets are padded as in pad_rows and stack_targets.

    Raises:
        DataError: If there is none, or they differ in the names of streams, targets or texts.
    """
    if not batches:
        raise DataError("join: need at least one batch, got none")
    for what, names_of in _NAMES.items():
        names = [names_of(batch) for batch in batches]
        if any(item != names[0] for item in names):
            raise DataError(f"join: batches have different {what}: {sorted(map(sorted, names))}")
    first = batches[0]
    weights = [torch.ones(len(batch)) if batch.weight is None else batch.weight for batch in batches]
    return Batch(
        keys=[key for batch in batches for key in batch.keys],
        streams={name: _cat([batch.streams[name] for batch in batches], 0) for name in first.streams},
        masks={name: _cat([batch.masks[name] for batch in batches], 0) for name in first.masks},
        target={name: _cat([batch.target[name] for batch in batches], None) for name in first.target},
        weight=None if all(batch.weight is None for batch in batches) else torch.cat(weights),
        texts={name: [text for batch in batches for text in batch.texts[name]] for name in first.texts},
    )


_NAMES: dict[str, Callable[[Batch], set[str]]] = {
    "streams": lambda batch: set(batch.streams),
    "targets": lambda batch: set(batch.target),
    "texts": lambda batch: set(batch.texts),
}


def _cat(tensors: Sequence[torch.Tensor], fill: int | None) -> torch.Tensor:
    if tensors[0].ndim == 1:
        return torch.cat(list(tensors))
    if fill is None:
        value: float = float("nan") if tensors[0].is_floating_point() else IGNORED_CLASS
    else:
        value = fill
    length = max(tensor.shape[1] for tensor in tensors)
    result = tensors[0].new_full((sum(map(len, tensors)), length, *tensors[0].shape[2:]), value)
    start = 0
    for tensor in tensors:
        result[start : start + len(tensor), : tensor.shape[1]] = tensor
        start += len(tensor)
    return result
