"""Dialogues as text: csv files with one turn a line, such as those of MELD.

Columns, in any order and in any case (a header line is needed; further columns are not read):

    utterance                      what is said; MELD: Utterance
    speaker                        who says it; MELD: Speaker
    dialogue or dialogue_id        which dialogue; MELD: Dialogue_ID
    order or utterance_id          a whole number; turns are sorted by it, gaps are allowed; MELD: Utterance_ID
    emotion                        what the speaker feels, any word; empty, or without the column, it is not known
    split                          train, dev or test; empty means train. Without the column the name of the file says
                                   it (train_sent_emo.csv, dev.csv), and any other file is train

A folder gives one file a split. Numbers of dialogues may start again in each split.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mersuite.errors import DataError, did_you_mean
from mersuite.media.csv_lines import read_csv_lines

SPLITS = ("train", "dev", "test")
SPLIT_WORDS: Mapping[str, str] = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "val": "dev",
    "valid": "dev",
    "validation": "dev",
    "test": "test",
}
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "utterance": ("utterance",),
    "speaker": ("speaker",),
    "dialogue": ("dialogue_id", "dialogue"),
    "order": ("utterance_id", "order"),
    "emotion": ("emotion",),
    "split": ("split",),
}
"""What a turn has to the columns that may hold it, without regard to case."""
OPTIONAL = ("emotion", "split")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn of a dialogue.

    Attributes:
        turn_id: Its name, unique over all splits, such as "test_dia3_utt5".
        speaker: Who speaks.
        text: What is said.
        emotion: What the speaker feels; "" where that is not known.
        where: File and line, for messages.
    """

    turn_id: str
    speaker: str
    text: str
    emotion: str
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """Turns in their order.

    Attributes:
        name: Unique over all splits, such as "test_dia3".
        split: train, dev or test.
        turns: At least one.
    """

    name: str
    split: str
    turns: tuple[Turn, ...]


def is_dialogues(path: Path) -> bool:
    """Whether a file is a csv of dialogues, or a folder has such a file for some split."""
    try:
        return any(_has_columns(item) for item in _split_files(path)) if path.is_dir() else _has_columns(path)
    except DataError:
        return False


def read_dialogues(path: Path) -> list[Dialogue]:
    """Reads a csv file, or the file of each split of a folder, in the order of splits and lines.

    Raises:
        DataError: If a file is missing, malformed or lacks a column, a cell that is needed is empty, an order is no
            whole number, a turn is there twice, or a folder has no file of a split, or two of one. The message names
            file and line.
    """
    path = Path(path)
    if not path.is_dir():
        return _read_file(path)
    files = _split_files(path)
    if not files:
        raise DataError(
            f"{path}: no csv file of dialogues whose name says train, dev or test (as train_sent_emo.csv does)"
        )
    split_of_file: dict[str, Path] = {}
    for file in files:
        split = split_of_name(file) or ""
        if split in split_of_file:
            raise DataError(
                f"{path}: {split_of_file[split].name} and {file.name} are both of the split {split}; "
                "keep one of them in the folder"
            )
        split_of_file[split] = file
    return [item for split in SPLITS if split in split_of_file for item in _read_file(split_of_file[split])]


def split_of_name(path: Path) -> str | None:
    """Gives the split that a file's name says, by its first word that is one; None where none is.

    >>> split_of_name(Path("train_sent_emo.csv")), split_of_name(Path("contest.csv"))
    ('train', None)
    """
    words = re.findall(r"[a-z]+", path.stem.lower())
    return next((SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS), None)


def _split_files(folder: Path) -> list[Path]:
    named = [path for path in sorted(folder.glob("*.csv")) if split_of_name(path) is not None]
    return [path for path in named if _has_columns(path)]


def _has_columns(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8-sig") as stream:
            header = [cell.strip().strip('"').lower() for cell in stream.readline().split(",")]
    except (OSError, UnicodeDecodeError):
        return False
    return all(set(names) & set(header) for key, names in COLUMNS.items() if key not in OPTIONAL)


def _read_file(path: Path) -> list[Dialogue]:
    lines = read_csv_lines(path)
    header = lines.pop(0)[1] if lines else []
    places = _places(path, header)
    if not lines:
        raise DataError(f"{path}: no turn below the header")
    found: dict[tuple[str, str], dict[int, Turn]] = {}
    for line, cells in lines:
        where = f"{path}, line {line}"
        if len(cells) != len(header):
            raise DataError(f"{where}: {len(cells)} cells, the header has {len(header)}")
        row = {key: cells[place] for key, place in places.items()}
        split = _split(where, row, path)
        order = _order(where, row["order"])
        name = f"{split}_dia{row['dialogue']}"
        turns = found.setdefault((split, name), {})
        if order in turns:
            raise DataError(
                f"{where}: turn {row['order']} of dialogue {row['dialogue']} is already there "
                f"({turns[order].where}); need every turn of a dialogue once"
            )
        turns[order] = Turn(
            turn_id=f"{name}_utt{order}",
            speaker=row["speaker"],
            text=row["utterance"],
            emotion=row.get("emotion", ""),
            where=where,
        )
    return [
        Dialogue(name=name, split=split, turns=tuple(turns[order] for order in sorted(turns)))
        for (split, name), turns in found.items()
    ]


def _places(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Finds the columns."""
    lowered = [name.lower() for name in header]
    places = {}
    for key, names in COLUMNS.items():
        there = [index for index, name in enumerate(lowered) if name in names]
        if len(there) > 1:
            twice = ", ".join(header[index] for index in there)
            raise DataError(f"{path}: the columns {twice} mean the same; keep one")
        if there:
            places[key] = there[0]
        elif key not in OPTIONAL:
            raise DataError(f"{path}: no column {' or '.join(names)}; the columns are {', '.join(header) or 'none'}")
    return places


def _split(where: str, row: Mapping[str, str], path: Path) -> str:
    for key in ("utterance", "speaker", "dialogue"):
        if not row[key]:
            raise DataError(f"{where}: {key} is empty; fill it in, or take the line out")
    if "split" not in row:
        return split_of_name(path) or "train"
    cell = row["split"].lower() or "train"
    if cell not in SPLIT_WORDS:
        raise DataError(f"{where}: split is {row['split']!r}; {did_you_mean(cell, SPLITS)}")
    return SPLIT_WORDS[cell]


def _order(where: str, cell: str) -> int:
    if not re.fullmatch(r"-?\d+", cell):
        raise DataError(f"{where}: the order of the turn must be a whole number, got {cell!r}")
    return int(cell)
