"""Small clips with faces, film, sound and text for the tests of feature extraction."""

from __future__ import annotations

import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mersuite.clip import Clip, Media, Signal
from mersuite.features.base import Extractor

RATE_HZ = 16_000


def face_clip(folder: Path, clip_id: str, num_frames: int, rng: np.random.Generator) -> Clip:
    """Writes faces of 24 x 28 pixels."""
    path = folder / f"{clip_id}.npy"
    np.save(path, rng.integers(0, 256, (num_frames, 24, 28, 3), dtype=np.uint8))
    return Clip(clip_id=clip_id, dataset="d", media={"face.speaker": Media(path=path)}, groups={})


def film_clip(folder: Path, clip_id: str, *, num_frames: int, rate_hz: int, moving: range = range(0)) -> Clip:
    """Writes a film of 48 x 32 pixels whose brightness rises from frame to frame, with a bar that moves for a while."""
    import av

    path = folder / f"{clip_id}.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate_hz)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for index in range(num_frames):
            image = np.full((32, 48, 3), 20 + index, np.uint8)
            if index in moving:
                place = 6 * (index - moving.start) % 40
                image[:, place : place + 8] = 230
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return Clip(clip_id=clip_id, dataset="d", media={"video": Media(path=path)}, groups={})


def sound_clip(folder: Path, clip_id: str, seconds: float, rng: np.random.Generator) -> Clip:
    """Writes noise at 16 kHz."""
    path = folder / f"{clip_id}.wav"
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes((3000 * rng.standard_normal(round(seconds * RATE_HZ))).astype("<i2").tobytes())
    return Clip(clip_id=clip_id, dataset="d", media={"voice.speaker": Media(path=path)}, groups={})


def read_wave(clip: Clip) -> np.ndarray:
    """Gives the samples of a sound clip in -1..1."""
    with wave.open(str(clip.media["voice.speaker"].path), "rb") as file:
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def made(extractor: Extractor, clips: Sequence[Clip]) -> dict[str, Mapping[str, Signal]]:
    """Runs an extractor; gives clip id to its streams."""
    return dict(extractor.extract(clips))


def vectors(streams: Mapping[str, Signal]) -> dict[str, np.ndarray]:
    """Gives the arrays of streams."""
    return {name: signal.data for name, signal in streams.items()}
