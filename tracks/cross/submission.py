"""answer.csv and answer.zip of MER-Cross, and every table of names and labels that `score` reads."""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from mersuite.clip import Prediction
from mersuite.errors import ConfigError, DataError, SubmissionError, did_you_mean
from mersuite.formats.dialogue import is_dialogues
from mersuite.formats.manifest import is_manifest, read_manifest
from mersuite.predictions import is_prediction_file, read_predictions
from mersuite.whole_files import whole_file
from tracks.cross.dialogue import read_truths
from tracks.cross.head import TARGET
from tracks.cross.options import LABELS
from tracks.cross.reader import STREAMS

COLUMNS = ("name", "discrete")
MEMBER = "answer.csv"
KINDS = ("csv", "zip")
_TIMESTAMP = (2026, 1, 1, 0, 0, 0)
"""Of the zip's member. Why fixed: the same answers then give the same file."""


def write_answers(predictions: Sequence[Prediction], out: Path, kind: str = "", row_ids: Sequence[str] = ()) -> str:
    """Writes answer.csv, or answer.zip with answer.csv in it, reads it back, and says in one line what was written.

    Rows are joined by name and stand in the order of row_ids.

    Args:
        predictions: One a clip; the answer is its label.
        out: File to write.
        kind: csv or zip; "" goes by the ending of out, and is zip where that tells nothing.
        row_ids: Candidates; () for every prediction, in order.

    Raises:
        ConfigError: If the kind is unknown.
        SubmissionError: If candidates and predictions disagree, or a label is none of the six. Nothing is written then.
    """
    if kind not in ("", *KINDS):
        raise ConfigError(f"kind: got {kind!r}; {did_you_mean(kind, KINDS)}")
    as_zip = (kind or out.suffix.removeprefix(".")) != "csv"
    answers = _checked(predictions, row_ids, out)
    content = _csv_bytes(answers)
    _write(out, _zip_bytes(content) if as_zip else content)
    if read_answers(out) != answers:
        out.unlink()
        raise SubmissionError(f"{out}: what was read back is not what was written; is the disk full or failing?")
    counts = ", ".join(f"{label} {count}" for label, count in Counter(answers.values()).most_common())
    return f"{out}: {len(answers)} rows{f' in {MEMBER}' if as_zip else ''}; {counts}"


def read_answers(path: Path) -> dict[str, str]:
    """Reads a csv (name,discrete), a zip with answer.csv, a prediction file or a manifest as name -> label.

    Of dialogues (a csv file or a folder) it gives the labels of all turns that may be asked.

    Raises:
        SubmissionError: If the file is missing, empty or malformed, a name is listed twice, or a label of a csv or zip
            is none of the six.
        DataError: If a manifest is at fault.
    """
    if is_dialogues(path):
        return read_truths(path)
    if not path.is_file():
        raise SubmissionError(
            f"{path}: no such file; need a csv with {','.join(COLUMNS)}, answer.zip or a prediction file"
        )
    if zipfile.is_zipfile(path):
        table = _read_zip(path)
    elif is_prediction_file(path):
        table = {item.sample_id: str(item.answer) for item in read_predictions(path, track="cross")[1]}
    elif is_manifest(path):
        table = _read_manifest(path)
    else:
        table = _read_csv(path, path.read_bytes())
    if not table:
        raise SubmissionError(f"{path}: the file holds no row; need one row a clip")
    return table


def _checked(predictions: Sequence[Prediction], row_ids: Sequence[str], out: Path) -> dict[str, str]:
    answers: dict[str, str] = {}
    for item in predictions:
        if item.sample_id in answers:
            raise SubmissionError(f"{out}: {item.sample_id} is predicted twice; need one prediction a candidate")
        answers[item.sample_id] = str(item.answer)
    if not answers:
        raise SubmissionError(f"{out}: there is no prediction to write; `mersuite predict` makes them")
    wanted = list(row_ids) or list(answers)
    missing = [name for name in wanted if name not in answers]
    extra = sorted(answers.keys() - set(wanted))
    if missing or extra:
        parts = [f"{len(missing)} of {len(wanted)} candidates have no prediction ({_first(missing)})"] * bool(missing)
        parts += [f"{len(extra)} predictions are of no candidate ({_first(extra)})"] * bool(extra)
        raise SubmissionError(f"{out}: {'; '.join(parts)}; predict the candidates of the same data")
    _require_labels(((name, answers[name]) for name in wanted), out)
    return {name: answers[name] for name in wanted}


def _require_labels(rows: Iterable[tuple[str, str]], path: Path) -> None:
    for name, label in rows:
        if label not in LABELS:
            raise SubmissionError(f"{path}: {name} has the label {label!r}; {did_you_mean(label, LABELS)}")


def _csv_bytes(answers: Mapping[str, str]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(answers.items())
    return text.getvalue().encode()


def _zip_bytes(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(zipfile.ZipInfo(MEMBER, _TIMESTAMP), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _write(out: Path, content: bytes) -> None:
    with whole_file(out) as stream:
        stream.write(content)


def _read_zip(path: Path) -> dict[str, str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".csv")]
            if MEMBER not in names and len(names) != 1:
                raise SubmissionError(f"{path}: need {MEMBER} in the archive, it holds {', '.join(archive.namelist())}")
            return _read_csv(path, archive.read(MEMBER if MEMBER in names else names[0]))
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise SubmissionError(f"{path}: the archive is damaged ({error}); write it again") from error


def _read_csv(path: Path, content: bytes) -> dict[str, str]:
    try:
        lines = list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise SubmissionError(f"{path}: not a csv file in UTF-8 ({error})") from error
    header = [cell.strip() for cell in lines[0]] if lines else []
    if not set(COLUMNS) <= set(header):
        raise SubmissionError(f"{path}: the columns are {','.join(header) or 'none'}; expected {','.join(COLUMNS)}")
    places = [header.index(name) for name in COLUMNS]
    table: dict[str, str] = {}
    for number, cells in enumerate(lines[1:], start=2):
        if not any(cells):
            continue
        if len(cells) <= max(places):
            raise SubmissionError(f"{path}, line {number}: {len(cells)} cells, expected {len(header)}")
        name, label = (cells[place].strip() for place in places)
        if name in table:
            raise SubmissionError(f"{path}, line {number}: {name} is listed twice; need every name once")
        table[name] = label
    _require_labels(table.items(), path)
    return table


def _read_manifest(path: Path) -> dict[str, str]:
    """Labels of the test rows, or of all rows where no test row has one."""
    rows = read_manifest(path, STREAMS, label_names=(TARGET,))
    labelled = [row for row in rows if TARGET in row.labels]
    if not labelled:
        raise DataError(f"{path}: no row has a label in the column target.{TARGET}")
    tested = [row for row in labelled if row.split == "test"]
    return {row.clip_id: row.labels[TARGET] for row in tested or labelled}


def _first(names: Collection[str], most: int = 3) -> str:
    return ", ".join(list(names)[:most]) + (", ..." if len(names) > most else "")
