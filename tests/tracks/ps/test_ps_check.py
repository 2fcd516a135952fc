import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from mat_files import change

from mersuite.track import CheckRow
from tracks.ps import layout
from tracks.ps.check import check_ps
from tracks.ps.fake import FakeConfig, write_fake

TINY = FakeConfig(num_subjects=2, num_leaderboard_subjects=1, num_clips=2, min_clip_s=4, max_clip_s=6, rate_hz=200.0)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("check") / "ps"
    write_fake(TINY, root)
    return root


@pytest.fixture
def root(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "ps"))


def faults(rows: list[CheckRow]) -> list[str]:
    return [row.found for row in rows if row.ok is False]


def row_of(rows: list[CheckRow], name: str) -> CheckRow:
    return next(row for row in rows if row.name == name)


def test_intact_folder_shows_counts_beside_published_ones_and_no_fault(intact: Path):
    rows = check_ps(intact)
    assert faults(rows) == []
    assert row_of(rows, "training subjects") == CheckRow(
        name="training subjects", found="2", expected="24 published", ok=None
    )
    assert row_of(rows, "leaderboard clips a person").expected == "15 published"
    seconds = len((intact / "sample_ids.csv").read_text().split()) - 1
    assert row_of(rows, "leaderboard seconds").found == str(seconds)
    assert row_of(rows, "leaderboard seconds").expected == "6143 published"
    assert row_of(rows, "training rates").found == "eeg 200.000 Hz (2 subjects), fnirs 47.619 Hz (2 subjects)"
    assert row_of(rows, "training signals read").found == "16 recordings (every variable)"
    assert row_of(rows, "training eeg amplitude").ok is True
    assert row_of(rows, "fNIRS reservations").found.startswith("3 of 3 subjects; 9")


def test_quick_check_reads_one_variable_of_each_file(intact: Path):
    rows = check_ps(intact, full=False)
    assert row_of(rows, "training signals read").found == "8 recordings (the first variable of each file)"


def test_every_fault_is_listed_with_its_file(root: Path):
    first, second = root / "data/test_1", root / "data/test_2"
    (first / "fNIRS_videos.mat").unlink()
    path = first / "EEG_baselines.mat"
    path.write_bytes(path.read_bytes()[:-50])
    change(first / "EEG_videos.mat", "video_1", lambda array: np.where(np.arange(64)[:, None] == 9, 1e-6, array))
    change(second / "EEG_videos.mat", "video_2", lambda array: np.concatenate([array, array], axis=1))
    change(second / "EEG_videos.mat", "video_1", lambda array: np.where(array == array[3, 5], np.nan, array))
    change(second / "fNIRS_videos.mat", "video_2", lambda array: array[:, :50])
    change(second / "EEG_baselines.mat", "video_2", lambda _: None)
    change(root / "annotations/test_1_label.mat", "video_1", lambda array: array + 200)
    change(root / "annotations/test_2_label.mat", "video_1", lambda array: array[:2, :2])
    with (root / "sample_ids.csv").open("a") as stream:
        stream.write("predict1_V01_T000\n")
    (root / "data/test_3").mkdir()
    found = faults(check_ps(root))
    for part in (
        r"test_1/fNIRS_videos.mat: no such file, though others have it",
        r"test_1/EEG_baselines.mat: truncated",
        r"test_1/EEG_videos.mat: video_1: 1 flat channels (FZ)",
        r"test_2/EEG_videos.mat: video_2:",
        r"test_2/EEG_videos.mat: video_1: NaN or infinite",
        r"test_2/fNIRS_videos.mat: video_2: shape (6, 50,",
        r"test_2/EEG_baselines.mat: no variable 'video_2'",
        r"test_1_label.mat: video_1: ratings must be integers",
        r"test_2_label.mat: video_1: need one axis of length 2",
        r"predict1_V01_T000 is listed 2 times",
        r"test_3: no trial",
        r"test_3_label.mat: no such file",
    ):
        assert any(part in text for text in found), part


