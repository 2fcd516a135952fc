from pathlib import Path

import numpy as np
import pytest

from mersuite.errors import DataError
from mersuite.media.face_arrays import face_shape, read_faces


@pytest.fixture
def faces() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 112, 112, 3), np.uint8)


@pytest.fixture
def path(tmp_path: Path, faces: np.ndarray) -> Path:
    np.save(tmp_path / "clip.npy", faces)
    return tmp_path / "clip.npy"


def test_rgb_files_come_back_as_they_are(path: Path, faces: np.ndarray):
    found = read_faces(path, channel_order="rgb")
    np.testing.assert_array_equal(found, faces)
    assert found.dtype == np.uint8


def test_bgr_files_come_back_with_red_first(path: Path, faces: np.ndarray):
    np.testing.assert_array_equal(read_faces(path, channel_order="bgr"), faces[..., [2, 1, 0]])


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_faces_lie_in_ordinary_memory_that_may_be_changed(path: Path, order, faces: np.ndarray):
    found = read_faces(path, channel_order=order)
    assert type(found) is np.ndarray
    assert found.flags.c_contiguous  # torch.from_numpy refuses reversed axes
    found[:] = 0
    np.testing.assert_array_equal(np.load(path), faces)


def test_some_frames_come_in_the_order_asked(path: Path, faces: np.ndarray):
    np.testing.assert_array_equal(read_faces(path, channel_order="rgb", frames=[4, 0, 4]), faces[[4, 0, 4]])
    np.testing.assert_array_equal(read_faces(path, channel_order="bgr", frames=[2]), faces[[2]][..., ::-1])


def test_any_size_and_fortran_order_are_read(tmp_path: Path):
    faces = np.arange(2 * 3 * 5 * 3, dtype=np.uint8).reshape(2, 3, 5, 3)
    np.save(tmp_path / "f.npy", np.asfortranarray(faces))
    found = read_faces(tmp_path / "f.npy", channel_order="rgb")
    np.testing.assert_array_equal(found, faces)
    assert found.flags.c_contiguous
    assert face_shape(tmp_path / "f.npy") == (2, 3, 5)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((5, 112, 112, 3), np.float32),
        np.zeros((5, 112, 112), np.uint8),
        np.zeros((5, 3, 112, 112), np.uint8),
        np.zeros((5, 112, 112, 4), np.uint8),
        np.zeros((), np.uint8),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_another_type_or_shape_is_refused(tmp_path: Path, array: np.ndarray):
    np.save(tmp_path / "f.npy", array)
    with pytest.raises(DataError, match=rf"need uint8 \(frame, height, width, 3\), got {array.dtype}"):
        read_faces(tmp_path / "f.npy", channel_order="rgb")


def test_a_file_without_frames_is_refused(tmp_path: Path):
    np.save(tmp_path / "f.npy", np.zeros((0, 112, 112, 3), np.uint8))
    with pytest.raises(DataError, match=r"holds no face: \(0, 112, 112, 3\)"):
        read_faces(tmp_path / "f.npy", channel_order="rgb")


def test_objects_are_refused_and_not_opened(tmp_path: Path):
    np.save(tmp_path / "f.npy", np.array([{"a": 1}], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"not a readable \.npy file of numbers"):
        read_faces(tmp_path / "f.npy", channel_order="rgb")


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_a_cut_off_file_is_refused(path: Path, share: float):
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError, match=r"clip\.npy: not a readable \.npy file of numbers .*extract the faces again"):
        read_faces(path, channel_order="rgb")


def test_missing_empty_and_foreign_files_are_refused(tmp_path: Path):
    (tmp_path / "empty.npy").write_bytes(b"")
    np.savez(tmp_path / "f.npz", faces=np.zeros(3))
    with pytest.raises(DataError, match=r"none\.npy: no such file"):
        read_faces(tmp_path / "none.npy", channel_order="rgb")
    with pytest.raises(DataError, match="is a folder"):
        read_faces(tmp_path, channel_order="rgb")
    with pytest.raises(DataError, match=r"empty\.npy: is empty \(0 bytes\)"):
        read_faces(tmp_path / "empty.npy", channel_order="rgb")
    with pytest.raises(DataError, match="is an npz file"):
        read_faces(tmp_path / "f.npz", channel_order="rgb")


def test_an_unknown_channel_order_and_frame_are_refused(path: Path):
    with pytest.raises(DataError, match="channel_order='gbr': need 'rgb' or 'bgr'"):
        read_faces(path, channel_order="gbr")
    with pytest.raises(DataError, match="there is no frame 5; it holds frames 0 to 4"):
        read_faces(path, channel_order="rgb", frames=[0, 5])
