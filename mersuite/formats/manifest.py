"""Own recordings: a csv file with one row a recording.

Columns (any order; a header line is needed; paths are relative to the manifest's folder):

    clip_id                 unique name of the row
    subject                 who was recorded; `group` is read as the same column
    clip                    which stimulus, when several people had the same one
    group.<name>            any further group that splits may go by
    split                   train or test; without the column every row is train
    <stream>                file of a stream (eeg, fnirs, eeg_baseline, video, ...), empty where there is none; for
                            streams named text or text.<role> the text itself
    <stream>.<field>        key, rate_hz, unit (files of bare arrays such as .mat), start_s, duration_s of that stream
    start_s, duration_s     the stretch of the file, for the streams without such columns of their own
    target                  a csv file with the truth over time: see read_target_csv
    target.<name>           a number for the whole clip, or a word for names that the track reads as labels
    target_source           where the truth comes from, in words of your own ("simulated", "self-report"): every score
                            then says so

A `<stream>_baseline` is a stretch of its own: start_s and duration_s do not apply to it, only its own columns do.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mersuite.clip import Media
from mersuite.errors import DataError, did_you_mean
from mersuite.media.csv_lines import read_csv_lines

SPLITS = ("train", "test")
_FIELDS = ("key", "rate_hz", "unit", "start_s", "duration_s")
_PLAIN = ("clip_id", "subject", "group", "clip", "split", "start_s", "duration_s", "target", "target_source")


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestRow:
    """One row of a manifest.

    Attributes:
        line: Its line in the file, for messages.
        clip_id: Unique name.
        split: "train" or "test".
        groups: Group name to member; "subject", "clip" and the group.<name> columns that are filled in.
        media: Stream name to file or text; only the filled ones.
        targets: Name to number, from the target.<name> columns that are filled in.
        labels: Name to word, from those of them that the track reads as labels.
        target_path: The csv with the truth over time, or None.
        target_source: Where the truth comes from, as the file says; "" where it does not.
    """

    line: int
    clip_id: str
    split: str
    groups: Mapping[str, str]
    media: Mapping[str, Media | str]
    targets: Mapping[str, float]
    target_path: Path | None
    target_source: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def read_manifest(path: Path, streams: Sequence[str], *, label_names: Sequence[str] = ()) -> list[ManifestRow]:
    """Gives the rows of a manifest, checked; files are looked for but not opened.

    Args:
        path: The csv file.
        streams: Stream columns that may be there; "features/*" stands for all columns that begin so.
        label_names: Names whose target.<name> columns hold words.

    Raises:
        DataError: If a column is unknown, a clip id is missing or repeated, a number is none, a file does not exist,
            a row has no stream. The message names the line.
    """
    path = Path(path)
    header, lines = _read_cells(path)
    streams = _named_streams(header, streams)
    _check_header(path, header, streams)
    rows = [_read_row(path, line, dict(zip(header, cells, strict=True)), streams, label_names) for line, cells in lines]
    first: dict[str, int] = {}
    for row in rows:
        if row.clip_id in first:
            other = first[row.clip_id]
            raise DataError(
                f"{path}, line {row.line}: clip_id {row.clip_id!r} is already on line {other}; ids must differ"
            )
        first[row.clip_id] = row.line
    return rows


def _named_streams(header: Sequence[str], streams: Sequence[str]) -> tuple[str, ...]:
    """Puts the header's own names in place of patterns such as features/*; fields of a stream are no streams."""
    named = [name for name in streams if not name.endswith("*")]
    for prefix in (name.removesuffix("*") for name in streams if name.endswith("*")):
        found = [name for name in header if name.startswith(prefix)]
        named += [
            name for name in found if name.rpartition(".")[2] not in _FIELDS or name.rpartition(".")[0] not in found
        ]
    return tuple(named)


