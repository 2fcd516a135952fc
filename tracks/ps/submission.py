"""predictions.csv of ps: written, read back and scored."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mersuite.clip import Prediction
from mersuite.errors import SubmissionError
from mersuite.formats.manifest import is_manifest, read_manifest
from mersuite.predictions import is_prediction_file, read_predictions
from tracks.ps.layout import LABEL_MAX, LABEL_MIN, STREAMS, row_id, seconds_of, split_row_id
from tracks.ps.reader import TARGET, manifest_trial
from tracks.ps.rows import COLUMNS, rows_of, write_rows
from tracks.ps.scores import valence_arousal_metrics

Table = dict[str, tuple[float, float]]
"""Row id such as predict1_V01_T000 -> (valence, arousal) on the raw scale."""


def write_predictions_csv(
    predictions: Sequence[Prediction], out: Path, *, uses_prior: bool | None, row_ids: Sequence[str] = ()
) -> str:
    """Writes predictions.csv, reads it back and gives a line that says what was written.

    Ratings are rounded (halves to even), then clipped to 1..255.

    Args:
        predictions: One a trial; answers are (second, 2) on the raw scale.
        out: The csv file.
        uses_prior: Whether the stimulus prior took part, for the line; None where nobody knows. Why not in the file:
            its columns are fixed, and the organisers' rule asks for the statement beside it.
        row_ids: Rows to write, in this order; () writes every second of every trial.

    Raises:
        SubmissionError: If there is no prediction, a trial is predicted twice, ratings are not finite or ids and
            predictions do not fit. Nothing is written then.
        DataError: If the id of a row or a trial is malformed.
    """
    answers = {prediction.sample_id: prediction.answer for prediction in predictions}
    if not answers:
        raise SubmissionError(f"{out}: there is no prediction to write; `mersuite predict` makes them")
    if len(answers) != len(predictions):
        raise SubmissionError(
            f"{out}: {len(predictions) - len(answers)} trials are predicted twice; need one prediction each"
        )
    rows = _asked_rows(answers, row_ids) if row_ids else rows_of(answers)
    write_rows(rows, out)
    written = read_table(out)
    if written != {name: (valence, arousal) for name, valence, arousal in rows}:
        out.unlink()
        raise SubmissionError(f"{out}: what was read back is not what was written; is the disk full or failing?")
    prior = {
        True: "the stimulus prior was used",
        False: "no stimulus prior was used",
        None: "use of a prior is not stated",
    }
    return f"{out}: {len(rows)} rows of {len(answers)} trials; {prior[uses_prior]}"


def _asked_rows(answers: Mapping[str, Any], row_ids: Sequence[str]) -> list[tuple[str, int, int]]:
    rows = rows_of(answers, seconds_of(row_ids))
    found = {split_row_id(name): (valence, arousal) for name, valence, arousal in rows}
    return [(name, *found[split_row_id(name)]) for name in row_ids]


def read_table(path: Path) -> Table:
    """Reads predictions.csv, targets.csv or a prediction file as row id -> (valence, arousal).

    A prediction file is read as it stands: its answers are already what the csv would hold. Of a manifest of own
    recordings the ratings of its test rows are read, or of all rows where no test row is rated; NaN stands for clips
    without ratings.

    Raises:
        SubmissionError: If the file is missing or empty, its columns are others, an id repeats, or a value is no number
            from 1 to 255.
        DataError: If a manifest is at fault.
    """
    if not path.is_file():
        raise SubmissionError(f"{path}: no such file; need a csv with {','.join(COLUMNS)} or a prediction file")
    if is_prediction_file(path):
        table = _read_jsonl(path)
    else:
        table = _read_manifest(path) if is_manifest(path) else _read_csv(path)
    if not table:
        raise SubmissionError(f"{path}: the file holds no row; need one row a second of every trial")
    return table


def score_tables(
    pred: Mapping[str, tuple[float, float]], target: Mapping[str, tuple[float, float]]
) -> dict[str, float]:
    """Scores predictions against targets, joined by row id; rows whose target is NaN are not counted.

    Raises:
        SubmissionError: If a target has no prediction, a prediction has no target, or no target is known.

    >>> score_tables({"a_V01_T000": (100, 90)}, {"a_V01_T000": (110, 90)})["mae"]
    5.0
    """
    missing = [name for name in target if name not in pred]
    if missing:
        raise SubmissionError(f"{len(missing)} of {len(target)} rows have no prediction: {_first(missing)}")
    extra = [name for name in pred if name not in target]
    if extra:
        raise SubmissionError(f"{len(extra)} predicted rows have no target: {_first(extra)}; is it the same split?")
    names = [name for name, values in target.items() if not np.isnan(values).any()]
    if not names:
        raise SubmissionError(
            f"none of the {len(target)} rows has a known target; fill in the ratings to score against"
        )
    return valence_arousal_metrics(
        np.array([pred[name] for name in names], dtype=np.float64).reshape(-1, 2),
        np.array([target[name] for name in names], dtype=np.float64).reshape(-1, 2),
    )


def _read_jsonl(path: Path) -> Table:
    header, predictions = read_predictions(path, track="ps")
    table: Table = {}
    for prediction in predictions:
        values = np.asarray(prediction.answer, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != 2:
            raise SubmissionError(
                f"{path}: {prediction.sample_id}: need (second, 2) valence and arousal, got shape {values.shape}"
            )
        for second, (valence, arousal) in enumerate(values.tolist()):
            name = row_id(prediction.sample_id, second)
            table[name] = (_in_range(valence, path, name, "valence"), _in_range(arousal, path, name, "arousal"))
    return {name: table[name] for name in header.row_ids or table if name in table}


def _read_manifest(path: Path) -> Table:
    rows = read_manifest(path, STREAMS)
    tested = [row for row in rows if row.split == "test"]
    is_rated = any(row.targets or row.target_path for row in tested)
    table: Table = {}
    for row in tested if is_rated else rows:
        sample = manifest_trial(path, row)[1]
        unrated = np.full((round(sample.duration_s or 0.0), 2), np.nan)
        for second, (valence, arousal) in enumerate(sample.target.get(TARGET, unrated)):
            table[row_id(sample.sample_id, second)] = (float(valence), float(arousal))
    return table


def _read_csv(path: Path) -> Table:
    table: Table = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = [name.strip() for name in next(reader, [])]
            if tuple(header) != COLUMNS:
                raise SubmissionError(
                    f"{path}: the columns are {','.join(header) or 'none'}; expected exactly {','.join(COLUMNS)}"
                )
            for cells in reader:
                if cells:
                    _add(table, cells, path, reader.line_num)
    except (UnicodeDecodeError, csv.Error) as error:
        raise SubmissionError(f"{path}: not a csv file: {error}") from error
    return table


def _add(table: Table, cells: Sequence[str], path: Path, line: int) -> None:
    where = f"line {line}"
    if len(cells) != len(COLUMNS):
        raise SubmissionError(f"{path}, {where}: {len(cells)} cells, expected {len(COLUMNS)}: {','.join(COLUMNS)}")
    name = cells[0].strip()
    if name in table:
        raise SubmissionError(f"{path}, {where}: {name} is listed twice; need every id once")
    try:
        valence, arousal = float(cells[1]), float(cells[2])
    except ValueError as error:
        raise SubmissionError(
            f"{path}, {where}: {name}: need two numbers, got {cells[1]!r} and {cells[2]!r}"
        ) from error
    table[name] = (_in_range(valence, path, name, "valence"), _in_range(arousal, path, name, "arousal"))


def _in_range(value: float, path: Path, name: str, dimension: str) -> float:
    if not math.isfinite(value) or not LABEL_MIN <= value <= LABEL_MAX:
        raise SubmissionError(
            f"{path}: {name}: {dimension} is {value:g}, expected a number from {LABEL_MIN} to {LABEL_MAX}"
        )
    return value


def _first(names: Sequence[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
