"""Writes small film clips and sound files for tests, with known frame times and known sound.

Each picture shows its own index as black and white blocks, so that decoded frames can be told after any compression,
scaling and cutting. tests and scripts import this file by its path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

COLUMNS, ROWS = 4, 3
"""Blocks of a picture: 12 bits, the highest first, in reading order."""
TIME_BASE = Fraction(1, 12000)  # 24, 25 and 30 frames a second fall on whole ticks


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """A sound track: (channel, sample) floats in -1..1."""

    wave: np.ndarray
    rate_hz: int
    codec: str = "aac"
    start_s: float = 0.0
    options: Mapping[str, str] = field(default_factory=dict)

    @property
    def layout(self) -> str:
        """The layout's name by the number of channels."""
        return {1: "mono", 2: "stereo", 6: "5.1"}[len(self.wave)]


def picture(index: int, size: tuple[int, int]) -> np.ndarray:
    """Gives (height, width, 3) uint8 with the index in black and white blocks."""
    width, height = size
    bits = np.array([index >> place & 1 for place in range(COLUMNS * ROWS)][::-1]).reshape(ROWS, COLUMNS)
    rows, columns = np.arange(height) * ROWS // height, np.arange(width) * COLUMNS // width
    grey = np.where(bits[rows][:, columns], 225, 30).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def read_index(image: np.ndarray) -> int:
    """Gives the index that a picture shows; fails where a block is neither black nor white."""
    height, width, _ = image.shape
    value = 0
    for row in range(ROWS):
        for column in range(COLUMNS):
            y, x = (2 * row + 1) * height // (2 * ROWS), (2 * column + 1) * width // (2 * COLUMNS)
            dy, dx = max(1, height // (6 * ROWS)), max(1, width // (6 * COLUMNS))
            level = float(image[y - dy : y + dy, x - dx : x + dx].mean())
            assert not 90 < level < 165, f"block ({row}, {column}) is neither black nor white: {level:.0f}"
            value = 2 * value + (level > 127)
    return value


def read_indices(images: Sequence[np.ndarray] | np.ndarray) -> list[int]:
    """Gives the index that each picture shows."""
    return [read_index(image) for image in images]


def steady(num_frames: int, rate_hz: float = 25.0, start_s: float = 0.0) -> list[float]:
    """Gives frame times at a constant rate."""
    return [start_s + index / rate_hz for index in range(num_frames)]


def write_clip(
    path: Path,
    times_s: Sequence[float],
    *,
    size: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pixels: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    rate_hz: float = 25.0,
    sound: Sound | None = None,
    format_options: Mapping[str, str] | None = None,
) -> Path:
    """Writes a clip with one picture at each time; frame k shows k.

    Args:
        path: The file; its ending chooses the container.
        times_s: Increasing frame times, in seconds. In avi files they must be steady at `rate_hz`.
        size: Width and height.
        codec: Name of the video encoder; options: its options, such as {"g": "12", "bf": "2"}.
        pixels: Pixel format that is encoded.
        options: The encoder's options.
        rate_hz: Nominal rate that is written to the header.
        sound: The sound track, if any.
        format_options: Options of the container.
    """
    steady_base = path.suffix == ".avi"
    time_base = 1 / Fraction(rate_hz).limit_denominator(1001) if steady_base else TIME_BASE
    with av.open(str(path), "w", options=dict(format_options or {})) as container:
        stream: Any = container.add_stream(
            codec, rate=Fraction(rate_hz).limit_denominator(1001), options=dict(options or {})
        )
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.codec_context.time_base = time_base
        track = _add_sound(container, sound) if sound else None
        for index, time_s in enumerate(times_s):
            frame = av.VideoFrame.from_ndarray(picture(index, size), format="rgb24")
            frame.pts, frame.time_base = round(time_s / time_base), time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound and track:
            _write_sound(container, track, sound)
    return path


def write_sound(path: Path, sound: Sound) -> Path:
    """Writes a file with sound alone; its ending chooses the container."""
    with av.open(str(path), "w") as container:
        _write_sound(container, _add_sound(container, sound), sound)
    return path


def _add_sound(container: av.container.OutputContainer, sound: Sound) -> av.AudioStream:
    track: Any = container.add_stream(sound.codec, rate=sound.rate_hz, options=dict(sound.options))
    track.layout = sound.layout
    return track


def _write_sound(container: av.container.OutputContainer, track: av.AudioStream, sound: Sound) -> None:
    """Encodes the sound in pieces; the encoder's resampler turns floats into its own sample format."""
    step = track.codec_context.frame_size or 1024
    offset = round(sound.start_s * sound.rate_hz)
    for first in range(0, sound.wave.shape[1], step):
        piece = np.ascontiguousarray(sound.wave[:, first : first + step], np.float32)
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=sound.layout)
        frame.rate, frame.pts, frame.time_base = sound.rate_hz, offset + first, Fraction(1, sound.rate_hz)
        container.mux(track.encode(frame))
    container.mux(track.encode(None))
