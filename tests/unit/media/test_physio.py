import os
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from mersuite.clip import Media
from mersuite.errors import DataError
from mersuite.media import physio
from mersuite.media.physio import mat_shapes, num_samples, read_reservations, read_signal, recording_length_s

NAMES = ("A", "B", "C")


@pytest.fixture
def eeg() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((3, 500)) * 1e-5


@pytest.fixture
def mat(tmp_path: Path, eeg: np.ndarray) -> Path:
    path = tmp_path / "EEG_videos.mat"
    scipy.io.savemat(path, {"video_1": eeg, "video_2": eeg[:, :200]}, do_compression=True)
    return path


def media(path: Path, **changes) -> Media:
    return Media(**{"path": path, "key": "video_1", "rate_hz": 100.0, "ch_names": NAMES, "unit": "V", **changes})


def test_mat_variable_is_read_time_first_in_single_precision(mat: Path, eeg: np.ndarray):
    signal = read_signal(media(mat))
    assert signal.data.dtype == np.float32
    assert signal.data.shape == (500, 3)
    np.testing.assert_array_equal(signal.data, eeg.T.astype(np.float32))
    assert (signal.rate_hz, signal.ch_names, signal.unit) == (100.0, NAMES, "V")


def test_leading_axes_are_flattened_in_c_order(tmp_path: Path):
    array = np.random.default_rng(1).standard_normal((2, 3, 40))
    scipy.io.savemat(tmp_path / "f.mat", {"video_1": array})
    signal = read_signal(Media(path=tmp_path / "f.mat", key="video_1", rate_hz=10.0))
    np.testing.assert_array_equal(signal.data[:, 1 * 3 + 2], array[1, 2].astype(np.float32))
    assert signal.data.flags.c_contiguous
    assert signal.ch_names[5] == "ch-6"


def test_start_and_duration_cut_the_variable(mat: Path, eeg: np.ndarray):
    cut = media(mat, start_s=1.0, duration_s=2.5)
    np.testing.assert_array_equal(read_signal(cut).data, eeg[:, 100:350].T.astype(np.float32))
    assert num_samples(cut) == 250
    assert recording_length_s(cut) == 2.5


def test_headers_give_lengths_without_loading(mat: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scipy.io, "loadmat", lambda *_, **__: pytest.fail("a header must be enough"))
    assert mat_shapes(mat) == {"video_1": (3, 500), "video_2": (3, 200)}
    assert num_samples(media(mat, key="video_2")) == 200


def test_stretch_outside_the_recording_is_refused(mat: Path):
    with pytest.raises(DataError, match=r"start_s=4\.0 and duration_s=2\.0 do not fit a recording of 5\.000 s"):
        read_signal(media(mat, start_s=4.0, duration_s=2.0))


def test_stretch_without_a_rate_is_refused(mat: Path):
    with pytest.raises(DataError, match="need a rate_hz"):
        num_samples(media(mat, rate_hz=None, start_s=1.0))


def test_missing_file_is_named(tmp_path: Path):
    with pytest.raises(DataError, match=r"gone\.mat: no such file"):
        read_signal(media(tmp_path / "gone.mat"))


def test_empty_file_is_refused(tmp_path: Path):
    (tmp_path / "e.mat").touch()
    with pytest.raises(DataError, match=r"e\.mat: the file is empty"):
        read_signal(media(tmp_path / "e.mat"))


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_truncated_mat_is_refused_from_its_headers(mat: Path, share: float):
    content = mat.read_bytes()
    mat.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"EEG_videos\.mat: truncated, \d+ bytes or more are missing"):
        mat_shapes(mat)


def test_damaged_mat_names_the_variable(mat: Path):
    content = bytearray(mat.read_bytes())
    content[400:900] = bytes(500)
    mat.write_bytes(bytes(content))
    with pytest.raises(DataError, match=r"EEG_videos\.mat: video_1 is not readable"):
        read_signal(media(mat))


def test_damaged_header_is_refused(mat: Path):
    content = bytearray(mat.read_bytes())
    content[136:180] = bytes(44)
    mat.write_bytes(bytes(content))
    with pytest.raises(DataError, match="not a readable MATLAB file"):
        mat_shapes(mat)


