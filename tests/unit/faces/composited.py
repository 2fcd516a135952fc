"""Clips of two people whose truth is known: a public-domain photograph and its altered mirror image, with a voice.

The photograph is scikit-image's astronaut (Eileen Collins, NASA). Mouths are opened by warping the picture; sound is a
hum whose loudness follows the same syllables.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

SOUND_HZ = 16000
FACE_SIDE = 97.0  # side of the cascade's box in the photograph, in pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """image (height, width, 3) float32, 0..255; alpha (height, width) 0..1; box of the face and mouth in pixels."""

    image: np.ndarray
    alpha: np.ndarray
    face: tuple[float, float, float, float]
    mouth: tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Speech:
    """Syllables: opening of the mouth (frame,) 0..1, and the sound that goes with it (sample,) at SOUND_HZ."""

    opening: np.ndarray
    sound: np.ndarray


@cache
def people() -> tuple[Person, Person]:
    """The astronaut, and a second person made from her: mirrored, darker, bluer, a longer and narrower face."""
    import cv2
    from skimage.data import astronaut

    head = astronaut()[8:218, 130:320].astype(np.float32)
    height, width = head.shape[:2]
    y, x = np.mgrid[:height, :width]
    radius = ((x - 93) / 82.0) ** 2 + ((y - 92) / 96.0) ** 2
    alpha = np.clip((1.25 - radius) / 0.35, 0, 1).astype(np.float32)
    first = Person(image=head, alpha=alpha, face=(47.0, 58.0, FACE_SIDE, FACE_SIDE), mouth=(94.0, 138.0))
    stretched = (int(width * 0.94), int(height * 1.04))
    image = cv2.resize(head[:, ::-1], stretched)
    image = 255 * (image / 255) ** 1.25 * np.array([0.88, 0.95, 1.05], np.float32)
    side = FACE_SIDE * 0.99
    second = Person(
        image=np.clip(image, 0, 255).astype(np.float32),
        alpha=cv2.resize(alpha[:, ::-1], stretched),
        face=((width - 144.0) * 0.94, 58.0 * 1.04, side, side),
        mouth=((width - 94.0) * 0.94, 138.0 * 1.04),
    )
    return first, second


def open_mouth(person: Person, amount: float) -> np.ndarray:
    """The person's picture with the lower lip and chin pulled down; amount 0..1."""
    import cv2

    if amount == 0:
        return person.image
    height, width = person.image.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    gap = 10.0 * amount
    across = np.exp(-(((x - person.mouth[0]) / 24.0) ** 2) * 2)
    below = y - person.mouth[1]
    fade = np.exp(-((np.maximum(below - gap, 0) / 22.0) ** 2))
    shift = np.where(below > 0, np.minimum(below, gap * across) * fade, 0)
    moved = cv2.remap(person.image, x, (y - shift).astype(np.float32), cv2.INTER_LINEAR)
    dark = (np.clip(gap * across - np.abs(below - gap * across / 2) * 2, 0, 2) / 2)[..., None]
    return moved * (1 - 0.8 * dark)


def paste(canvas: np.ndarray, person: Person, image: np.ndarray, centre: tuple[float, float], side: float) -> None:
    """Draws a person so that the face has this centre and side, in pixels of the canvas (height, width, 3) float32."""
    import cv2

    scale = side / person.face[2]
    left = centre[0] - scale * (person.face[0] + person.face[2] / 2)
    top = centre[1] - scale * (person.face[1] + person.face[3] / 2)
    corner = max(0, int(left)), max(0, int(top))
    end = left + scale * image.shape[1] + 2, top + scale * image.shape[0] + 2
    part = canvas[corner[1] : max(int(end[1]), corner[1]), corner[0] : max(int(end[0]), corner[0])]
    if not part.size:
        return
    place = np.array([[scale, 0, left - corner[0]], [0, scale, top - corner[1]]], np.float32)
    size = (part.shape[1], part.shape[0])
    alpha = cv2.warpAffine(person.alpha, place, size)[..., None]
    part += alpha * (cv2.warpAffine(image, place, size) - part)


