import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import scipy.io

sys.path.insert(0, str(Path(__file__).parent))

from mat_files import change

from mersuite.errors import ConfigError, DataError
from mersuite.media.physio import read_signal
from tracks.ps import layout, rates
from tracks.ps.fake import FakeConfig, write_fake
from tracks.ps.reader import orient_labels, read_labels, read_ps, read_ps_manifest, read_targets

TINY = FakeConfig(num_subjects=2, num_leaderboard_subjects=2, num_clips=2, min_clip_s=4, max_clip_s=6, rate_hz=200.0)


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ps") / "data"
    write_fake(TINY, root)
    return root


@pytest.fixture
def root(intact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(intact, tmp_path / "ps"))


def test_training_trials_have_ratings_streams_and_groups(intact: Path):
    data = read_ps(intact, "train")
    assert [sample.sample_id for sample in data.samples] == [
        f"test_{subject}/video_{video:02d}" for subject in (1, 2) for video in (1, 2)
    ]
    assert [clip.clip_id for clip in data.clips] == [sample.clip_id for sample in data.samples]
    assert set(data.clips[0].media) == set(layout.STREAMS)
    assert data.clips[0].groups == {"subject": "test_1", "clip": "video_01"}
    for sample in data.samples:
        assert sample.target["valence_arousal"].shape == (sample.duration_s, 2)
        assert sample.target["valence_arousal"].dtype == np.float32
    assert "2 subjects, 4 trials" in data.notes[0]


def test_both_label_orientations_give_valence_first(intact: Path):
    shapes = set()
    for subject in ("test_1", "test_2"):
        path = intact / "annotations" / f"{subject}_label.mat"
        stored = scipy.io.loadmat(path)["video_1"]
        shapes.add(stored.shape.index(2))
        ratings = read_labels(path)[1]
        np.testing.assert_array_equal(ratings, stored if stored.shape[1] == 2 else stored.T)
    assert shapes == {0, 1}


def test_signals_of_a_clip_can_be_read(intact: Path):
    clip, sample = (read_ps(intact, "train").clips[0], read_ps(intact, "train").samples[0])
    eeg = read_signal(clip.media["eeg"])
    assert (eeg.rate_hz, eeg.ch_names, eeg.unit) == (200.0, layout.EEG_CH_NAMES, "V")
    assert eeg.duration_s == sample.duration_s
    fnirs = read_signal(clip.media["fnirs"])
    assert fnirs.rate_hz == pytest.approx(47.619, abs=1e-3)
    stored = scipy.io.loadmat(clip.media["fnirs"].path)["video_1"]
    place = fnirs.ch_names.index("ch-4 hbr")
    np.testing.assert_allclose(fnirs.data[:, place], stored[1, 3], rtol=1e-6)
    assert fnirs.ch_types[place] == "hbr"
    assert read_signal(clip.media["eeg_baseline"]).duration_s == 5.0


def test_leaderboard_rows_come_from_sample_ids_and_truth_from_targets(intact: Path):
    data = read_ps(intact, "test")
    ids = layout.read_sample_ids(intact / "sample_ids.csv")
    targets = read_targets(intact / "targets.csv")
    assert {sample.sample_id for sample in data.samples} == set(ids)
    for sample in data.samples:
        assert sample.duration_s == len(ids[sample.sample_id])
        rows = targets[sample.sample_id]
        np.testing.assert_array_equal(sample.target["valence_arousal"], [rows[s] for s in range(len(rows))])
    last, full = data.samples[-1], read_labels(intact / "annotations" / "predict2_label.mat")[2]
    assert last.duration_s == len(full) - 1, "the made-up leaderboard is one row short, like the real one"


def test_rows_with_gaps_or_in_another_order_are_kept_for_the_submission(root: Path):
    assert read_ps(root, "test").row_ids == ()
    header, *ids = (root / "sample_ids.csv").read_text().split()
    asked = [name for name in reversed(ids) if not name.endswith("_T001")]
    (root / "sample_ids.csv").write_text("\n".join([header, *asked]) + "\n")
    (root / "targets.csv").unlink()
    data = read_ps(root, "test")
    assert data.row_ids == tuple(asked)
    assert sum(sample.duration_s for sample in data.samples) == len(ids)
    assert read_ps(root, "all").row_ids == ()


