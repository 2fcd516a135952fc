import numpy as np
import pytest

from mersuite.data.fake_faces import draw_crop, draw_look, express
from mersuite.signal import faces


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize(("num_pixels", "num_cells"), [(112, 56), (100, 7), (5, 8), (1, 56), (57, 56)])
def test_cells_share_out_all_pixels_and_keep_the_mean(num_pixels, num_cells, rng):
    matrix = faces.shrink_matrix(num_pixels, num_cells)
    values = rng.standard_normal(num_pixels)
    np.testing.assert_allclose(matrix.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(matrix.sum(axis=0), num_cells / num_pixels, rtol=1e-4)
    assert (matrix @ values).mean() == pytest.approx(values.mean(), abs=1e-6)


def test_grey_pictures_are_averages_of_areas(rng):
    frames = noise(rng, 3, 20, 12, 3)
    small = faces.grey_pictures(frames, 5, 4)
    wanted = (frames @ np.array([0.299, 0.587, 0.114])).reshape(3, 5, 4, 4, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(small, wanted, rtol=1e-5)


def test_blocks_do_not_change_pictures(rng, monkeypatch):
    frames = noise(rng, 10, 9, 9, 3)
    whole = faces.grey_pictures(frames, 4, 4)
    monkeypatch.setattr(faces, "BLOCK_FRAMES", 3)
    np.testing.assert_array_equal(faces.grey_pictures(frames, 4, 4), whole)


def test_brightness_and_contrast_are_taken_out_of_each_picture(rng):
    pictures = rng.uniform(50, 200, (4, 8, 8)).astype(np.float32)
    changed = pictures * np.array([1.0, 0.5, 1.2, 0.8], np.float32)[:, None, None] + 10
    normal = faces.normalise_pictures(pictures)
    np.testing.assert_allclose(faces.normalise_pictures(changed), normal, atol=1e-4)
    np.testing.assert_allclose(normal.std(axis=(1, 2)), 1, rtol=1e-4)


def test_a_blank_picture_is_zero():
    assert not faces.normalise_pictures(np.full((2, 8, 8), 77.3, np.float32)).any()


@pytest.mark.parametrize("name", [name for name in faces.REGIONS if name != "all"])
def test_motion_is_found_in_its_region_only(name):
    pictures = np.zeros((5, 56, 56), np.float32)
    top, bottom, left, right = (round(share * 56) for share in faces.REGIONS[name])
    pictures[1::2, (top + bottom) // 2, (left + right) // 2] = 1
    energy = dict(zip(faces.REGIONS, faces.motion_energy(pictures).T, strict=True))
    assert (energy[name] > 0).all()
    apart = {"brows": ("mouth", "cheeks"), "eyes": ("mouth",), "mouth": ("brows", "eyes"), "cheeks": ("brows",)}
    assert not any(energy[other].any() for other in apart[name])
    np.testing.assert_allclose(energy["all"], 1 / 56**2, rtol=1e-5)


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_regions_of_tiny_pictures_are_not_empty(side):
    pictures = np.ones((2, side, side), np.float32)
    assert all(faces.region(pictures, name).size for name in faces.REGIONS)
    assert np.isfinite(faces.motion_energy(pictures)).all()
    assert np.isfinite(faces.mouth_opening(pictures)).all()


def test_opening_follows_the_mouths_of_drawn_faces(rng):
    for _ in range(5):
        truth = np.clip(np.sin(np.arange(40) * 0.5), 0, 1)
        expression = express(rng.standard_normal(4), truth, 40, 12.5, rng)
        crops = draw_crop(draw_look(rng), expression)
        small = faces.normalise_pictures(faces.grey_pictures(crops, 56, 56))
        assert np.corrcoef(faces.mouth_opening(small), expression.mouth_open)[0, 1] > 0.9
