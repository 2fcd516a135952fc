"""Pure merging and averaging of outputs: windows to samples, folds and models to one answer. Uses numpy only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mersuite.clip import Output, Sample, WindowKey
from mersuite.errors import DataError

DUPLICATE_TOLERANCE = 1e-3
"""Largest gap, relative to the largest value, between two answers for one window that are still one answer.

Why not 0: distributed samplers fill the last batch with rows that another process has too, and the same row in another
batch differs by rounding (1e-6 in float32, 1e-4 in half precision).
"""
STEP_TOLERANCE = 1e-3
"""Largest gap between a window's start and a row of the sample, in rows."""


def merge_windows(outputs: Iterable[Output], samples: Iterable[Sample]) -> dict[str, Output]:
    """Puts windows together: one output a sample, in the order of samples.

    Values of shape (row, dimension) of a sample with a duration run in time: each row is put where its window lies, and
    rows that several windows cover are averaged. Rows per second follow from the key (rows / duration_s). All other
    values are averaged over the sample's windows. The same window given twice counts once. The result depends neither
    on the order of outputs nor on how they were spread over processes.

    Args:
        outputs: One a window, or one a sample; in any order.
        samples: What must be covered, each exactly.

    Returns:
        sample_id to output, whose key spans the sample; float32.

    Raises:
        DataError: If a sample or some of its seconds have no output, an output belongs to no sample or lies outside its
            sample, windows of a sample name different values or rates, or two answers for one window differ.
    """
    by_id = {sample.sample_id: sample for sample in samples}
    windows: dict[str, dict[WindowKey, Output]] = {sample_id: {} for sample_id in by_id}
    for output in outputs:
        of_sample = windows.get(output.key.sample_id)
        if of_sample is None:
            raise DataError(f"output for {output.key.sample_id!r}, which is none of the {len(by_id)} samples asked for")
        seen = of_sample.setdefault(output.key, output)
        if seen is not output:
            _check_duplicate(seen, output)
    missing = [sample_id for sample_id, of_sample in windows.items() if not of_sample]
    if missing:
        raise DataError(f"{len(missing)} of {len(by_id)} samples have no output: {_first(missing)}")
    return {
        sample_id: _merge([of_sample[key] for key in sorted(of_sample)], by_id[sample_id])
        for sample_id, of_sample in windows.items()
    }


def average_outputs(
    members: Sequence[Mapping[str, Output]], weights: Sequence[float] | None = None
) -> dict[str, Output]:
    """Gives the weighted mean of several systems' outputs (folds, seeds, models), summed in float64, as float32.

    Args:
        members: sample_id to output, one mapping a system, all with the same ids, value names and shapes.
        weights: One a member, 0 or more, scaled to a sum of 1; None weighs all alike.

    Raises:
        DataError: If there is no member, members do not fit each other or weights do not fit.
    """
    shares = _shares(len(members), weights)
    first = members[0]
    for index, member in enumerate(members[1:], start=1):
        check_same_ids(first, member, f"member {index}")
    return {
        sample_id: Output(
            key=output.key,
            values=_weighted([member[sample_id].values for member in members], shares, f"sample {sample_id!r}"),
        )
        for sample_id, output in first.items()
    }


def check_same_ids(first: Iterable[str], other: Iterable[str], name: str) -> None:
    """Checks that two systems answer the same samples.

    Raises:
        DataError: With the name of the second one and the first few ids that only one of them has.
    """
    first_ids, other_ids = set(first), set(other)
    lost, extra = sorted(first_ids - other_ids), sorted(other_ids - first_ids)
    if lost or extra:
        parts = [f"lacks {len(lost)} samples ({_first(lost)})"] * bool(lost)
        parts += [f"has {len(extra)} that the first one lacks ({_first(extra)})"] * bool(extra)
        raise DataError(f"{name} {' and '.join(parts)}; systems can be joined on the same samples only")


def _merge(windows: Sequence[Output], sample: Sample) -> Output:
    names = set(windows[0].values)
    for window in windows:
        if set(window.values) != names:
            raise DataError(
                f"sample {sample.sample_id!r}: windows name different values: "
                f"{sorted(names)} and {sorted(window.values)}"
            )
    values = {}
    for name in windows[0].values:
        arrays = [np.asarray(window.values[name]) for window in windows]
        if sample.duration_s is not None and arrays[0].ndim == 2:
            values[name] = _place(arrays, [window.key for window in windows], sample, name)
        else:
            stacked = _stacked(arrays, f"sample {sample.sample_id!r}: {name}")
            values[name] = stacked.mean(axis=0).astype(np.float32)
    return Output(key=WindowKey(sample.sample_id, 0.0, sample.duration_s or 0.0), values=values)


