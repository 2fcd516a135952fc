"""Csv files of OpenFace: action units, landmarks and confidence of each face in each frame.

Columns, as OpenFace 2 writes them; headers may carry a leading blank, and what a run was not asked for is not there:

    frame, face_id, timestamp, confidence, success
    AU01_r ... AU45_r       intensity of 17 action units; some files hold values below 0
    AU01_c ... AU45_c       presence (0 or 1) of 18: AU28 has no intensity
    x_0 ... x_67, y_0 ...   landmarks in pixels of the video
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mersuite.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

INTENSITY_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
PRESENCE_UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 28, 45)
NUM_LANDMARKS = 68
_PLAIN = ("frame", "face_id", "timestamp", "confidence", "success")
_WANTED = re.compile(r"AU\d\d_[rc]|[xy]_\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFaceTable:
    """Rows of a file, in its order; one face in one frame each.

    Attributes:
        path: Where they come from.
        frames: (row,) int64, as the file counts them (OpenFace begins at 1).
        face_ids: (row,) int64; 0 where the file has no such column.
        times_s: (row,) float64, seconds from the start of the video.
        confidences: (row,) float64, 0..1; 1 where the file has no such column.
        successes: (row,) bool; True where the file has no such column.
        intensity_units: Action units that have an intensity here.
        intensities: (row, unit) float32, 0..5 and sometimes below 0, as the file has it; NaN where a cell is no number.
        presence_units: Action units that have a presence here.
        presences: (row, unit) float32, 0 or 1; NaN where a cell is no number.
        landmarks: (row, 68, 2) float32, x and y in pixels; None where the file has none.
        num_unreadable: Rows that were left out because frame or time is no number.
    """

    path: Path
    frames: np.ndarray
    face_ids: np.ndarray
    times_s: np.ndarray
    confidences: np.ndarray
    successes: np.ndarray
    intensity_units: tuple[int, ...]
    intensities: np.ndarray
    presence_units: tuple[int, ...]
    presences: np.ndarray
    landmarks: np.ndarray | None
    num_unreadable: int = 0

    def __len__(self) -> int:
        return len(self.frames)

    def rows(self, keep: np.ndarray) -> OpenFaceTable:
        """The rows of a mask or of indices, (row,)."""
        return OpenFaceTable(
            path=self.path,
            frames=self.frames[keep],
            face_ids=self.face_ids[keep],
            times_s=self.times_s[keep],
            confidences=self.confidences[keep],
            successes=self.successes[keep],
            intensity_units=self.intensity_units,
            intensities=self.intensities[keep],
            presence_units=self.presence_units,
            presences=self.presences[keep],
            landmarks=None if self.landmarks is None else self.landmarks[keep],
            num_unreadable=self.num_unreadable,
        )

    def reliable(self, min_confidence: float) -> OpenFaceTable:
        """The rows where OpenFace reports success and at least this confidence."""
        return self.rows(self.successes & (self.confidences >= min_confidence))

    def by_face(self) -> dict[int, OpenFaceTable]:
        """Face id to its rows in order of time; the face with the most rows first, ties by id."""
        ids, counts = np.unique(self.face_ids, return_counts=True)
        found = {}
        for face_id in ids[np.lexsort((ids, -counts))]:
            rows = np.flatnonzero(self.face_ids == face_id)
            found[int(face_id)] = self.rows(rows[np.argsort(self.times_s[rows], kind="stable")])
        return found


def openface_places(root: Path, name: str) -> tuple[Path, Path]:
    """Where the csv of a clip may lie: <root>/<name>.csv, or <root>/<name>/<name>.csv as some runs lay it out."""
    return root / f"{name}.csv", root / name / f"{Path(name).name}.csv"


def openface_path(root: Path, name: str) -> Path:
    """The csv of a clip, the first of `openface_places` that is there.

    Raises:
        DataError: If neither is there.
    """
    places = openface_places(root, name)
    for path in places:
        if path.is_file():
            return path
    raise DataError(f"{name}: no OpenFace csv; looked for {places[0]} and {places[1]}")


def read_openface(path: Path) -> OpenFaceTable:
    """Reads a csv file of OpenFace.

    Blanks around headers, missing optional columns and cells that are no numbers (NaN, "-nan(ind)") are put up with;
    negative intensities are kept.

    Raises:
        DataError: If the file is missing, empty or no csv, lacks frame or timestamp, names a column twice, or holds
            neither action units nor landmarks.
    """
    path = Path(path)
    cells = _cells(path)
    missing = [name for name in ("frame", "timestamp") if name not in cells]
    if missing:
        raise DataError(
            f"{path}: no column {' or '.join(missing)}; need the csv of OpenFace's FeatureExtraction or"
            f" FaceLandmarkVidMulti, got {', '.join(map(str, cells.columns[:6])) or 'no columns'}"
        )
    good = (cells["frame"].notna() & cells["timestamp"].notna()).to_numpy()
    num_unreadable = int((~good).sum())
    cells = cells[good]
    intensity_units = tuple(unit for unit in INTENSITY_UNITS if f"AU{unit:02d}_r" in cells)
    presence_units = tuple(unit for unit in PRESENCE_UNITS if f"AU{unit:02d}_c" in cells)
    landmarks = _landmarks(cells)
    if not intensity_units and not presence_units and landmarks is None:
        raise DataError(
            f"{path}: holds neither action units (AU01_r, ...) nor 68 landmarks (x_0, ...);"
            " run OpenFace with -aus -2Dfp"
        )
    return OpenFaceTable(
        path=path,
        frames=cells["frame"].to_numpy(np.int64),
        face_ids=_column(cells, "face_id", 0.0).astype(np.int64),
        times_s=cells["timestamp"].to_numpy(np.float64),
        confidences=_column(cells, "confidence", 1.0),
        successes=_column(cells, "success", 1.0) > 0.5,
        intensity_units=intensity_units,
        intensities=_columns(cells, [f"AU{unit:02d}_r" for unit in intensity_units]),
        presence_units=presence_units,
        presences=_columns(cells, [f"AU{unit:02d}_c" for unit in presence_units]),
        landmarks=landmarks,
        num_unreadable=num_unreadable,
    )


def _cells(path: Path) -> pd.DataFrame:
    """The columns that are wanted, as numbers."""
    import pandas as pd

    if not path.is_file():
        raise DataError(f"{path}: no such file")
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            header = [name.strip() for name in next(csv.reader(stream), [])]
        twice = [name for name, count in Counter(header).items() if count > 1]
        if twice:
            raise DataError(f"{path}: two columns are named {twice[0]}; make the file again")
        wanted = [index for index, name in enumerate(header) if name in _PLAIN or _WANTED.fullmatch(name)]
        table = pd.read_csv(path, usecols=wanted, index_col=False, skipinitialspace=True, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: not a csv file of OpenFace ({str(error).strip()}); make it again") from error
    table.columns = [header[index] for index in wanted]
    for name in table.columns:
        if table[name].dtype.kind not in "if":
            table[name] = pd.to_numeric(table[name], errors="coerce")
    return table


def _column(cells: pd.DataFrame, name: str, missing: float) -> np.ndarray:
    """(row,) float64; the value for missing columns. A cell that is no number counts as 0: not found, not sure."""
    if name not in cells:
        return np.full(len(cells), missing)
    return np.nan_to_num(cells[name].to_numpy(np.float64))


def _columns(cells: pd.DataFrame, names: list[str]) -> np.ndarray:
    return cells[names].to_numpy(np.float32)


def _landmarks(cells: pd.DataFrame) -> np.ndarray | None:
    names = [f"{axis}_{index}" for axis in "xy" for index in range(NUM_LANDMARKS)]
    if any(name not in cells for name in names):
        return None
    return np.stack(np.split(_columns(cells, names), 2, axis=1), axis=2)
