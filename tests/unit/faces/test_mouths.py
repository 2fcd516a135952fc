import numpy as np
import pytest

from mersuite.faces.crops import cut
from mersuite.faces.mouths import mouth_motion, opening_motion
from tests.unit.faces.composited import open_mouth, paste, people

MARGIN = 0.15
SIDE = 80.0


def crops(openings: np.ndarray, shifts: np.ndarray, seed: int = 0, gains: np.ndarray | None = None) -> np.ndarray:
    """Crops at a fixed place of a head that moves by `shifts` (frame, 2) pixels and opens its mouth."""
    rng = np.random.default_rng(seed)
    person = people()[0]
    box = np.array([80 - SIDE / 2, 80 - SIDE / 2, SIDE, SIDE])
    made = []
    for index, opening in enumerate(openings):
        canvas = np.full((160, 160, 3), 120, np.float32)
        paste(canvas, person, open_mouth(person, opening), (80 + shifts[index, 0], 80 + shifts[index, 1]), SIDE)
        canvas *= 1.0 if gains is None else gains[index]
        image = np.clip(canvas + rng.normal(0, 1.5, canvas.shape), 0, 255).astype(np.uint8)
        made.append(cut(image, box, side=112, margin=MARGIN))
    return np.array(made)


def motion(openings: np.ndarray, shifts: np.ndarray | None = None, **options) -> np.ndarray:
    shifts = np.zeros((len(openings), 2)) if shifts is None else shifts
    return mouth_motion(crops(openings, shifts, **options), np.ones(len(openings), bool), margin=MARGIN)


TALK = np.array([0, 0, 0.5, 1.0, 0.4, 0, 0, 0.8, 0.2, 0])
STILL = np.zeros(10)


def test_motion_follows_the_change_of_the_opening():
    measured = motion(TALK)
    assert np.isnan(measured[0])
    assert np.corrcoef(measured[1:], np.abs(np.diff(TALK)))[0, 1] > 0.95


@pytest.mark.parametrize("step", [0.5, 2.0, 4.0])
def test_head_motion_does_not_count_as_motion_of_the_mouth(step: float, rng: np.random.Generator):
    shifts = np.cumsum(rng.choice([-step, step], (10, 2)), axis=0)
    talk, shaken = motion(TALK)[1:], motion(STILL, shifts)[1:]
    raw = np.abs(np.diff(crops(STILL, shifts).astype(float), axis=0)).mean((1, 2, 3))
    assert raw.min() > 1.5 * np.abs(np.diff(crops(STILL, 0 * shifts).astype(float), axis=0)).mean()
    assert np.abs(shaken).max() < 0.2 * talk.max()


def test_a_mouth_that_talks_in_a_moving_head_is_measured(rng: np.random.Generator):
    shifts = np.cumsum(rng.choice([-2.0, 2.0], (10, 2)), axis=0)
    assert np.corrcoef(motion(TALK, shifts)[1:], np.abs(np.diff(TALK)))[0, 1] > 0.9


def test_light_that_changes_does_not_count():
    gains = 1 + 0.1 * np.sin(np.arange(10))
    assert np.abs(motion(STILL, gains=gains)[1:]).max() < 0.15 * motion(TALK)[1:].max()


def test_frames_where_the_face_is_not_seen_are_not_known():
    seen = np.ones(10, bool)
    seen[4] = False
    measured = mouth_motion(crops(TALK, np.zeros((10, 2))), seen, margin=MARGIN)
    assert np.flatnonzero(np.isnan(measured)).tolist() == [0, 4, 5]
    assert np.isnan(mouth_motion(crops(TALK, np.zeros((10, 2))), ~np.ones(10, bool), margin=MARGIN)).all()


def test_long_clips_are_measured_in_blocks_that_change_nothing(monkeypatch: pytest.MonkeyPatch):
    from mersuite.faces import mouths

    images = crops(TALK, np.zeros((10, 2)))
    seen = np.arange(10) != 6
    at_once = mouth_motion(images, seen, margin=MARGIN)
    sizes = []
    small = mouths._small
    monkeypatch.setattr(mouths, "_small", lambda part: sizes.append(len(part)) or small(part))
    monkeypatch.setattr(mouths, "_BLOCK", 3)
    np.testing.assert_allclose(mouth_motion(images, seen, margin=MARGIN), at_once, atol=1e-5)
    assert max(sizes) == 4  # three and the one before


def test_the_size_of_the_crops_hardly_matters():
    large = motion(TALK)
    images = crops(TALK, np.zeros((10, 2)))[:, ::2, ::2]
    small = mouth_motion(np.ascontiguousarray(images), np.ones(10, bool), margin=MARGIN)
    assert np.corrcoef(large[1:], small[1:])[0, 1] > 0.97


def test_opening_of_landmarks_gives_motion_where_it_is_known():
    opening = np.array([0.1, 0.1, 0.3, 0.1, np.nan, 0.1, 0.1])
    measured = opening_motion(opening)
    assert np.flatnonzero(np.isnan(measured)).tolist() == [0, 4, 5]
    assert np.nanargmax(measured) == 2
    np.testing.assert_allclose(measured[[1, 2, 3]], [0.0, 0.4, 0.2])
    assert np.isnan(opening_motion(np.full(3, np.nan))).all()
