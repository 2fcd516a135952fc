import io
from pathlib import Path

import numpy as np
import pytest

from mersuite.clip import Clip, Media
from mersuite.errors import ConfigError
from mersuite.faces.analysis import FaceAnalysis, analyse
from mersuite.faces.config import FacesConfig
from mersuite.faces.picture import LISTENER, SPEAKER, save_picture
from tests.unit.faces.composited import pair_frames, speech, write_clip

RATE_HZ = 25.0


def made(folder: Path, *, with_sound: bool, people: bool) -> tuple[Media, FaceAnalysis]:
    talk = speech(np.random.default_rng(0), 1.6, RATE_HZ)
    away = np.full(40, np.nan)
    openings = (talk.opening, 0 * talk.opening) if people else (away, away)
    images = pair_frames(openings, seed=0, rate_hz=RATE_HZ)
    video = Media(path=write_clip(folder / "a.mp4", images, RATE_HZ, talk.sound if with_sound else None))
    clip = Clip(clip_id="a", dataset="t", media={"video": video}, groups={})
    return video, analyse(clip, FacesConfig())


def picture(video: Media, analysis: FaceAnalysis) -> np.ndarray:
    from matplotlib.image import imread

    stream = io.BytesIO()
    save_picture(stream, "a", video, analysis)
    return imread(io.BytesIO(stream.getvalue()))[..., :3]


def share_of(image: np.ndarray, color: str) -> float:
    wanted = np.array([int(color[index : index + 2], 16) for index in (1, 3, 5)]) / 255
    return float((np.abs(image - wanted).max(-1) < 0.02).mean())


def test_picture_shows_both_roles_in_their_colours(tmp_path: Path):
    image = picture(*made(tmp_path, with_sound=True, people=True))
    assert image.shape[1] == 1210
    assert min(share_of(image, SPEAKER), share_of(image, LISTENER)) > 1e-3


def test_picture_is_drawn_without_sound_and_without_faces(tmp_path: Path):
    image = picture(*made(tmp_path, with_sound=False, people=False))
    assert max(share_of(image, SPEAKER), share_of(image, LISTENER)) == 0


def test_missing_matplotlib_is_refused_with_its_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    video, analysis = made(tmp_path, with_sound=True, people=False)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'mersuite\[report\]'"):
        save_picture(io.BytesIO(), "a", video, analysis)
