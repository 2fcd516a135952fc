"""Made-up faces: they look like faces, show their latents, and only the speaker's mouth moves, with the voice."""

from __future__ import annotations

import numpy as np
import pytest

from mersuite.data import fake_clip_files, fake_faces, fake_voices
from mersuite.data.fake_clips import ClipsConfig, FakeClip, FakeClips, draw_clips

CONFIG = ClipsConfig(num_clips=36, rate_hz=12.5)
RESTING = np.zeros(4)


@pytest.fixture(scope="module")
def drawn() -> FakeClips:
    return draw_clips(CONFIG)


def look(seed: int = 0) -> fake_faces.Look:
    return fake_faces.draw_look(np.random.default_rng(seed))


def crop(latent: np.ndarray, opening: np.ndarray | None = None, num_frames: int = 12) -> np.ndarray:
    """Pictures of one person, (frame, row, column) float64 grey."""
    expression = fake_faces.express(latent, opening, num_frames, 12.5, np.random.default_rng(5))
    return fake_faces.draw_crop(look(), expression).astype(float).mean(axis=-1)


def mouth_area(faces: np.ndarray) -> np.ndarray:
    """Pixels of the open mouth's inside in each picture of a face in blue, green, red: (frame,)."""
    blue, green, red = np.moveaxis(faces[:, 68:108, 36:76].astype(int), -1, 0)
    return ((red < 95) & (green < 55) & (blue < 55)).sum(axis=(1, 2))


def media(clip: FakeClip) -> fake_clip_files._Media:
    return fake_clip_files._Media(CONFIG, clip)


# ---- speaker and listener


def test_mouth_of_a_listener_is_shut_and_that_of_a_speaker_moves(drawn: FakeClips) -> None:
    for clip in drawn.candidates:
        assert clip.listener is not None
        silent, speaking = (mouth_area(media(clip).crop(part)) for part in (clip.listener, clip.speaker))
        assert silent.max() <= 40  # the line between the lips
        assert speaking.max() > 60
        assert speaking.std() > 5 * silent.std()


def test_mouth_of_a_speaker_moves_with_the_voice(drawn: FakeClips) -> None:
    for clip in drawn.clips[::3]:
        made = media(clip)
        power = made.voice.samples.astype(float) ** 2
        loudness = np.sqrt(fake_voices.mean_over_frames(power, clip.num_frames))
        assert np.corrcoef(mouth_area(made.crop(clip.speaker)), loudness)[0, 1] > 0.6


def test_people_of_a_candidate_sit_where_the_truth_says(drawn: FakeClips) -> None:
    for clip in drawn.candidates:
        scene = media(clip).scene()
        half = CONFIG.width // 2
        motion = np.abs(np.diff(scene.astype(float), axis=0))[:, 50:80].sum(axis=(0, 1, 3))
        left, right = motion[:half].sum(), motion[half:].sum()
        assert (left > right) == clip.speaker_is_left


# ---- what is to be seen


def test_detector_for_photographs_finds_the_faces(drawn: FakeClips) -> None:
    cv2 = pytest.importorskip("cv2")
    detector = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_default.xml")
    found: dict[int, list[bool]] = {1: [], 2: []}
    for clip in (*drawn.train[:8], *drawn.candidates[:8]):
        num_people = 2 if clip.is_candidate else 1
        for image in media(clip).scene()[::6]:
            boxes = detector.detectMultiScale(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 1.1, 3)
            found[num_people].append(len(boxes) == num_people)
    assert np.mean(found[1]) > 0.9
    assert np.mean(found[2]) > 0.9


@pytest.mark.parametrize("cue", range(4))
def test_each_cue_changes_the_face_the_more_the_larger_it_is(cue: int) -> None:
    resting = crop(RESTING).mean(axis=0)
    one, three = (crop(size * np.eye(4)[cue]).mean(axis=0) for size in (1.0, 3.0))
    assert np.abs(three - resting).mean() > 1.5 * np.abs(one - resting).mean() > 0.1


def test_energy_makes_a_head_restless() -> None:
    calm, restless = (crop(np.array([0, 0, 0, energy]))[:, :, 20:92] for energy in (-2.0, 2.0))
    assert np.abs(np.diff(restless, axis=0)).mean() > 1.5 * np.abs(np.diff(calm, axis=0)).mean()


def test_a_smile_lifts_the_corners_of_the_mouth() -> None:
    rows = np.arange(112)[:, None]
    heights = []
    for smile in (-2.0, 2.0):
        faces = fake_faces.draw_crop(
            look(), fake_faces.express(np.array([smile, 0, 0, 0]), None, 6, 12.5, np.random.default_rng(5))
        ).astype(float)
        redness = np.maximum(faces[..., 0] - 1.9 * faces[..., 1], 0).mean(axis=0)[70:104]
        heights.append(
            [float((rows[70:104] * part).sum() / part.sum()) for part in (redness[:, 43:48], redness[:, 53:59])]
        )
    (sad_corner, sad_middle), (glad_corner, glad_middle) = heights
    assert sad_corner > sad_middle
    assert glad_corner < glad_middle


def test_latents_can_be_read_from_the_pictures() -> None:
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import cross_val_predict

    config = ClipsConfig(num_clips=150, min_clip_s=1.0, max_clip_s=1.2, rate_hz=8.0)
    rows, latents = [], []
    for clip in draw_clips(config).clips:
        part = clip.listener or clip.speaker
        faces = fake_clip_files._Media(config, clip).crop(part).astype(np.float32).mean(axis=-1)[:, ::3, ::3]
        rows.append(np.concatenate([faces.mean(axis=0).ravel(), faces.std(axis=0).ravel()]))
        latents.append(part.face)
    truth = np.array(latents)
    found = cross_val_predict(Ridge(3e3), np.array(rows), truth, cv=5)
    explained = 1 - ((found - truth) ** 2).mean(axis=0) / truth.var(axis=0)
    assert explained.min() > 0.7


def test_one_part_of_a_pixel_of_motion_shows() -> None:
    still = fake_faces.express(RESTING, None, 2, 12.5, np.random.default_rng(0))
    courses = {name: getattr(still, name)[[0, 0]].copy() for name in fake_faces.Expression.__dataclass_fields__}
    courses["shift_x"][1] += 0.2 / 44.0  # a fifth of a pixel of a crop
    first, second = fake_faces.draw_crop(look(), fake_faces.Expression(**courses)).astype(float)
    assert 0.05 < np.abs(second - first).mean() < 3


def test_people_differ() -> None:
    looks = {fake_faces.draw_look(np.random.default_rng(seed)) for seed in range(12)}
    assert len(looks) == 12


def test_a_face_that_reaches_over_the_edge_is_cut_off() -> None:
    canvas = np.full((2, 40, 60, 3), 128, np.float32)
    expression = fake_faces.express(RESTING, np.ones(2), 2, 12.5, np.random.default_rng(0))
    fake_faces.draw_face(canvas, look(), expression, (0.0, 0.0), 30.0)
    assert canvas[:, :20, :20].std() > 10
    fake_faces.draw_face(canvas, look(), expression, (500.0, 20.0), 30.0)  # quite outside
    assert 0 <= canvas.min() <= canvas.max() <= 255