def test_nan_counts_only_in_fnirs_channels_that_the_reservations_keep(root: Path):
    table = root / layout.RESERVATIONS_FILE
    lines = table.read_text(encoding="utf-8").splitlines()
    header = lines[0].split(",")
    cells = next(line.split(",") for line in lines if line.startswith("test_1,"))
    cells[1:] = ["1"] * (len(header) - 1)
    cells[header.index("ch-5")] = "0"
    table.write_text(
        "\n".join([lines[0], ",".join(cells), *[x for x in lines[1:] if not x.startswith("test_1,")]]) + "\n"
    )

    def spoil(channel: int) -> None:
        path = root / "data/test_1/fNIRS_videos.mat"
        change(path, "video_1", lambda array: np.where(np.arange(51)[None, :, None] == channel, np.nan, array))

    spoil(4)
    assert faults(check_ps(root)) == []
    spoil(7)
    assert any("fNIRS_videos.mat: video_1: NaN or infinite" in text for text in faults(check_ps(root)))


def test_files_only_some_subjects_have_are_faults_but_a_missing_modality_is_none(root: Path):
    for path in root.glob("data/*/fNIRS_*.mat"):
        path.unlink()
    rows = check_ps(root)
    assert faults(rows) == []
    assert row_of(rows, "training fnirs").found == "0 of 2 subjects"


def test_optional_tables_are_remarks(root: Path):
    for path in [*root.glob("*.csv"), *root.glob("*.txt"), root / "README.md"]:
        path.unlink()
    rows = check_ps(root)
    assert faults(rows) == []
    for name in ("SAM_score.csv", "Targeted_emotions.txt", "fNIRS reservations", "targets.csv", "sample_ids.csv"):
        assert row_of(rows, name).found == "missing"
        assert row_of(rows, name).ok is None


def test_ids_and_targets_that_differ_are_faults(root: Path):
    lines = (root / "targets.csv").read_text().splitlines()
    (root / "targets.csv").write_text("\n".join(lines[:-1]) + "\n")
    rows = check_ps(root)
    assert row_of(rows, "targets.csv").ok is False
    assert any("is in one of targets.csv and sample_ids.csv only" in text for text in faults(rows))
    (root / "targets.csv").write_text("\n".join([*lines, "predict1_V01_T900,300,1"]) + "\n")
    assert any("ratings must be integers" in text for text in faults(check_ps(root)))


def test_targets_that_contradict_the_annotations_are_a_fault(root: Path):
    lines = (root / "targets.csv").read_text().splitlines()
    lines[1] = "predict1_V01_T000," + ("1,1" if not lines[1].endswith(",1,1") else "2,2")
    (root / "targets.csv").write_text("\n".join(lines) + "\n")
    assert any(
        "predict1_label.mat: video_1: differs from targets.csv at 1 of" in text for text in faults(check_ps(root))
    )


def test_unknown_subject_in_ids_is_a_fault(root: Path):
    with (root / "sample_ids.csv").open("a") as stream:
        stream.write("predict7_V01_T000\n")
    assert any("predict7/video_01 is of an unknown subject" in text for text in faults(check_ps(root)))


def test_subject_missing_from_reservations_is_a_fault(root: Path):
    path = root / layout.RESERVATIONS_FILE
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    assert any("need one row of subject 'predict1', got 0" in text for text in faults(check_ps(root)))


def test_signals_in_microvolts_are_remarked(root: Path):
    for path in root.glob("data/*/EEG_videos.mat"):
        for key in ("video_1", "video_2"):
            change(path, key, lambda array: array * 1e6)
    row = row_of(check_ps(root), "training eeg amplitude")
    assert row.ok is None
    assert row.expected == "0.1 to 1000 uV (volts)"


def test_archives_are_named(root: Path, tmp_path: Path):
    (root / "more.7z").write_bytes(b"x")
    assert row_of(check_ps(root), "archives").found == "more.7z"
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "MER-PS.zip").write_bytes(b"x")
    assert "archives that are not extracted: MER-PS.zip" in faults(check_ps(tmp_path / "only"))[0]