def is_manifest(path: Path) -> bool:
    """Whether a file looks like a manifest: a csv whose first line has a column clip_id."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            return "clip_id" in [cell.strip() for cell in next(csv.reader(stream), [])]
    except (OSError, UnicodeDecodeError, csv.Error):
        return False


def read_target_csv(path: Path, names: Sequence[str]) -> np.ndarray:
    """Gives a truth over time as (second, name) float32.

    The file has either a header with the names, and optionally a column `second` that counts 0, 1, 2, ..., or no header
    and one column a name.

    Raises:
        DataError: If a column is missing, a cell is no number, or the seconds have gaps. The message names the line.
    """
    lines = read_csv_lines(path)
    if not lines:
        raise DataError(f"{path}: no line; need the columns second, {', '.join(names)}")
    columns = list(range(len(names)))
    seconds: int | None = None
    if not all(_is_number(cell) for cell in lines[0][1]):
        header = lines.pop(0)[1]
        missing = [name for name in names if name not in header]
        if missing:
            raise DataError(f"{path}: no column {', '.join(missing)}; the columns are {', '.join(header)}")
        columns = [header.index(name) for name in names]
        seconds = header.index("second") if "second" in header else None
    elif len(lines[0][1]) != len(names):
        raise DataError(f"{path}: {len(lines[0][1])} columns without a header, need {len(names)}: {', '.join(names)}")
    if not lines:
        raise DataError(f"{path}: no line below the header")
    for index, (line, cells) in enumerate(lines):
        wrong = [place for place in columns if place >= len(cells) or not _is_number(cells[place])]
        if wrong:
            raise DataError(f"{path}, line {line}: need {len(names)} finite numbers, got {', '.join(cells)}")
        if seconds is not None and (not _is_number(cells[seconds]) or float(cells[seconds]) != index):
            raise DataError(
                f"{path}, line {line}: second is {cells[seconds]}, expected {index}; seconds count 0, 1, 2, ..."
            )
    return np.array([[float(cells[place]) for place in columns] for _, cells in lines], dtype=np.float32)


def _read_cells(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    lines = read_csv_lines(path)
    header = lines.pop(0)[1] if lines else []
    for line, cells in lines:
        if len(cells) != len(header):
            raise DataError(f"{path}, line {line}: {len(cells)} cells, the header has {len(header)}")
    if not lines:
        raise DataError(f"{path}: no recording; need a header line and one line a recording")
    return header, lines


def _check_header(path: Path, header: Sequence[str], streams: Sequence[str]) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}: column {twice[0]!r} is there {header.count(twice[0])} times, need once")
    if "clip_id" not in header:
        raise DataError(f"{path}: no column 'clip_id'; the columns are {', '.join(header)}")
    if "subject" in header and "group" in header:
        raise DataError(f"{path}: columns 'subject' and 'group' mean the same; keep one")
    if not set(header) & set(streams):
        raise DataError(f"{path}: no stream column; name the files in one of: {', '.join(streams)}")
    fields = [f"{stream}.{field}" for stream in streams if stream in header for field in _FIELDS]
    known = [*_PLAIN, *streams, *fields]
    for name in header:
        prefix, _, rest = name.partition(".")
        if name not in known and not (prefix in ("group", "target") and rest):
            raise DataError(f"{path}: unknown column {name!r}; {did_you_mean(name, known)}")


def _read_row(
    path: Path, line: int, cells: Mapping[str, str], streams: Sequence[str], label_names: Sequence[str]
) -> ManifestRow:
    where = f"{path}, line {line}"
    if not cells["clip_id"]:
        raise DataError(f"{where}: clip_id is empty")
    split = cells.get("split") or "train"
    if split not in SPLITS:
        raise DataError(f"{where}: split is {split!r}; {did_you_mean(split, SPLITS)}")
    groups = {"subject": cells.get("subject") or cells.get("group", ""), "clip": cells.get("clip", "")}
    groups |= {name.removeprefix("group."): cell for name, cell in cells.items() if name.startswith("group.")}
    media = {stream: _read_medium(where, path.parent, stream, cells) for stream in streams if cells.get(stream)}
    if not media:
        raise DataError(
            f"{where}: no stream is filled in; name a file in one of: {', '.join(s for s in streams if s in cells)}"
        )
    truths = {name.removeprefix("target."): cell for name, cell in cells.items() if name.startswith("target.") and cell}
    targets = {name: _number(where, f"target.{name}", cell) for name, cell in truths.items() if name not in label_names}
    return ManifestRow(
        line=line,
        clip_id=cells["clip_id"],
        split=split,
        groups={name: member for name, member in groups.items() if member},
        media=media,
        targets=targets,
        target_path=_existing(where, path.parent, "target", cells["target"]) if cells.get("target") else None,
        target_source=cells.get("target_source", ""),
        labels={name: cell for name, cell in truths.items() if name in label_names},
    )


def _read_medium(where: str, folder: Path, stream: str, cells: Mapping[str, str]) -> Media | str:
    if stream.partition(".")[0] == "text":
        return cells[stream]
    own = {name: cells.get(f"{stream}.{name}", "") for name in _FIELDS}
    stretch = {}
    for end in ("start_s", "duration_s"):
        name = f"{stream}.{end}" if own[end] or stream.endswith("_baseline") else end
        cell = cells.get(name, "")
        stretch[end] = _number(where, name, cell) if cell else None
    if (stretch["start_s"] or 0.0) < 0 or (stretch["duration_s"] is not None and stretch["duration_s"] <= 0):
        raise DataError(
            f"{where}: {stream} needs start_s of 0 or more and duration_s above 0, got {stretch['start_s']} and"
            f" {stretch['duration_s']}"
        )
    rate_hz = _number(where, f"{stream}.rate_hz", own["rate_hz"]) if own["rate_hz"] else None
    if rate_hz is not None and rate_hz <= 0:
        raise DataError(f"{where}: {stream}.rate_hz must be above 0, got {rate_hz:g}")
    return Media(
        path=_existing(where, folder, stream, cells[stream]),
        key=own["key"] or None,
        rate_hz=rate_hz,
        unit=own["unit"],
        start_s=stretch["start_s"] or 0.0,
        duration_s=stretch["duration_s"],
    )


def _existing(where: str, folder: Path, column: str, cell: str) -> Path:
    path = folder / cell
    if not path.is_file():
        raise DataError(f"{where}: {column}: {path} does not exist; paths are relative to the manifest's folder")
    return path


def _number(where: str, column: str, cell: str) -> float:
    if not _is_number(cell):
        raise DataError(f"{where}: {column} must be a finite number, got {cell!r}")
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