def test_file_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "x.mat").write_text("hello " * 40)
    with pytest.raises(DataError, match="not a MATLAB version 5 file"):
        read_signal(media(tmp_path / "x.mat"))


def test_hdf5_mat_is_refused_with_its_cure(tmp_path: Path):
    path = tmp_path / "v73.mat"
    path.write_bytes(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(126) + b"IM" + bytes(600))
    with pytest.raises(DataError, match=r"version 7\.3 \(HDF5\) is not read.*-v7"):
        read_signal(media(path))


def test_wrong_key_lists_the_variables(mat: Path):
    with pytest.raises(DataError, match="no variable 'video_9'; the variables that are there: video_1, video_2"):
        read_signal(media(mat, key="video_9"))
    with pytest.raises(DataError, match="no variable 'video_9'"):
        num_samples(media(mat, key="video_9"))


def test_text_variable_is_refused(tmp_path: Path):
    scipy.io.savemat(tmp_path / "t.mat", {"video_1": "words"})
    with pytest.raises(DataError, match="video_1 must be a numeric array"):
        read_signal(media(tmp_path / "t.mat"))


def test_empty_variable_is_refused(tmp_path: Path):
    scipy.io.savemat(tmp_path / "t.mat", {"video_1": np.zeros((3, 0))})
    with pytest.raises(DataError, match=r"must be an array \(channel, time\) with samples"):
        read_signal(media(tmp_path / "t.mat"))


def test_wrong_channel_count_is_refused(mat: Path):
    with pytest.raises(DataError, match=r"video_1 has 3 channels \(shape \(3, 500\)\), need 2"):
        read_signal(media(mat, ch_names=("A", "B")))


def test_mat_without_rate_or_key_is_refused(mat: Path):
    with pytest.raises(DataError, match="does not say its variable and sampling rate"):
        read_signal(media(mat, rate_hz=None))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_is_refused_with_channel_and_count(tmp_path: Path, eeg: np.ndarray, value: float):
    eeg[1, 7:9] = value
    scipy.io.savemat(tmp_path / "n.mat", {"video_1": eeg})
    with pytest.raises(DataError, match=r"n\.mat: video_1: NaN or infinite values in 1 channels \(B\) at 2 of 500"):
        read_signal(media(tmp_path / "n.mat"), allow_flat=True)


def test_flat_channel_is_refused_unless_allowed(tmp_path: Path, eeg: np.ndarray):
    eeg[2] = 4e-5
    scipy.io.savemat(tmp_path / "n.mat", {"video_1": eeg})
    with pytest.raises(DataError, match=r"n\.mat: video_1: 1 of 3 channels are flat \(C\)"):
        read_signal(media(tmp_path / "n.mat"))
    assert read_signal(media(tmp_path / "n.mat"), allow_flat=True).data.shape == (500, 3)


def test_recording_with_only_flat_channels_is_always_refused(tmp_path: Path):
    scipy.io.savemat(tmp_path / "n.mat", {"video_1": np.ones((3, 50))})
    with pytest.raises(DataError, match="3 of 3 channels are flat"):
        read_signal(media(tmp_path / "n.mat"), allow_flat=True)


def write_reservations(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(("sub_id,ch-1,ch-2,ch-3", *lines)) + "\n", encoding="utf-8")
    return path


def test_reservations_give_the_kept_channels(tmp_path: Path):
    path = write_reservations(tmp_path / "r.csv", "test_1,1,0,1", "test_10,1,1,1")
    np.testing.assert_array_equal(read_reservations(path, "test_1"), [True, False, True])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("test_2,1,1,1",), "need one row of subject 'test_1', got 0"),
        (("test_1,1,1,1", "test_1,1,1,0"), "need one row of subject 'test_1', got 2"),
        (("test_1,1,2,1",), "must hold only 0 and 1"),
        (("test_1,1,x,1",), "must hold 3 numbers 0 or 1"),
        (("test_1,1",), "must hold 3 numbers 0 or 1"),
    ],
)
def test_odd_reservations_are_refused(tmp_path: Path, lines: tuple[str, ...], message: str):
    with pytest.raises(DataError, match=message):
        read_reservations(write_reservations(tmp_path / "r.csv", *lines), "test_1")