def test_folder_without_subjects_is_a_fault(tmp_path: Path):
    (tmp_path / "data").mkdir()
    assert faults(check_ps(tmp_path)) == ["none"]


# ---- manifests


def manifest(folder: Path, *lines: str) -> Path:
    path = folder / "m.csv"
    path.write_text("clip_id,subject,eeg,eeg.key,eeg.rate_hz,fnirs,fnirs_reservations,target.valence,target.arousal\n")
    with path.open("a") as stream:
        stream.write("\n".join(lines) + "\n")
    return path


def save_recording(path: Path, kind: str, flat: bool = False) -> None:
    import mne

    data = np.random.default_rng(0).standard_normal((2, 1000)) * 1e-5
    data[1] *= not flat
    names = {"hbo": ["S1_D1 hbo", "S2_D1 hbo"]}.get(kind, ["Cz", "XY"])
    mne.io.RawArray(data, mne.create_info(names, 100.0, kind), verbose="ERROR").save(path, verbose="ERROR")


def test_manifest_report_describes_recordings_and_lists_faults(intact: Path, tmp_path: Path):
    shutil.copy(intact / layout.RESERVATIONS_FILE, tmp_path / "kept.csv")
    save_recording(tmp_path / "eeg_raw.fif", "eeg")
    save_recording(tmp_path / "flat_raw.fif", "eeg", flat=True)
    save_recording(tmp_path / "hb_raw.fif", "hbo")
    (tmp_path / "broken.edf").write_bytes(b"nothing")
    rows = check_ps(
        manifest(
            tmp_path,
            "a,test_1,eeg_raw.fif,,,hb_raw.fif,kept.csv,100,100",
            "b,p2,flat_raw.fif,,,,,,",
            "c,p3,hb_raw.fif,,,,,,",
            "d,p4,broken.edf,,,,,,",
            "e,p5,eeg_raw.fif,,,,kept.csv,,",
        )
    )
    assert row_of(rows, "rows").found == "5"
    assert row_of(rows, "rated rows").found == "1 of 5"
    assert "2 eeg, 100 Hz, 1 of 2 names in the standard 10-05 montage (3 recordings)" in [r.found for r in rows]
    assert "2 hbo, 100 Hz, haemoglobin: taken as it is (1 recordings)" in [r.found for r in rows]
    assert any(row.name == "fnirs_reservations" and "of 51 channels kept" in row.found for row in rows)
    found = faults(rows)
    assert any("flat_raw.fif: 1 flat channels (XY)" in text for text in found)
    assert any("hb_raw.fif: no eeg channel, the channels are of type hbo" in text for text in found)
    assert any("broken.edf: MNE cannot read this recording" in text for text in found)
    assert any("need one row of subject 'p5', got 0" in text for text in found)


def test_faulty_manifest_is_one_fault(tmp_path: Path):
    (tmp_path / "m.csv").write_text("subject,eeg\np,x\n")
    assert "no column 'clip_id'" in faults(check_ps(tmp_path / "m.csv"))[0]


def test_real_recordings_are_described(tmp_path: Path):
    folder = os.environ.get("MERSUITE_TEST_DATA")
    if not folder:
        pytest.skip("MERSUITE_TEST_DATA is not set")
    for path in (Path(folder) / "recordings").iterdir():
        shutil.copy(path, tmp_path)
    rows = check_ps(manifest(tmp_path, "a,p1,eeglab_data.set,,,,,,", "b,p2,,,,fnirs_18ch_intensity.snirf,,,"))
    assert faults(rows) == []
    assert row_of(rows, "eeg").found.startswith("32 eeg, 128 Hz, 30 of 32 names in the standard 10-05 montage")
    assert "light intensity: goes through optical density and Beer-Lambert" in row_of(rows, "fnirs").found
