from pathlib import Path

import numpy as np
import pytest

from mersuite.errors import DataError
from mersuite.formats.openface import (
    INTENSITY_UNITS,
    NUM_LANDMARKS,
    PRESENCE_UNITS,
    openface_path,
    read_openface,
)

PLAIN = ["frame", "face_id", "timestamp", "confidence", "success"]
UNITS = [f"AU{unit:02d}_r" for unit in INTENSITY_UNITS] + [f"AU{unit:02d}_c" for unit in PRESENCE_UNITS]
POINTS = [f"{axis}_{index}" for axis in "xy" for index in range(NUM_LANDMARKS)]


def write(path: Path, header: list[str], rows: list[list[object]], *, blank: str = " ") -> Path:
    lines = [f",{blank}".join(header), *(f",{blank}".join(map(str, row)) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


def row(frame: int, face: int, confidence: float = 0.98, success: int = 1) -> list[object]:
    intensities = [round(0.1 * index + frame, 2) for index in range(17)]
    presences = [index % 2 for index in range(18)]
    return [frame, face, (frame - 1) / 25, confidence, success, *intensities, *presences]


@pytest.mark.parametrize("blank", ["", " "])
def test_values_are_read_with_and_without_blanks_in_the_header(tmp_path: Path, blank: str):
    table = read_openface(write(tmp_path / "a.csv", PLAIN + UNITS, [row(1, 0), row(2, 0)], blank=blank))
    assert table.frames.tolist() == [1, 2]
    np.testing.assert_allclose(table.times_s, [0, 0.04])
    assert (table.intensity_units, table.presence_units) == (INTENSITY_UNITS, PRESENCE_UNITS)
    np.testing.assert_allclose(table.intensities[1], 2 + 0.1 * np.arange(17), rtol=1e-6)
    np.testing.assert_array_equal(table.presences[0], np.arange(18) % 2)
    assert table.landmarks is None


def test_negative_intensities_are_kept(tmp_path: Path):
    table = read_openface(write(tmp_path / "a.csv", ["frame", "timestamp", "AU12_r"], [[1, 0, -0.4]]))
    assert table.intensities.tolist() == [[pytest.approx(-0.4)]]


def test_faces_are_taken_apart_the_longest_first_each_in_order_of_time(tmp_path: Path):
    rows = [row(1, 0), row(3, 1), row(1, 1), row(2, 1)]
    faces = read_openface(write(tmp_path / "a.csv", PLAIN + UNITS, rows)).by_face()
    assert list(faces) == [1, 0]
    assert faces[1].frames.tolist() == [1, 2, 3]
    assert faces[1].intensities[:, 0].tolist() == [1, 2, 3]


def test_only_rows_with_success_and_enough_confidence_are_reliable(tmp_path: Path):
    rows = [row(1, 0, 0.9), row(2, 0, 0.7), row(3, 0, 0.95, success=0)]
    table = read_openface(write(tmp_path / "a.csv", PLAIN + UNITS, rows))
    assert table.reliable(0.8).frames.tolist() == [1]


def test_landmarks_are_points(tmp_path: Path):
    values = [*range(NUM_LANDMARKS), *range(100, 100 + NUM_LANDMARKS)]
    table = read_openface(write(tmp_path / "a.csv", [*PLAIN, *POINTS], [[1, 0, 0, 1, 1, *values]]))
    assert table.landmarks is not None
    assert table.landmarks.shape == (1, 68, 2)
    assert table.landmarks[0, 5].tolist() == [5, 105]


def test_columns_that_are_missing_have_their_documented_values(tmp_path: Path):
    table = read_openface(write(tmp_path / "a.csv", ["frame", "timestamp", "AU01_c"], [[1, 0.0, 1]]))
    assert (table.face_ids.tolist(), table.confidences.tolist(), table.successes.tolist()) == ([0], [1.0], [True])


def test_cells_that_are_no_numbers_are_put_up_with_and_counted(tmp_path: Path):
    rows = [[1, 0.0, "-nan(ind)", 1], ["", "x", 0.5, 1], [3, 0.08, 0.5, "nan"]]
    table = read_openface(write(tmp_path / "a.csv", ["frame", "timestamp", "AU01_r", "success"], rows))
    assert (table.frames.tolist(), table.num_unreadable) == ([1, 3], 1)
    assert np.isnan(table.intensities[0, 0])
    assert table.successes.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a\.csv: not a csv file of OpenFace .*make it again"),
        ("frame,timestamp\xff", r"a\.csv: not a csv file of OpenFace"),
        ("frame,confidence,AU01_r\n1,1,1\n", r"a\.csv: no column timestamp; need the csv of OpenFace's"),
        ("frame,timestamp,pose_Tx\n1,0,1\n", r"holds neither action units .*-aus -2Dfp"),
        ("frame,timestamp, frame,AU01_r\n1,0,1,1\n", r"two columns are named frame"),
    ],
)
def test_file_that_is_no_openface_csv_is_refused(tmp_path: Path, text: str, message: str):
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        read_openface(tmp_path / "a.csv")


def test_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"none\.csv: no such file"):
        read_openface(tmp_path / "none.csv")


@pytest.mark.parametrize("place", ["s.csv", "s/s.csv"])
def test_csv_of_a_clip_is_found_in_both_layouts(tmp_path: Path, place: str):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    assert openface_path(tmp_path, "s") == tmp_path / place


def test_csv_that_is_in_neither_place_is_refused_with_both(tmp_path: Path):
    with pytest.raises(DataError, match=r"s: no OpenFace csv; looked for .*s\.csv and .*s/s\.csv"):
        openface_path(tmp_path, "s")