def test_split_all_gives_both(intact: Path):
    data = read_ps(intact, "all")
    assert {clip.groups["subject"] for clip in data.clips} == {"test_1", "test_2", "predict1", "predict2"}


def test_leaderboard_without_ids_and_truth_is_predicted_in_full(root: Path):
    expected = [sample.duration_s for sample in read_ps(root, "test").samples]
    expected[-1] += 1
    (root / "sample_ids.csv").unlink()
    (root / "targets.csv").unlink()
    shutil.rmtree(root / "annotations")
    data = read_ps(root, "test")
    assert [sample.duration_s for sample in data.samples] == expected
    assert all(not sample.target for sample in data.samples)
    assert any("sample_ids.csv is not there" in note for note in data.notes)


def test_truth_comes_from_annotations_without_targets_csv(root: Path):
    expected = read_ps(root, "test").samples
    (root / "targets.csv").unlink()
    for sample, other in zip(read_ps(root, "test").samples, expected, strict=True):
        np.testing.assert_array_equal(sample.target["valence_arousal"], other.target["valence_arousal"])


def test_targets_alone_define_the_rows(root: Path):
    expected = [(sample.sample_id, sample.duration_s) for sample in read_ps(root, "test").samples]
    (root / "sample_ids.csv").unlink()
    assert [(sample.sample_id, sample.duration_s) for sample in read_ps(root, "test").samples] == expected


def test_targets_with_a_gap_leave_the_trial_without_truth_and_say_so(root: Path):
    shutil.rmtree(root / "annotations")
    lines = (root / "targets.csv").read_text().splitlines()
    del lines[2]
    (root / "targets.csv").write_text("\n".join(lines) + "\n")
    data = read_ps(root, "test")
    assert not data.samples[0].target
    assert data.samples[1].target
    assert any("of predict1/video_01: read without its target" in note for note in data.notes)


def test_leaderboard_subject_without_rows_is_left_out_and_noted(root: Path):
    for name in ("sample_ids.csv", "targets.csv"):
        lines = (root / name).read_text().splitlines()
        (root / name).write_text("\n".join(line for line in lines if "predict2" not in line) + "\n")
    data = read_ps(root, "test")
    assert {sample.groups["subject"] for sample in data.samples} == {"predict1"}
    assert any("left out: predict2" in note for note in data.notes)


@pytest.mark.parametrize(("gone", "kept"), [("fNIRS", "eeg"), ("EEG", "fnirs")])
def test_folder_with_one_modality_works(root: Path, gone: str, kept: str):
    for path in root.glob(f"data/*/{gone}_*.mat"):
        path.unlink()
    (root / layout.RESERVATIONS_FILE).unlink()
    data = read_ps(root, "train")
    assert set(data.clips[0].media) == {kept, f"{kept}_baseline"}
    assert "not there" in data.notes[0]
    assert set(read_ps(root, "test").clips[0].media) == {kept, f"{kept}_baseline"}


def test_folder_without_optional_tables_and_baselines_works(root: Path):
    for path in [*root.glob("*.csv"), *root.glob("*.txt"), *root.glob("data/*/*_baselines.mat")]:
        path.unlink()
    assert set(read_ps(root, "train").clips[0].media) == {"eeg", "fnirs"}


@pytest.mark.parametrize("rate_hz", [250.0, 256.0, 500.0, 512.0, 1000.0])
def test_rate_is_found_from_samples_and_rated_seconds(tmp_path: Path, rate_hz: float):
    root = tmp_path / "ps"
    write_fake(
        FakeConfig(
            num_subjects=1, num_leaderboard_subjects=0, num_clips=2, min_clip_s=4, max_clip_s=5, rate_hz=rate_hz
        ),
        root,
    )
    for path in root.glob("data/*/*_baselines.mat"):
        path.unlink()
    media = read_ps(root, "train").clips[0].media
    assert media["eeg"].rate_hz == rate_hz
    assert media["fnirs"].rate_hz == 1000.0 / 21.0