def test_reservations_without_columns_are_refused(tmp_path: Path):
    (tmp_path / "r.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="need the columns sub_id, ch-1"):
        read_reservations(tmp_path / "r.csv", "test_1")


def write_fif(tmp_path: Path, seconds: float = 4.0) -> tuple[Path, np.ndarray]:
    mne = pytest.importorskip("mne")
    data = np.random.default_rng(2).standard_normal((2, int(seconds * 100))) * 1e-5
    raw = mne.io.RawArray(data, mne.create_info(["C3", "C4"], 100.0, "eeg"), verbose="ERROR")
    path = tmp_path / "own_raw.fif"
    raw.save(path, verbose="ERROR")
    return path, data


def test_recording_is_read_through_mne_and_cut(tmp_path: Path):
    path, data = write_fif(tmp_path)
    signal = read_signal(Media(path=path, start_s=1.0, duration_s=2.0))
    np.testing.assert_allclose(signal.data, data[:, 100:300].T, rtol=1e-5, atol=1e-11)
    assert (signal.rate_hz, signal.ch_names, signal.ch_types, signal.unit) == (100.0, ("C3", "C4"), ("eeg", "eeg"), "V")
    assert num_samples(Media(path=path, start_s=1.0)) == 300
    assert recording_length_s(Media(path=path, start_s=1.0)) == 3.0


@pytest.mark.parametrize(
    ("types", "unit"),
    [
        (("hbo", "hbr"), "M"),
        (("hbo", "hbr", "stim"), "M"),
        (("hbo", "hbr", "misc"), "M"),
        (("eeg", "stim"), "V"),
        (("eeg", "hbo", "hbr"), "V"),
    ],
)
def test_unit_of_a_recording_follows_its_channels(tmp_path: Path, types: tuple[str, ...], unit: str):
    mne = pytest.importorskip("mne")
    data = np.random.default_rng(0).standard_normal((len(types), 200)) * 1e-6
    info = mne.create_info([f"S1_D1 {kind}" for kind in types], 100.0, list(types))
    mne.io.RawArray(data, info, verbose="ERROR").save(tmp_path / "a_raw.fif", verbose="ERROR")
    assert read_signal(Media(path=tmp_path / "a_raw.fif")).unit == unit


def test_recording_that_mne_cannot_open_is_refused(tmp_path: Path):
    (tmp_path / "own.edf").write_bytes(b"no recording")
    with pytest.raises(DataError, match=r"own\.edf: MNE cannot read this recording"):
        read_signal(Media(path=tmp_path / "own.edf"))


def test_stretch_outside_a_recording_is_refused(tmp_path: Path):
    path, _ = write_fif(tmp_path)
    with pytest.raises(DataError, match="do not fit a recording of 4"):
        read_signal(Media(path=path, duration_s=9.0))


def test_recording_cut_short_on_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path, _ = write_fif(tmp_path)
    raw = physio.open_raw(Media(path=path))
    monkeypatch.setattr(type(raw), "_read_segment", lambda *_, **__: (_ for _ in ()).throw(OSError("short read")))
    with pytest.raises(DataError, match=r"own_raw\.fif: the recording is cut short or damaged \(short read\)"):
        read_signal(Media(path=path))
    monkeypatch.setattr(type(raw), "load_data", lambda *_, **__: (_ for _ in ()).throw(OSError("short load")))
    with pytest.raises(DataError, match="short load"):
        physio.open_raw(Media(path=path), preload=True)


@pytest.mark.parametrize(
    ("name", "num_channels", "kind", "rate_hz"),
    [("eeglab_data.set", 32, "eeg", 128.0), ("fnirs_18ch_intensity.snirf", 18, "fnirs_cw_amplitude", 20.033)],
)
def test_real_recordings_are_read(name: str, num_channels: int, kind: str, rate_hz: float):
    folder = os.environ.get("MERSUITE_TEST_DATA")
    if not folder:
        pytest.skip("MERSUITE_TEST_DATA is not set")
    medium = Media(path=Path(folder) / "recordings" / name, start_s=5.0, duration_s=20.0)
    signal = read_signal(medium)
    assert signal.data.shape == (num_samples(medium), num_channels)
    assert set(signal.ch_types) == {kind}
    assert signal.rate_hz == pytest.approx(rate_hz, abs=1e-3)
    assert signal.unit == "V"
