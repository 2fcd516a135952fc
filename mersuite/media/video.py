"""Pictures of a film clip: exact frame times, stretches, seeking, sampling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mersuite.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What a container says of its pictures.

    Attributes:
        width: Pixels a row, as shown.
        height: Pixels a column, as shown.
        rate_hz: Average frames a second.
        duration_s: Seconds of picture.
        num_frames: Number of frames; None where the container does not say.
        has_audio: Whether there is a sound track.
    """

    width: int
    height: int
    rate_hz: float
    duration_s: float
    num_frames: int | None
    has_audio: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """Decoded pictures.

    Attributes:
        images: (frame, height, width, 3) uint8, RGB.
        times_s: (frame,) float64, seconds from the start of the stretch that was asked for.
    """

    images: np.ndarray
    times_s: np.ndarray


def probe(path: Path) -> VideoInfo:
    """Gives size, rate and length of a clip without decoding it.

    Raises:
        DataError: If the file is missing, empty, broken or has no pictures.
    """
    import av

    _check_file(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: has no picture stream")
            stream = container.streams.video[0]
            duration = stream.duration * stream.time_base if stream.duration else (container.duration or 0) / 1e6
            return VideoInfo(
                width=stream.width,
                height=stream.height,
                rate_hz=float(stream.average_rate or 0),
                duration_s=float(duration),
                num_frames=stream.frames or None,
                has_audio=bool(container.streams.audio),
            )
    except av.FFmpegError as error:
        raise DataError(f"{path}: not a readable video file ({error}); copy or download it again") from error


def iter_frames(
    path: Path,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    rate_hz: float | None = None,
    height: int | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Gives (seconds from the start of the stretch, picture) frame after frame.

    Raises:
        DataError: If the file is missing, empty or broken, has no pictures, or ends before the stretch does.
    """
    import av

    _check_file(path)
    end_s = float("inf") if duration_s is None else start_s + duration_s
    last = -1
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise DataError(f"{path}: has no picture stream")
            stream = container.streams.video[0]
            zero_s = float((stream.start_time or 0) * stream.time_base)
            for frame in container.decode(stream):
                time_s = float(frame.pts * stream.time_base) - zero_s
                if time_s < start_s - 5e-4:
                    continue
                if time_s >= end_s - 5e-4:
                    break
                time_s -= start_s
                part = -1 if rate_hz is None else int((time_s + 1e-3) * rate_hz)
                if rate_hz is not None and part <= last:
                    continue
                last = part
                width = None if height is None else max(1, round(frame.width * height / frame.height))
                yield max(time_s, 0.0), frame.reformat(width=width, height=height, format="rgb24").to_ndarray()
    except av.FFmpegError as error:
        raise DataError(f"{path}: not a readable video file ({error}); copy or download it again") from error


def read_frames(
    path: Path,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    rate_hz: float | None = None,
    height: int | None = None,
) -> Frames:
    """Gives all frames of a stretch.

    Raises:
        DataError: As iter_frames does.
    """
    pairs = list(iter_frames(path, start_s=start_s, duration_s=duration_s, rate_hz=rate_hz, height=height))
    if not pairs:
        raise DataError(f"{path}: no frame from {start_s:g} s on; give a stretch inside the clip")
    return Frames(images=np.stack([image for _, image in pairs]), times_s=np.array([time for time, _ in pairs]))


def frames_at(path: Path, times_s: Sequence[float], *, start_s: float = 0.0, height: int | None = None) -> Frames:
    """Gives the frames nearest to the given times, in the order asked.

    Raises:
        DataError: As iter_frames does.
    """
    every = read_frames(path, start_s=start_s, height=height)
    index = [int(np.abs(every.times_s - time).argmin()) for time in times_s]
    return Frames(images=every.images[index], times_s=every.times_s[index])


def sample_frames(
    path: Path, num_frames: int, *, start_s: float = 0.0, duration_s: float | None = None, height: int | None = None
) -> Frames:
    """Gives the frames in the middles of equal parts of a stretch.

    Raises:
        DataError: As iter_frames does.
    """
    length_s = probe(path).duration_s - start_s if duration_s is None else duration_s
    return frames_at(path, (np.arange(num_frames) + 0.5) * length_s / num_frames, start_s=start_s, height=height)


def _check_file(path: Path) -> None:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    if Path(path).stat().st_size == 0:
        raise DataError(f"{path}: is empty (0 bytes)")
