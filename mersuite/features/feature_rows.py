"""Rows of features of one clip: fewer of them, their mean, and what they take on a disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from mersuite.clip import Clip, Signal
from mersuite.features.base import output_name

Level = Literal["utt", "fra"]

STEP_HZ = 1.0
"""Nominal rate of rows that have no common clock, such as tokens and patches."""
_PROBE_CLIPS = 8
_EARLY_S = 6e-4
"""As much a row may come before its due time: mkv files round times to milliseconds."""


def uniform_rows(num_rows: int, num_wanted: int) -> np.ndarray:
    """Gives the first row of each of equal parts; where there are too few rows, all of them and the last again.

    The organisers' rule for 16 frames of VideoMAE and 64 of DINOv2.

    >>> uniform_rows(10, 4).tolist(), uniform_rows(2, 4).tolist()
    ([0, 2, 5, 7], [0, 1, 1, 1])
    """
    num_parts = min(num_rows, num_wanted)
    first = np.arange(num_parts) * num_rows // num_parts
    return np.concatenate((first, np.full(num_wanted - num_parts, first[-1])))


def pool_rows(rows: np.ndarray, rate_hz: float, pooled_hz: float) -> np.ndarray:
    """Averages rows over stretches of 1 / pooled_hz seconds; the last stretch may be shorter.

    Args:
        rows: (row, width).
        rate_hz: Rows a second.
        pooled_hz: Wanted, at most rate_hz.

    Returns:
        (stretch, width) float32. A row belongs to the stretch that its middle lies in.

    >>> pool_rows(np.array([[0.0], [2.0], [4.0], [6.0], [9.0]]), 2.0, 1.0).tolist()
    [[1.0], [5.0], [9.0]]
    """
    stretch = np.floor((np.arange(len(rows)) + 0.5) * (pooled_hz / rate_hz)).astype(int)
    starts = np.flatnonzero(np.diff(stretch, prepend=-1))
    counts = np.diff(starts, append=len(rows))
    sums = np.add.reduceat(rows.astype(np.float64), starts, axis=0)
    return (sums / counts[:, None]).astype(np.float32)


def stream_names(feature: str, stream: str, levels: Sequence[Level]) -> dict[Level, str]:
    """Names what is written: `<feature>-UTT` and `<feature>-FRA`, with the role of the stream.

    >>> stream_names("chinese-hubert-large", "voice.speaker", ("utt",))
    {'utt': 'chinese-hubert-large-UTT_speaker'}
    """
    return {level: output_name(f"{feature}-{level.upper()}", stream) for level in levels}


def rows_on_show(times_s: Sequence[float] | np.ndarray, rate_hz: float) -> np.ndarray:
    """Gives the row on show in each step of a clock: (step,) row numbers.

    A row stands from the step on that it begins in. Rows as fast as the clock stand once each; slower ones are held,
    the last as long as rows last as a rule.

    Args:
        times_s: When each row begins, rising, from 0 on; one a step at most.
        rate_hz: Steps a second.

    >>> rows_on_show([0.0, 0.5, 1.0], 2.0).tolist(), rows_on_show([0.0, 0.5, 1.0], 4.0).tolist()
    ([0, 1, 2], [0, 0, 1, 1, 2, 2])
    """
    times = np.asarray(times_s, np.float64)
    last_s = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    *steps, end = np.floor((np.append(times, times[-1] + last_s) + _EARLY_S) * rate_hz).astype(int)
    return np.maximum(np.searchsorted(steps, np.arange(max(end, steps[-1] + 1)), side="right") - 1, 0)


def level_signals(
    rows: np.ndarray,
    rate_hz: float,
    names: Mapping[Level, str],
    pooled_hz: float | None,
    *,
    shown: np.ndarray | None = None,
) -> dict[str, Signal]:
    """Gives the streams of one clip: the mean of all rows, and the rows themselves or pooled.

    Args:
        rows: (row, width).
        rate_hz: Rows a second.
        names: Level to stream.
        pooled_hz: Rate of the stored rows; None keeps them all.
        shown: Which row stands at each step of rate_hz, from rows_on_show; None where every row is a step. The mean
            counts each row once.
    """
    made: dict[str, Signal] = {}
    if "utt" in names:
        mean = rows.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        made[names["utt"]] = Signal(data=mean, rate_hz=0.0, ch_names=())
    if "fra" in names:
        rows = rows if shown is None else rows[shown]
        pooled = rows.astype(np.float32, copy=False) if pooled_hz is None else pool_rows(rows, rate_hz, pooled_hz)
        made[names["fra"]] = Signal(data=pooled, rate_hz=pooled_hz or rate_hz, ch_names=())
    return made


def estimate(clips: Sequence[Clip], width: int, levels: Sequence[Level], num_rows: Callable[[Clip], float]) -> int:
    """Gives about how many bytes the streams of clips take: 4 a number.

    Args:
        clips: All that will be extracted.
        width: Numbers a row.
        levels: What is written.
        num_rows: Rows of a clip; asked for eight of them, spread over all.
    """
    total = len(clips) * width * 4 if "utt" in levels else 0
    if "fra" in levels and clips:
        places = np.unique(np.linspace(0, len(clips) - 1, _PROBE_CLIPS).round().astype(int))
        mean = float(np.mean([num_rows(clips[place]) for place in places]))
        total += round(len(clips) * mean * width * 4)
    return total
