"""Video and sound files of made-up clips open everywhere and are the same each time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mersuite.data import fake_movies
from mersuite.media.audio import read_audio
from mersuite.media.video import probe, read_frames


def write(path: Path, rate_hz: float = 12.5, num_frames: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """A grey bar that moves over a dark ground, and a tone."""
    images = np.full((num_frames, 64, 96, 3), 40, np.uint8)
    for number in range(num_frames):
        images[number, :, 4 * number : 4 * number + 8] = 200
    time_s = np.arange(round(num_frames * 16000 / rate_hz)) / 16000
    samples = np.rint(8000 * np.sin(2 * np.pi * 440 * time_s)).astype(np.int16)
    with path.open("wb") as stream:
        fake_movies.write_mp4(stream, images, rate_hz, samples, 16000)
    return images, samples


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("rate_hz", [8.0, 12.5, 29.97])
def test_pictures_and_sound_come_back(
    tmp_path: Path, codec: str, rate_hz: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fake_movies, "_CODECS", (codec,))
    images, samples = write(tmp_path / "a.mp4", rate_hz)
    info, frames = probe(tmp_path / "a.mp4"), read_frames(tmp_path / "a.mp4")
    assert info.rate_hz == pytest.approx(rate_hz, rel=1e-3)
    assert info.has_audio
    assert np.abs(frames.images.astype(float) - images).mean() < 5
    sound = read_audio(tmp_path / "a.mp4")
    shared = min(sound.size, samples.size)
    assert shared >= samples.size - 1024
    assert np.corrcoef(sound[:shared], samples[:shared])[0, 1] > 0.95


def test_bytes_do_not_depend_on_when_a_file_is_written(tmp_path: Path) -> None:
    # Many: with x264's rate control one file in ten differs.
    for number in range(40):
        write(tmp_path / f"{number}.mp4")
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_sound_file_holds_the_samples(tmp_path: Path) -> None:
    samples = np.array([0, 1, -1, 32767, -32768], np.int16)
    with (tmp_path / "a.wav").open("wb") as stream:
        fake_movies.write_wav(stream, samples, 16000)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), samples / 32768, atol=1e-6)
