"""Lines of csv files. The code submission carries this file: standard library only."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from mersuite.errors import DataError


def read_csv_lines(path: Path) -> list[tuple[int, list[str]]]:
    """Gives (line number, cells) of a UTF-8 csv file, with or without byte-order mark; blank lines are left out.

    Cells are stripped of white space around them.

    Raises:
        DataError: If the file is missing, is no UTF-8 text or no csv.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    lines = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            for cells in reader:
                stripped = [cell.strip() for cell in cells]
                if any(stripped):
                    lines.append((reader.line_num, stripped))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a csv file in UTF-8 ({error}); save it as UTF-8 text with commas") from error
    return lines


def read_columns(path: Path, names: Sequence[str]) -> list[tuple[int, tuple[str, ...]]]:
    """Gives (line number, cells) of the named columns of a csv file; other columns are ignored.

    Raises:
        DataError: If the file or a column is missing, a line is short, or there is no line at all.
    """
    lines = read_csv_lines(path)
    header = lines.pop(0)[1] if lines else []
    missing = [name for name in names if name not in header]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; the columns are {', '.join(header) or 'none'}")
    places = [header.index(name) for name in names]
    rows = []
    for line, cells in lines:
        if len(cells) <= max(places):
            raise DataError(f"{path}, line {line}: {len(cells)} cells, need {len(header)}")
        rows.append((line, tuple(cells[place] for place in places)))
    if not rows:
        raise DataError(f"{path}: no line below the header")
    return rows
