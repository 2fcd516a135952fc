"""What check says of a folder: counts beside the published ones, and every fault of files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cross_files import candidate_name, config_of, train_name, write_folder

from mersuite.track import CheckRow
from tracks.cross.check import check_cross


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "mer")


def rows_of(root: Path, **overrides: object) -> dict[str, CheckRow]:
    return {row.name: row for row in check_cross(config_of(root, **overrides))}


def faults_of(root: Path, **overrides: object) -> list[str]:
    return [row.found for row in check_cross(config_of(root, **overrides)) if row.ok is False]


def test_counts_stand_beside_the_published_ones(root: Path) -> None:
    rows = rows_of(root)
    assert (rows["training clips"].found, rows["training clips"].expected) == ("24", "9,395")
    assert (rows["candidates"].found, rows["candidates"].expected) == ("6", "20,000")
    assert rows["files in video/"].expected == "132,171"
    assert rows["subtitles"].found == "no subtitle_chieng.csv"
    assert faults_of(root) == []


def test_features_are_counted_with_their_width(root: Path) -> None:
    rows = rows_of(root)
    assert rows["features/voice-UTT"].found == "30 files, 5 wide (30)"
    assert rows["features/face-listener-UTT"].found == "3 files, 4 wide (3)"
    assert rows["features.l"].found == "3 of 30 clips (features/face-listener-UTT)"


def test_files_of_two_widths_are_a_fault(root: Path) -> None:
    np.save(root / "features" / "voice-UTT" / f"{train_name(3)}.npy", np.ones(7, np.float32))
    (row,) = [row for row in check_cross(config_of(root)) if row.name == "features/voice-UTT"]
    assert row.ok is False and row.found == "30 files, 5 wide (29), 7 wide (1)"


def test_an_unreadable_feature_file_is_named(root: Path) -> None:
    path = root / "features" / "face-UTT" / f"{train_name(3)}.npy"
    path.write_bytes(b"\x93NUMPY")
    assert any(str(path) in found for found in faults_of(root))


@pytest.mark.parametrize("folder", ["video", "audio", "openface_face"])
def test_media_that_cannot_be_opened_are_named(root: Path, folder: str) -> None:
    name = candidate_name(2)
    ending = {"video": ".mp4", "audio": ".wav", "openface_face": ".npy"}[folder]
    path = root / folder / (f"{name}/{name}" if folder == "openface_face" else name)
    path = path.with_name(path.name + ending)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"nothing")
    found = [item for item in faults_of(root) if path.name in item]
    assert len(found) == 1


def test_only_as_many_clips_are_opened_as_asked_for(root: Path) -> None:
    assert rows_of(root, cross__check_clips=7)["clips opened"].found == "7 of 30, 0 faults"
    assert rows_of(root, cross__check_clips=0)["clips opened"].found == "30 of 30, 0 faults"


def test_archives_are_told(root: Path) -> None:
    (root / "video.zip").touch()
    assert rows_of(root)["archives"].found == "video.zip"


def test_what_stops_fit_is_a_fault_here(root: Path) -> None:
    (root / "track1_train.csv").write_text("name,discrete\nsample_00000000,joy\n")
    assert any("has the label 'joy'" in found for found in faults_of(root))


def test_missing_features_that_prepare_would_refuse_are_a_fault(root: Path) -> None:
    found = faults_of(root, features__l={"name": "npy", "folder": "face-listener-UTT", "missing": "refuse"})
    assert len(found) == 1 and "face-listener-UTT" in found[0]


def test_a_folder_without_data_lists_faults_and_raises_nothing(tmp_path: Path) -> None:
    assert len(faults_of(tmp_path)) >= 2
