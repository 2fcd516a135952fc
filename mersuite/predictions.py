"""The prediction file: a line that says whose predictions these are, then one JSON line a sample.

    {"mersuite_predictions": 1, "track": "ps", "run": "runs/ps", "evaluation": "fused", "split": "test",
     "num_predictions": 60, "traits": {"prior": true}, "versions": {"mersuite": "0.1.0"}}
    {"sample_id": "predict1/video_01", "groups": {...}, "outputs": {"level": [[101.5, 130.25], ...]}, "answer": [...]}

The first line is one line in the file. Lines of rows whose truth is known (out-of-fold) hold "target" too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mersuite.clip import Prediction
from mersuite.errors import SubmissionError
from mersuite.whole_files import whole_file

FORMAT_KEY = "mersuite_predictions"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionHeader:
    """The first line of a prediction file.

    Attributes:
        track: Name of the track.
        run: Run folder that made it, as given by the user; "" for an ensemble.
        evaluation: Name of the system, as in metrics.json.
        split: "oof" for out-of-fold rows, else the split's name.
        traits: What every export must state, such as {"prior": True}.
        versions: Package name to version.
        row_ids: Rows that a submission must hold, in this order; () for every row of every prediction.
        members: For an ensemble: each member's file, run, weight and how the weights were found; else empty.
    """

    track: str
    run: str
    evaluation: str
    split: str
    traits: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    row_ids: Sequence[str] = ()
    members: Sequence[Mapping[str, Any]] = ()


def write_predictions(path: Path, header: PredictionHeader, predictions: Iterable[Prediction]) -> int:
    """Writes a prediction file whole or not at all, and gives the number of predictions.

    Outputs and targets are written with the fewest digits that give the same float32 back; answers as they are.

    Raises:
        SubmissionError: If a sample is listed twice or a value is not finite; nothing is written then.
    """
    lines: list[str] = []
    seen: set[str] = set()
    for prediction in predictions:
        if prediction.sample_id in seen:
            raise SubmissionError(f"{path}: sample {prediction.sample_id!r} has two predictions; need one")
        seen.add(prediction.sample_id)
        lines.append(_line(path, prediction))
    head = {FORMAT_KEY: FORMAT_VERSION, **asdict(header), "num_predictions": len(lines)}
    with whole_file(path) as file:
        file.write(("\n".join([json.dumps(head, default=_plain), *lines]) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())
    return len(lines)


def read_predictions(path: Path, track: str | None = None) -> tuple[PredictionHeader, list[Prediction]]:
    """Reads a prediction file.

    Args:
        path: The file.
        track: The track that it must be of; None takes any.

    Raises:
        SubmissionError: If the file is missing, has no header, is of another track or format version, is cut off, lists
            a sample twice or a line is not a prediction; the message names the line.
    """
    header, num_predictions, lines = _read_head(path, track)
    predictions: list[Prediction] = []
    first_line: dict[str, int] = {}
    for number, line in enumerate(lines, start=2):
        prediction = _parse(path, number, line, is_last=number == len(lines) + 1)
        before = first_line.setdefault(prediction.sample_id, number)
        if before != number:
            raise SubmissionError(
                f"{path}, line {number}: sample {prediction.sample_id!r} stands on line {before} already"
            )
        predictions.append(prediction)
    if len(predictions) != num_predictions:
        raise SubmissionError(
            f"{path}, line {len(lines) + 1}: the file ends after {len(predictions)} of {num_predictions} predictions; "
            "it was cut off, write it again with `mersuite predict`"
        )
    return header, predictions


def is_prediction_file(path: Path) -> bool:
    """Whether a file begins like a prediction file."""
    with path.open("rb") as file:
        return file.read(256).lstrip().startswith(b'{"' + FORMAT_KEY.encode() + b'"')


def _read_head(path: Path, track: str | None) -> tuple[PredictionHeader, int, list[str]]:
    if not path.is_file():
        raise SubmissionError(f"{path}: no such prediction file; `mersuite predict ckpt=RUN out=FILE.jsonl` writes one")
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SubmissionError(f"{path}: not a prediction file: {error}") from error
    first, *lines = text.removesuffix("\n").split("\n")
    try:
        head = json.loads(first)
    except json.JSONDecodeError:
        head = None
    if not isinstance(head, dict) or FORMAT_KEY not in head:
        raise SubmissionError(
            f"{path}, line 1: need the header of a prediction file, got {first[:60]!r}; `mersuite predict` writes one"
        )
    if head[FORMAT_KEY] != FORMAT_VERSION:
        raise SubmissionError(
            f"{path}, line 1: format version {head[FORMAT_KEY]!r}, this mersuite reads {FORMAT_VERSION}; predict again"
        )
    head["row_ids"] = tuple(head.get("row_ids", ()))
    try:
        header = PredictionHeader(**{name: head[name] for name in PredictionHeader.__slots__})
        num_predictions = int(head["num_predictions"])
    except KeyError as error:
        raise SubmissionError(f"{path}, line 1: the header lacks {error.args[0]!r}; predict again") from error
    if track is not None and header.track != track:
        raise SubmissionError(
            f"{path}: predictions of track {header.track!r}, need track {track!r}; give track={header.track}"
        )
    return header, num_predictions, lines


def _parse(path: Path, number: int, line: str, *, is_last: bool) -> Prediction:
    try:
        row = json.loads(line)
        return Prediction(
            sample_id=row["sample_id"],
            groups=row["groups"],
            outputs=_arrays(row["outputs"]),
            answer=row["answer"],
            target=_arrays(row.get("target", {})),
        )
    except json.JSONDecodeError as error:
        why = "the file was cut off here" if is_last else f"not JSON ({error})"
        raise SubmissionError(f"{path}, line {number}: {why}; write it again with `mersuite predict`") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SubmissionError(
            f"{path}, line {number}: not a prediction ({error!r}); need sample_id, groups, outputs and answer"
        ) from error


def _arrays(values: Mapping[str, Any]) -> dict[str, np.ndarray]:
    arrays = {name: np.asarray(nested) for name, nested in values.items()}
    return {name: array.astype(np.float32) if array.dtype.kind == "f" else array for name, array in arrays.items()}


def _line(path: Path, prediction: Prediction) -> str:
    where = f"{path}: sample {prediction.sample_id!r}"
    row: dict[str, Any] = {
        "sample_id": prediction.sample_id,
        "groups": dict(prediction.groups),
        "outputs": {name: _nested(array, f"{where}: {name}") for name, array in prediction.outputs.items()},
        "answer": prediction.answer,
    }
    if prediction.target:
        row["target"] = {name: _nested(array, f"{where}: target {name}") for name, array in prediction.target.items()}
    try:
        return json.dumps(row, default=_plain, allow_nan=False)
    except ValueError as error:
        raise SubmissionError(f"{where}: the answer is not finite; need numbers") from error


def _nested(array: np.ndarray, where: str) -> Any:
    """Gives nested lists; floats as the shortest decimals that are the same float32."""
    array = np.asarray(array)
    if array.dtype.kind != "f":
        return array.tolist()
    single = array.astype(np.float32)
    if not np.isfinite(single).all():
        raise SubmissionError(
            f"{where}: {int((~np.isfinite(single)).sum())} of {single.size} values are not finite; need numbers"
        )
    return single.astype("U32").astype(np.float64).tolist()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no place in a prediction file")