def test_subjects_at_different_rates_are_noted(root: Path):
    for name in ("EEG_videos", "EEG_baselines"):
        for key in ("video_1", "video_2"):
            change(root / f"data/test_2/{name}.mat", key, lambda array: np.repeat(array, 5, axis=1))
    data = read_ps(root, "train")
    assert "eeg sampling rates differ: 200 Hz, 1000 Hz" in data.notes
    assert [clip.media["eeg"].rate_hz for clip in data.clips] == [200.0, 200.0, 1000.0, 1000.0]


def test_missing_mat_is_named(root: Path):
    (root / "data/test_2/fNIRS_videos.mat").unlink()
    with pytest.raises(
        DataError, match=r"data/test_2/fNIRS_videos\.mat: no such file, though 1 other subjects have it"
    ):
        read_ps(root, "train")


def test_truncated_mat_is_named(root: Path):
    path = root / "data/test_2/EEG_videos.mat"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DataError, match=r"data/test_2/EEG_videos\.mat: truncated"):
        read_ps(root, "train")


def test_wrong_key_is_named_with_the_keys_that_are_there(root: Path):
    path = root / "data/test_1/EEG_videos.mat"
    change(path, "video_2", lambda _: None)
    with pytest.raises(
        DataError, match=r"EEG_videos\.mat: no variable 'video_2'; the variables that are there: video_1"
    ):
        read_ps(root, "train")


def test_variable_of_another_name_is_refused(root: Path):
    scipy.io.savemat(root / "annotations/test_1_label.mat", {"labels": np.full((2, 9), 7.0)})
    with pytest.raises(DataError, match=r"test_1_label\.mat: variable 'labels', expected video_<n>"):
        read_ps(root, "train")


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("EEG_videos.mat", np.transpose),
        ("EEG_baselines.mat", lambda x: x[:62]),
        ("fNIRS_videos.mat", lambda x: x[:, :50]),
    ],
)
def test_wrong_shape_is_refused(root: Path, name: str, function: Callable[[np.ndarray], np.ndarray]):
    change(root / "data/test_1" / name, "video_1", function)
    with pytest.raises(DataError, match=rf"{name}: video_1: shape .*expected \((64|6, 51), time\)"):
        read_ps(root, "train")


@pytest.mark.parametrize("name", ["EEG_videos.mat", "EEG_baselines.mat", "fNIRS_videos.mat", "fNIRS_baselines.mat"])
def test_disagreeing_rate_names_file_and_variable(root: Path, name: str):
    change(root / "data/test_1" / name, "video_2", lambda array: np.concatenate([array, array], axis=-1))
    with pytest.raises(DataError, match=rf"data/test_1/{name}: video_2: \d+ samples are .*rates must agree"):
        read_ps(root, "train")


def test_several_faults_are_counted(root: Path):
    change(root / "data/test_1/EEG_videos.mat", "video_1", np.transpose)
    change(root / "data/test_1/EEG_videos.mat", "video_2", np.transpose)
    with pytest.raises(DataError, match=r"\(1 more faults; `mersuite check` lists all\)"):
        read_ps(root, "train")


def test_rate_that_nothing_tells_is_refused(root: Path):
    for path in [root / "sample_ids.csv", root / "targets.csv", *root.glob("data/*/*_baselines.mat")]:
        path.unlink()
    with pytest.raises(DataError, match="the sampling rate cannot be found without labels"):
        read_ps(root, "test")


@pytest.mark.parametrize("value", [0.0, 256.0, 12.5, np.nan])
def test_rating_out_of_range_is_refused(root: Path, value: float):
    def spoil(array: np.ndarray) -> np.ndarray:
        array[0, 0] = value
        return array

    change(root / "annotations/test_1_label.mat", "video_2", spoil)
    with pytest.raises(
        DataError, match=r"test_1_label\.mat: video_2: ratings must be integers from 1 to 255, got .*second 0"
    ):
        read_ps(root, "train")


