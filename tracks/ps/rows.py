"""Answers to rows of predictions.csv. The code submission carries this file: numpy and the standard library only."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mersuite.errors import SubmissionError
from mersuite.whole_files import whole_file
from tracks.ps.layout import LABEL_MAX, LABEL_MIN, row_id

COLUMNS = ("sample_id", "valence", "arousal")


def round_ratings(answer: Any, sample_id: str) -> np.ndarray:
    """Gives (second, 2) int64: rounded to the nearest integer, halves to the even one, then clipped to 1..255.

    Why halves to even: it is what numpy.rint and Python's round do, and it adds no bias over many rows.

    Args:
        answer: (second, 2) valence and arousal on the raw scale.
        sample_id: The trial, for messages.

    Raises:
        SubmissionError: If the shape is another or a value is not finite.

    >>> round_ratings([[0.2, 255.6], [127.5, 128.5]], "predict1/video_01").tolist()
    [[1, 255], [128, 128]]
    """
    values = np.asarray(answer, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != 2 or not len(values):
        raise SubmissionError(f"{sample_id}: need (second, 2) valence and arousal, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise SubmissionError(
            f"{sample_id}: {int((~np.isfinite(values)).sum())} of {values.size} ratings are not finite"
        )
    return np.clip(np.rint(values), LABEL_MIN, LABEL_MAX).astype(np.int64)


def rows_of(answers: Mapping[str, Any], ids: Mapping[str, Sequence[int]] | None = None) -> list[tuple[str, int, int]]:
    """Gives the rows of predictions.csv.

    Args:
        answers: Trial id to (second, 2) on the raw scale.
        ids: Rows that are asked for, as `tracks.ps.layout.read_sample_ids` gives them, in its order; None for every
            second of every answer, in the order of answers.

    Raises:
        SubmissionError: If ids asks for a trial or second that no answer covers, or a trial is answered that it does
            not ask for.
    """
    ratings = {sample_id: round_ratings(answer, sample_id) for sample_id, answer in answers.items()}
    if ids is None:
        wanted: Mapping[str, Sequence[int]] = {name: range(len(values)) for name, values in ratings.items()}
    else:
        wanted = ids
        _check_covered(ratings, ids)
    return [
        (row_id(sample_id, second), int(ratings[sample_id][second, 0]), int(ratings[sample_id][second, 1]))
        for sample_id, seconds in wanted.items()
        for second in seconds
    ]


def write_rows(rows: Iterable[tuple[str, int, int]], out: Path) -> None:
    """Writes predictions.csv whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    with whole_file(out) as stream:
        stream.write(text.getvalue().encode())


def _check_covered(ratings: Mapping[str, np.ndarray], ids: Mapping[str, Sequence[int]]) -> None:
    missing = [
        row_id(name, second)
        for name, seconds in ids.items()
        for second in seconds
        if second >= len(ratings.get(name, ()))
    ]
    if missing:
        raise SubmissionError(
            f"{len(missing)} rows of sample_ids.csv have no prediction: {', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}; predict the same split of the same data"
        )
    extra = [name for name in ratings if name not in ids]
    if extra:
        raise SubmissionError(
            f"{len(extra)} predicted trials are not in sample_ids.csv: {', '.join(extra[:3])}"
            f"{', ...' if len(extra) > 3 else ''}; predict the same split of the same data"
        )