def background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A smooth coloured wall with some structure, (height, width, 3) float32."""
    import cv2

    coarse = rng.uniform(90, 150, (4, 6, 3)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255)


def loudness(rng: np.random.Generator, duration_s: float) -> Callable[[np.ndarray], np.ndarray]:
    """Phrases of syllables with pauses between them, as a function of time, 0..1; no moment is special."""
    starts, time_s = [], rng.uniform(-3.0, -1.0)
    while time_s < duration_s:
        for _ in range(rng.integers(2, 6)):
            starts.append(time_s)
            time_s += rng.uniform(0.16, 0.32)
        time_s += rng.uniform(0.25, 0.6)
    sizes = rng.uniform(0.5, 1.0, len(starts))

    def at(times_s: np.ndarray) -> np.ndarray:
        bumps = np.exp(-(((times_s[:, None] - np.array(starts) - 0.08) / 0.055) ** 2)) * sizes
        return np.clip(bumps.sum(1), 0, 1)

    return at


def speech(rng: np.random.Generator, duration_s: float, rate_hz: float) -> Speech:
    """The mouth and the sound of one who speaks."""
    loud = loudness(rng, duration_s)
    times_s = np.arange(round(duration_s * SOUND_HZ)) / SOUND_HZ
    coarse_s = np.arange(round(duration_s * 500) + 2) / 500
    envelope = np.interp(times_s, coarse_s, loud(coarse_s))
    hum = sum(np.sin(2 * np.pi * 140.0 * k * times_s + k) / k for k in range(1, 9))
    sound = 0.25 * envelope * hum + 0.002 * rng.standard_normal(len(times_s))
    return Speech(opening=loud(np.arange(round(duration_s * rate_hz)) / rate_hz), sound=sound.astype(np.float32))


def sway(rng: np.random.Generator, num_frames: int, rate_hz: float, size: float) -> np.ndarray:
    """Slow smooth motion, (frame, 2), of about `size` pixels."""
    times_s = np.arange(num_frames)[:, None] / rate_hz
    speeds = rng.uniform(0.3, 0.8, (3, 2))
    phases = rng.uniform(0, 2 * np.pi, (3, 2))
    return size * np.mean(np.sin(2 * np.pi * speeds * times_s[..., None].swapaxes(1, 2) + phases), axis=1)


def pair_frames(
    openings: tuple[np.ndarray | None, np.ndarray | None],
    *,
    seed: int,
    rate_hz: float,
    size: tuple[int, int] = (180, 320),
    side: float = 56.0,
    sways: tuple[float, float] = (2.0, 2.0),
    offset: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Frames (frame, height, width, 3) uint8 of one or two people side by side; None leaves a person out.

    Args:
        openings: Mouth opening of the left and the right person, (frame,); NaN where the person is away.
        sways: How far each head moves, in pixels.
        offset: Moves both people, in pixels.
    """
    rng = np.random.default_rng(seed)
    height, width = size
    wall = background(rng, height, width)
    num_frames = next(len(each) for each in openings if each is not None)
    paths = [sway(rng, num_frames, rate_hz, each) for each in sways]
    noise = rng.normal(0, 1.5, (height, width, 3)).astype(np.float32)
    frames = np.empty((num_frames, height, width, 3), np.uint8)
    for index in range(num_frames):
        canvas = wall.copy()
        for person, opening, path, place in zip(people(), openings, paths, (0.28, 0.72), strict=True):
            if opening is None or np.isnan(opening[index]):
                continue
            centre = (width * place + path[index, 0] + offset[0], height * 0.5 + path[index, 1] + offset[1])
            paste(canvas, person, open_mouth(person, float(opening[index])), centre, side)
        canvas += np.roll(noise, rng.integers(height), axis=0)
        frames[index] = np.clip(canvas, 0, 255)
    return frames


def write_clip(path: Path, frames: np.ndarray, rate_hz: float, sound: np.ndarray | None) -> Path:
    """Writes H.264 in mp4, with AAC sound where there is some."""
    from fractions import Fraction

    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    rate = Fraction(rate_hz).limit_denominator(1000)
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
        video.height, video.width, video.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        video.thread_count = 1
        audio = container.add_stream("aac", rate=SOUND_HZ, layout="mono") if sound is not None else None
        for image in frames:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode())
        if audio is not None and sound is not None:
            for start in range(0, len(sound), 1024):
                piece = av.AudioFrame.from_ndarray(sound[None, start : start + 1024], format="fltp", layout="mono")
                piece.sample_rate, piece.pts, piece.time_base = SOUND_HZ, start, Fraction(1, SOUND_HZ)
                container.mux(audio.encode(piece))
            container.mux(audio.encode())
    return path