def _place(arrays: Sequence[np.ndarray], keys: Sequence[WindowKey], sample: Sample, name: str) -> np.ndarray:
    """Gives (row, dimension) float32 over the whole sample, the mean of all windows that cover each row."""
    whole_s = float(sample.duration_s or 0.0)
    where = f"sample {sample.sample_id!r}: {name}"
    rate_hz = len(arrays[0]) / (keys[0].duration_s or whole_s)
    num_rows = round(whole_s * rate_hz)
    total = np.zeros((num_rows, arrays[0].shape[1]), dtype=np.float64)
    count = np.zeros(num_rows, dtype=np.int64)
    for array, key in zip(arrays, keys, strict=True):
        duration_s = key.duration_s or whole_s
        if array.ndim != 2 or array.shape[1] != total.shape[1]:
            raise DataError(f"{where}: windows have shapes {arrays[0].shape} and {array.shape}")
        if abs(len(array) - duration_s * rate_hz) > STEP_TOLERANCE * max(1, len(array)):
            raise DataError(
                f"{where}: the window at {key.start_s:g} s has {len(array)} rows in {duration_s:g} s, "
                f"but others run at {rate_hz:g} rows a second"
            )
        start = round(key.start_s * rate_hz)
        if abs(start - key.start_s * rate_hz) > STEP_TOLERANCE:
            raise DataError(
                f"{where}: a window starts at {key.start_s:g} s, between two rows at {rate_hz:g} rows a second"
            )
        if start < 0 or start + len(array) > num_rows:
            raise DataError(
                f"{where}: the window {key.start_s:g} to {key.start_s + duration_s:g} s lies outside the sample's "
                f"{whole_s:g} s"
            )
        total[start : start + len(array)] += array
        count[start : start + len(array)] += 1
    if not count.all():
        gaps = _ranges(np.flatnonzero(count == 0) / rate_hz, 1 / rate_hz)
        raise DataError(
            f"{where}: no window covers {gaps}; every second needs an answer (data.window_s, data.stride_s)"
        )
    return (total / count[:, None]).astype(np.float32)


def _ranges(starts_s: np.ndarray, step_s: float) -> str:
    """Gives "3 to 5 s, 9 to 10 s" for rows that begin at starts_s."""
    runs = np.split(starts_s, np.flatnonzero(np.diff(starts_s) > 1.5 * step_s) + 1)
    named = [f"{run[0]:g} to {run[-1] + step_s:g} s" for run in runs[:5]]
    return ", ".join(named + ["..."] * (len(runs) > 5))


def _check_duplicate(seen: Output, again: Output) -> None:
    for name in {*seen.values, *again.values}:
        first, second = (np.asarray(output.values.get(name, ())) for output in (seen, again))
        scale = max(1.0, float(np.abs(first).max())) if first.size else 1.0
        if first.shape != second.shape or not np.allclose(first, second, rtol=0.0, atol=DUPLICATE_TOLERANCE * scale):
            raise DataError(
                f"sample {seen.key.sample_id!r}: two different answers ({name}) for the window at "
                f"{seen.key.start_s:g} s; outputs of several models are averaged, not merged"
            )


def _shares(num_members: int, weights: Sequence[float] | None) -> np.ndarray:
    if num_members == 0:
        raise DataError("average: need at least one member, got none")
    shares = np.ones(num_members) if weights is None else np.asarray(weights, dtype=np.float64)
    if shares.shape != (num_members,):
        raise DataError(f"average: {num_members} members need as many weights, got {shares.size}")
    if not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise DataError(f"average: weights must be 0 or more with a sum above 0, got {shares.tolist()}")
    return shares / shares.sum()


def _weighted(values: Sequence[Mapping[str, np.ndarray]], shares: np.ndarray, where: str) -> dict[str, np.ndarray]:
    names = list(values[0])
    for other in values[1:]:
        if set(other) != set(names):
            raise DataError(f"{where}: members name different values: {sorted(names)} and {sorted(other)}")
    return {
        name: np.tensordot(
            shares, _stacked([np.asarray(each[name]) for each in values], f"{where}: {name}"), axes=1
        ).astype(np.float32)
        for name in names
    }


def _stacked(arrays: Sequence[np.ndarray], where: str) -> np.ndarray:
    shapes = sorted({array.shape for array in arrays})
    if len(shapes) > 1:
        raise DataError(f"{where}: shapes differ: {', '.join(str(shape) for shape in shapes)}")
    return np.stack(arrays).astype(np.float64)


def _first(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(list(names[:most]) + ["..."] * (len(names) > most))