@pytest.mark.parametrize(
    ("shape", "reason"), [((2, 2), "both could be"), ((3, 40), "no such axis"), ((2, 40, 1), "shape")]
)
def test_ambiguous_label_axes_are_refused(shape: tuple[int, ...], reason: str):
    with pytest.raises(DataError, match=rf"x\.mat: need one axis of length 2 .*{reason}"):
        orient_labels(np.full(shape, 9.0), "x.mat")


def test_subject_folder_without_a_trial_is_refused(root: Path):
    (root / "data/test_3").mkdir()
    with pytest.raises(DataError, match=r"data/test_3: no trial: neither EEG_videos\.mat nor fNIRS_videos\.mat"):
        read_ps(root, "train")


def test_files_without_a_trial_are_refused(root: Path):
    for name in ("EEG_videos", "fNIRS_videos", "EEG_baselines", "fNIRS_baselines"):
        scipy.io.savemat(root / f"data/predict1/{name}.mat", {})
    (root / "sample_ids.csv").unlink()
    (root / "targets.csv").unlink()
    with pytest.raises(DataError, match="data/predict1: no trial: the files hold no variable"):
        read_ps(root, "test")


def test_annotation_without_a_trial_is_refused(root: Path):
    scipy.io.savemat(root / "annotations/test_1_label.mat", {})
    with pytest.raises(DataError, match=r"test_1_label\.mat: no trial"):
        read_ps(root, "train")


def test_missing_annotation_is_refused(root: Path):
    (root / "annotations/test_2_label.mat").unlink()
    with pytest.raises(DataError, match=r"annotations/test_2_label\.mat: no such file; every training subject"):
        read_ps(root, "train")


@pytest.mark.parametrize("name", ["MER-PS.zip", "data.tar.gz", "data.7z", "part.rar", "data.zip.001"])
def test_archive_that_is_not_extracted_is_named(tmp_path: Path, name: str):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=f"archives that are not extracted: {name}; extract them"):
        read_ps(tmp_path, "train")


def test_archive_beside_the_data_is_noted(root: Path):
    (root / "data" / "test_9.zip").write_bytes(b"x")
    assert any("data/test_9.zip" in note for note in read_ps(root, "train").notes)
    (root / "annotations/test_2_label.mat").unlink()
    with pytest.raises(DataError, match=r"not extracted yet: test_9\.zip"):
        read_ps(root, "train")


def test_wrong_folder_is_refused_with_the_right_one(root: Path):
    with pytest.raises(DataError, match=r"no data/ folder .*did you mean data\.root=.*ps\?"):
        read_ps(root.parent, "train")
    with pytest.raises(DataError, match="no such folder"):
        read_ps(root / "nowhere", "train")


def test_folder_without_subjects_of_the_split_is_refused(root: Path):
    for path in root.glob("data/predict*"):
        shutil.rmtree(path)
    with pytest.raises(DataError, match="no leaderboard subject; expected folders data/predict<n>"):
        read_ps(root, "test")
    shutil.rmtree(root / "data")
    (root / "data").mkdir()
    for split in ("train", "all"):
        with pytest.raises(DataError, match="no training subject; expected folders data/test_<n>"):
            read_ps(root, split)


def test_unknown_split_is_refused(root: Path):
    with pytest.raises(ConfigError, match="split='trian': did you mean 'train'"):
        read_ps(root, "trian")
    with pytest.raises(ConfigError, match="did you mean 'test'"):
        read_ps_manifest(root / "m.csv", "tst")


def append(path: Path, line: str) -> None:
    with path.open("a") as stream:
        stream.write(line + "\n")


def test_id_listed_twice_is_refused(root: Path):
    append(root / "sample_ids.csv", "predict1_V01_T000")
    with pytest.raises(DataError, match=r"sample_ids\.csv: predict1_V01_T000 is listed 2 times, need once"):
        read_ps(root, "test")


