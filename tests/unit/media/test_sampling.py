import numpy as np
import pytest

from mersuite.errors import DataError
from mersuite.media.sampling import motion_energy, peak_frame, uniform_indices, uniform_times


def test_times_are_the_middles_of_equal_parts():
    times = uniform_times(16, 10.0)
    np.testing.assert_allclose(np.diff(times), 10.0 / 16)
    assert times[0] == 10.0 / 32
    assert times[-1] == 10.0 - 10.0 / 32


@pytest.mark.parametrize(("num_frames", "num_there"), [(16, 250), (16, 16), (7, 3), (1, 9), (3, 1)])
def test_indices_are_sorted_inside_and_spread(num_frames: int, num_there: int):
    index = uniform_indices(num_frames, num_there)
    assert len(index) == num_frames
    assert (np.diff(index) >= 0).all()
    assert 0 <= index[0] <= index[-1] < num_there
    counts = np.bincount(index, minlength=num_there)
    assert counts.max() - counts.min() <= 1


def test_all_frames_are_taken_once_when_as_many_are_wanted():
    assert uniform_indices(6, 6).tolist() == list(range(6))


@pytest.mark.parametrize(("num_frames", "num_there"), [(0, 5), (5, 0)])
def test_no_frames_are_refused(num_frames: int, num_there: int):
    with pytest.raises(DataError, match=f"cannot take {num_frames} frames of {num_there}"):
        uniform_indices(num_frames, num_there)


def test_the_peak_is_the_first_highest_score_and_frames_without_a_face_do_not_count():
    assert peak_frame(np.array([1.0, 5.0, 2.0, 5.0])) == 1
    assert peak_frame(np.array([np.nan, -3.0, np.inf, -2.0])) == 3


@pytest.mark.parametrize("scores", [np.zeros(0), np.full(3, np.nan), np.zeros((2, 2))], ids=["none", "nan", "2-d"])
def test_scores_without_a_peak_are_refused(scores: np.ndarray):
    with pytest.raises(DataError, match="peak frame: need one finite score at least"):
        peak_frame(scores)


def test_motion_energy_is_the_mean_change_of_brightness():
    images = np.zeros((4, 10, 20, 3), np.uint8)
    images[2, :5] = 100  # half the picture by 100 grey levels, and back
    images[3, :5] = 100
    images[3, :, :, 1] += 10  # green counts 0.587
    np.testing.assert_allclose(motion_energy(images), [0, 0, 50, 5.87], rtol=1e-4)


def test_the_frame_of_a_sudden_movement_is_the_peak():
    images = np.random.default_rng(0).integers(100, 104, (30, 24, 32, 3), np.uint8)
    images[17:, 6:12, 8:16] = 220
    assert peak_frame(motion_energy(images)) == 17


@pytest.mark.parametrize("images", [np.zeros((3, 4, 4, 3)), np.zeros((3, 4, 4), np.uint8)])
def test_motion_energy_wants_rgb_pictures(images: np.ndarray):
    with pytest.raises(DataError, match=r"motion energy: need uint8 \(frame, height, width, 3\)"):
        motion_energy(images)
