"""Which stretches of samples the network sees, and which rows of a stream belong to a stretch. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable

from mersuite.clip import Sample, WindowKey
from mersuite.errors import ConfigError, DataError


def plan_windows(samples: Iterable[Sample], window_s: float | None, stride_s: float | None) -> list[WindowKey]:
    """Gives the windows of samples, in the order of samples and of time.

    Windows start at whole seconds, every stride_s. Where the last one would not reach the end of the sample, one more
    is aligned to the end, so that every second is covered and no window is padded.

    Args:
        samples: What to cut.
        window_s: Length of a window in whole seconds; None gives each sample whole.
        stride_s: Step between starts in whole seconds, at most window_s; None means window_s.

    Raises:
        ConfigError: If lengths are not whole seconds above 0, a stride leaves gaps, or a sample does not run in time.
        DataError: If a sample is shorter than a window.

    >>> plan_windows([Sample(sample_id="a", clip_id="a", groups={}, duration_s=25)], 10, 10)
    [WindowKey(sample_id='a', start_s=0.0, duration_s=10.0), WindowKey(sample_id='a', start_s=10.0, duration_s=10.0), \
WindowKey(sample_id='a', start_s=15.0, duration_s=10.0)]
    """
    if window_s is None:
        return [WindowKey(sample.sample_id, 0.0, float(sample.duration_s or 0.0)) for sample in samples]
    window = _whole_seconds(window_s, "data.window_s")
    stride = window if stride_s is None else _whole_seconds(stride_s, "data.stride_s")
    if stride > window:
        raise ConfigError(
            f"data.stride_s: {stride} s is longer than data.window_s={window}, which leaves seconds without a window; "
            f"use at most {window}"
        )
    return [
        WindowKey(sample.sample_id, float(start), float(window))
        for sample in samples
        for start in _starts(last_start_s(sample, window), stride)
    ]


def last_start_s(sample: Sample, window_s: float) -> int:
    """Gives the last whole second at which a window fits into a sample.

    Raises:
        ConfigError: If the sample does not run in time.
        DataError: If it is shorter than the window.
    """
    if sample.duration_s is None:
        raise ConfigError(
            f"data.window_s: sample {sample.sample_id!r} has one target and no length in seconds; "
            "use data.window_s=null"
        )
    if sample.duration_s < window_s:
        raise DataError(
            f"sample {sample.sample_id!r} lasts {sample.duration_s:g} s, shorter than data.window_s={window_s:g}; "
            "choose a shorter window or leave the sample out"
        )
    return math.floor(sample.duration_s - window_s)


def window_rows(rate_hz: float, start_s: float, duration_s: float, first_row_s: float = 0.0) -> tuple[int, int]:
    """Gives the first row of a window in a stream and the number of its rows, which depends on its length only.

    Args:
        rate_hz: Exact rate of the stream, such as 1000/21; it is never rounded.
        start_s: Start of the window in the clip.
        duration_s: Length of the window.
        first_row_s: Time of the stream's first row in the clip.

    >>> window_rows(1000 / 21, 63.0, 10.0)
    (3000, 476)
    """
    return math.floor((start_s - first_row_s) * rate_hz + 0.5), math.floor(duration_s * rate_hz + 0.5)


def _starts(last: int, stride: int) -> list[int]:
    starts = list(range(0, last + 1, stride))
    return starts if starts[-1] == last else [*starts, last]


def _whole_seconds(value: float, key: str) -> int:
    if value < 1 or value != int(value):
        raise ConfigError(
            f"{key}: need whole seconds from 1 on, because targets are given by the second; got {value:g}"
        )
    return int(value)