def test_target_listed_twice_is_refused(root: Path):
    append(root / "targets.csv", "predict1_V01_T000,5,5")
    with pytest.raises(DataError, match=r"targets\.csv, line \d+: predict1_V01_T000 is listed twice"):
        read_ps(root, "test")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("predict9_V01_T000", "lists 'predict9', an unknown subject"),
        ("predict1_V09_T000", "no variable 'video_9'"),
        ("predict1_V01_T0", r"sample_ids\.csv, line \d+: row id 'predict1_V01_T0': expected <subject>_V<2 digits>"),
    ],
)
def test_unknown_id_is_refused(root: Path, row: str, message: str):
    append(root / "sample_ids.csv", row)
    with pytest.raises(DataError, match=message):
        read_ps(root, "test")


def test_target_of_an_unknown_row_is_refused(root: Path):
    append(root / "targets.csv", "predict1_V01_T900,5,5")
    with pytest.raises(DataError, match=r"predict1_V01_T900 is not listed in sample_ids\.csv"):
        read_ps(root, "test")


@pytest.mark.parametrize("cells", ["0,5", "5,256", "5,5.5", "5,x"])
def test_target_out_of_range_is_refused(root: Path, cells: str):
    append(root / "targets.csv", f"predict1_V01_T900,{cells}")
    with pytest.raises(DataError, match="ratings must be integers from 1 to 255"):
        read_ps(root, "test")


def test_ids_beyond_the_ratings_are_refused(root: Path):
    (root / "targets.csv").unlink()
    length = len(read_labels(root / "annotations/predict1_label.mat")[1])
    append(root / "sample_ids.csv", f"predict1_V01_T{length:03d}")
    with pytest.raises(DataError, match=rf"{length} rated seconds, but the ids ask for {length + 1}"):
        read_ps(root, "test")


