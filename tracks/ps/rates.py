"""Finds sampling rates that no file of MER-PS states: samples over rated seconds, checked against the baselines.

The code submission carries this file: standard library only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

BASELINE_S = 5.0
EEG_RATES_HZ = (100.0, 125.0, 128.0, 160.0, 200.0, 250.0, 256.0, 300.0, 400.0, 500.0, 512.0, 1000.0, 1024.0, 2000.0)
FNIRS_RATES_HZ = (5.0, 7.8125, 10.0, 12.5, 20.0, 25.0, 1000.0 / 21.0, 50.0, 100.0)
TRIAL_TOLERANCE_S = 1.5
"""Why: a leaderboard trial has one row less than its signals have seconds; a wrong rate is off by far more."""
BASELINE_TOLERANCE_S = 0.1


class SignalFile(NamedTuple):
    """One of a subject's MATLAB files: where it is, and variable name to shape."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]


def nearest_rate(rate_hz: float, stream: str) -> float:
    """Gives the known sampling rate nearest in ratio to a measured one; stream is "eeg" or "fnirs".

    >>> nearest_rate(1003.4, "eeg")
    1000.0
    """
    known = EEG_RATES_HZ if stream == "eeg" else FNIRS_RATES_HZ
    return min(known, key=lambda candidate: abs(math.log(candidate / rate_hz)))


def find_rate(
    stream: str,
    files: Mapping[str, SignalFile],
    lengths: Mapping[str, Mapping[int, int]],
    seconds: Mapping[int, int] | None,
    faults: list[str],
) -> float:
    """Gives the known rate that most trials and baselines vote for; those that contradict it become faults.

    Args:
        stream: "eeg" or "fnirs".
        files: Stream to file, for messages.
        lengths: Stream to video number to samples; "<stream>_baseline" beside the stream.
        seconds: Video number to rated seconds; None where there are no ratings.
        faults: Messages are added to it.

    Returns:
        The rate in Hz; 0.0 where nothing tells, which is a fault if there is a signal.
    """
    baselines = lengths.get(f"{stream}_baseline", {})
    rated = {video: length for video, length in (seconds or {}).items() if video in lengths[stream]}
    votes = [nearest_rate(num / BASELINE_S, stream) for num in baselines.values()]
    votes += [nearest_rate(lengths[stream][video] / length, stream) for video, length in rated.items()]
    if not votes:
        if lengths[stream]:
            faults.append(
                f"{files[stream].path}: the sampling rate cannot be found without labels, sample_ids.csv or baselines;"
                " add one of them"
            )
        return 0.0
    rate_hz = Counter(votes).most_common(1)[0][0]
    for video, num in baselines.items():
        path = files[f"{stream}_baseline"].path
        faults += _length_faults(path, video, num, rate_hz, BASELINE_S, BASELINE_TOLERANCE_S)
    for video, length in rated.items():
        faults += _length_faults(files[stream].path, video, lengths[stream][video], rate_hz, length, TRIAL_TOLERANCE_S)
    return rate_hz


def _length_faults(path: Path, video: int, num: int, rate_hz: float, length_s: float, tolerance_s: float) -> list[str]:
    if abs(num / rate_hz - length_s) <= tolerance_s:
        return []
    return [
        f"{path}: video_{video}: {num} samples are {num / length_s:.2f} Hz over {length_s:g} s, but the subject's other"
        f" variables are at {rate_hz:.3f} Hz ({num / rate_hz:.2f} s); rates must agree, check the file and its labels"
    ]