@pytest.mark.parametrize(
    ("text", "message"),
    [("id\nx\n", "no column sample_id; the columns are id"), ("sample_id\n", "no line below the header")],
)
def test_sample_ids_without_column_or_rows_are_refused(root: Path, text: str, message: str):
    (root / "sample_ids.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        read_ps(root, "test")


def test_short_line_and_missing_csv_are_refused(tmp_path: Path):
    (tmp_path / "t.csv").write_text("sample_id,valence,arousal\npredict1_V01_T000,5\n")
    with pytest.raises(DataError, match="line 2: 2 cells, need 3"):
        read_targets(tmp_path / "t.csv")
    with pytest.raises(DataError, match="no such file"):
        read_targets(tmp_path / "none.csv")


def test_row_ids_and_sample_ids_are_inverse():
    assert layout.split_row_id(layout.row_id("predict4/video_15", 169)) == ("predict4/video_15", 169)


def test_trials_with_names_of_their_own_keep_them_in_row_ids():
    assert layout.row_id("predict4-video_15", 1) == "predict4-video_15_T001"
    with pytest.raises(DataError, match="expected <subject>/video_<2 digits>"):
        layout.split_sample_id("predict4-video_15")


def test_nearest_rate_is_judged_by_ratio():
    assert rates.nearest_rate(47.6, "fnirs") == 1000.0 / 21.0
    assert rates.nearest_rate(1000.0 * 60 / 59, "eeg") in (1000.0, 1024.0)
    assert rates.nearest_rate(251.0, "eeg") == 250.0


def test_channel_tables_have_the_published_sizes():
    assert len(set(layout.EEG_CH_NAMES)) == 64
    assert len(set(layout.FNIRS_CH_NAMES)) == len(layout.FNIRS_CH_TYPES) == 6 * 51
    assert [layout.FNIRS_CH_NAMES[kind * 51].split()[1] for kind in range(6)] == [
        "hbo",
        "hbr",
        "hbt",
        "780",
        "805",
        "830",
    ]


# ---- own recordings


@pytest.fixture
def recordings(intact: Path, tmp_path: Path) -> Path:
    """A manifest folder: MATLAB recordings, a target csv, and nothing else."""
    shutil.copy(intact / "data/test_1/EEG_videos.mat", tmp_path / "eeg.mat")
    shutil.copy(intact / layout.RESERVATIONS_FILE, tmp_path / "kept.csv")
    (tmp_path / "t.csv").write_text("second,valence,arousal\n0,10,20\n1,30,40.5\n")
    (tmp_path / "long.csv").write_text("10,20\n30,40\n50,60\n")
    return tmp_path


def manifest(folder: Path, *lines: str) -> Path:
    header = (
        "clip_id,subject,eeg,eeg.key,eeg.rate_hz,duration_s,target,target.valence,target.arousal,split,"
        "fnirs_reservations"
    )
    path = folder / "m.csv"
    path.write_text("\n".join((header, *lines)) + "\n")
    return path


def test_manifest_gives_trials_with_truth_over_time_for_the_clip_or_none(recordings: Path):
    path = manifest(
        recordings,
        "a,test_1,eeg.mat,video_1,200,2,t.csv,,,train,kept.csv",
        "b,p2,eeg.mat,video_2,200,3,,100,200,train,",
        "c,p3,eeg.mat,video_2,200,,,,,test,",
    )
    data = read_ps_manifest(path, "all")
    first, second, third = data.samples
    np.testing.assert_array_equal(first.target["valence_arousal"], np.array([[10, 20], [30, 40.5]], np.float32))
    np.testing.assert_array_equal(second.target["valence_arousal"], np.full((3, 2), (100, 200), np.float32))
    assert (third.target, third.duration_s) == ({}, len(scipy.io.loadmat(recordings / "eeg.mat")["video_2"].T) // 200)
    assert first.groups == {"subject": "test_1", "clip": "a"}
    assert data.clips[0].media["fnirs_reservations"].key == "test_1"
    assert read_signal(data.clips[0].media["eeg"]).data.shape == (400, 64)
    assert [sample.sample_id for sample in read_ps_manifest(path, "test").samples] == ["c"]
    assert "2 of 3 rated" in data.notes[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a,,eeg.mat,video_1,200,2,,,,train,", "line 2: no subject"),
        ("a,p,,,,,,,,train,kept.csv", "line 2: need a recording in the column eeg or fnirs"),
        ("a,p,eeg.mat,video_1,200,2,,100,,train,", r"line 2: target\.arousal is missing"),
        ("a,p,eeg.mat,video_1,200,2,,0.2,9,train,", r"line 2: ratings go from 0\.2 to 9; rescale them to 1 to 255"),
        ("a,p,eeg.mat,video_1,200,0.4,,,,train,", r"line 2: the recording has 0\.40 s, need 1 s or more"),
        ("a,p,eeg.mat,video_1,200,1,long.csv,,,train,", r"line 2: 3 rated seconds, but the recording has 1\.00 s"),
        ("a,p,eeg.mat,video_1,,,,,,train,", "does not say its variable and sampling rate"),
        ("a,p,eeg.mat,video_1,200,2,,,,test,", "no row of split 'train'"),
    ],
)
def test_faulty_manifest_rows_are_refused(recordings: Path, line: str, message: str):
    with pytest.raises(DataError, match=message):
        read_ps_manifest(manifest(recordings, line), "train")


def test_real_recordings_are_read_from_a_manifest(tmp_path: Path):
    folder = os.environ.get("MERSUITE_TEST_DATA")
    if not folder:
        pytest.skip("MERSUITE_TEST_DATA is not set")
    for path in (Path(folder) / "recordings").iterdir():
        shutil.copy(path, tmp_path)
    (tmp_path / "m.csv").write_text(
        "clip_id,subject,eeg,fnirs,start_s,duration_s\na,p1,eeglab_data.set,,10,30\nb,p2,,fnirs_18ch_intensity.snirf,0,60\n"
    )
    data = read_ps_manifest(tmp_path / "m.csv", "train")
    assert [sample.duration_s for sample in data.samples] == [30.0, 60.0]
    assert read_signal(data.clips[0].media["eeg"]).data.shape == (30 * 128, 32)
