"""Pictures of a film clip: exact frame times, stretches, seeking, sampling.

Times are exact: they come from the file's presentation time stamps, never from a frame count and a rate, so variable
frame rates and files that do not begin at 0 are right. Time 0 is where the file's first track begins, as for sound.
Pictures are shown as a player shows them: rotation and mirroring that the file asks for are applied; pixels that are
not square are left as they are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mersuite.errors import DataError
from mersuite.media.container import SLACK_S, Track, check_stretch, counts_frames, open_track, tracks
from mersuite.media.decoding import (
    Ends,
    decode_from_start,
    decode_on,
    decode_runs,
    find_ends,
)
from mersuite.media.packets import CannotPlanError, Choose, PacketReader, first_from, nearest, on_show, plan
from mersuite.media.pictures import shown_picture, shown_size
from mersuite.media.sampling import uniform_times

if TYPE_CHECKING:
    from av import VideoFrame

EARLY_S = 6e-4
"""A frame may come so much before its due time: mkv files round times to milliseconds."""
_SPARSE = 0.5
"""Below this share of the frames, packets are planned; above it, all frames are decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """What is known of a clip without decoding it all.

    Attributes:
        width: Pixels a row, as shown.
        height: Pixels a column, as shown.
        rate_hz: Average frames a second.
        duration_s: Where the last frame ends, in seconds from the file's beginning.
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
    """Gives size, rate and length of a clip; decodes its first frame and looks at its last packets.

    Raises:
        DataError: If the file is missing, empty, cut off, or no film; if it has no picture track; if its first frame
            cannot be decoded.
    """
    with open_track(path, "video") as track:
        ends = find_ends(track)
        first = next(decode_from_start(track, ends.last_s), None)
        if first is None:
            raise DataError(f"{path}: no frame can be decoded; copy or download it again, or leave the clip out")
        width, height = shown_size(first[1])
        num_frames = track.stream.frames or None
        rate = track.stream.average_rate or track.stream.guessed_rate
        return VideoInfo(
            width=width,
            height=height,
            rate_hz=float(rate) if rate else (num_frames or 1) / ends.end_s,
            duration_s=ends.end_s,
            num_frames=num_frames,
            has_audio=bool(tracks(track.container, "audio")),
        )


def iter_frames(
    path: Path,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    rate_hz: float | None = None,
    height: int | None = None,
) -> Iterator[tuple[float, np.ndarray]]:
    """Gives the frames of a stretch one after the other; nothing before the stretch is decoded needlessly.

    A stretch holds the frames that begin in it. If none does, it holds the frame that is on show, at 0.0.

    Args:
        path: The film.
        start_s: Where the stretch begins, in seconds from the file's beginning.
        duration_s: How long it lasts; None means to the end of the pictures.
        rate_hz: At most so many frames a second: the first frame of each 1 / rate_hz. None gives all.
        height: Height of the pictures as shown; the width follows. None keeps the size.

    Yields:
        Seconds from the start of the stretch, and the picture: (height, width, 3) uint8, RGB.

    Raises:
        DataError: If the file is missing, empty, cut off, broken or no film; if it has no picture track; if the stretch
            lies beyond the end; if a frame cannot be decoded.
    """
    _check_above_zero(path, rate_hz=rate_hz, height=height)
    empty = True
    frames = _walked(path, start_s, duration_s, _stretch_walk(start_s, duration_s, rate_hz))
    for time_s, frame in frames if rate_hz is None else _thinned(frames, rate_hz):
        empty = False
        yield time_s, shown_picture(frame, height)
    if empty:
        still = _picked(path, start_s, duration_s, lambda ends: np.full(1, EARLY_S), on_show, height)
        yield 0.0, still.images[0]


def read_frames(
    path: Path,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    rate_hz: float | None = None,
    height: int | None = None,
) -> Frames:
    """Gives all frames of a stretch, as iter_frames does.

    Raises:
        DataError: As iter_frames does.
    """
    pairs = list(iter_frames(path, start_s=start_s, duration_s=duration_s, rate_hz=rate_hz, height=height))
    return Frames(images=_stacked(path, [image for _, image in pairs]), times_s=np.array([time for time, _ in pairs]))


def frames_at(
    path: Path, times_s: Sequence[float] | np.ndarray, *, start_s: float = 0.0, height: int | None = None
) -> Frames:
    """Gives the frame nearest to each time, of two the earlier one; decodes only what they need.

    Between two times it decodes on where no key frame lies between them, and else starts again at the last key frame;
    it jumps over long gaps. Frames are the same as those of iter_frames to the bit.

    Args:
        path: The film.
        times_s: Times in seconds from `start_s`, in any order, also more than once.
        start_s: Where the stretch begins, in seconds from the file's beginning.
        height: As for iter_frames.

    Returns:
        One frame a time, in the order asked; `times_s` are the frames' own times, so the first may lie before 0.0.

    Raises:
        DataError: As iter_frames does; if a time lies outside the pictures, or there is none.
    """
    _check_above_zero(path, height=height)
    times = np.asarray(times_s, np.float64).reshape(-1)
    if not times.size or not np.isfinite(times).all():
        raise DataError(f"{path}: need at least one time, all finite; got {times.tolist()}")

    def inside(ends: Ends) -> np.ndarray:
        first_s, last_s = start_s + times.min(), start_s + times.max()
        if first_s < 0 or last_s > ends.end_s + SLACK_S:
            raise DataError(
                f"{path}: asked for frames from {first_s:.2f} s to {last_s:.2f} s, but its pictures lie between 0 s and"
                f" {ends.end_s:.2f} s; give times inside"
            )
        return times

    return _picked(path, start_s, None, inside, nearest, height)


def sample_frames(
    path: Path, num_frames: int, *, start_s: float = 0.0, duration_s: float | None = None, height: int | None = None
) -> Frames:
    """Gives evenly spread frames: those on show in the middles of `num_frames` equal parts of a stretch.

    Only what these frames need is decoded. A frame comes more than once where more frames are wanted than there are.

    Why on show and not nearest: at a steady rate these are the frames that `uniform_indices` takes from an array.

    Raises:
        DataError: As iter_frames does.
    """
    _check_above_zero(path, num_frames=num_frames, height=height)

    def middles(ends: Ends) -> np.ndarray:
        length_s = ends.end_s - start_s
        return EARLY_S + uniform_times(num_frames, length_s if duration_s is None else min(length_s, duration_s))

    return _picked(path, start_s, duration_s, middles, on_show, height)


# ---- ways through a file: (open track, its ends, whether every frame has to be decoded) -> (time stamp, frame)

_Stamped = Iterator[tuple[int, "VideoFrame"]]
_Walk = Callable[[Track, Ends, bool], _Stamped]


def _walked(path: Path, start_s: float, duration_s: float | None, walk: _Walk) -> Iterator[tuple[float, VideoFrame]]:
    """Gives (seconds from the start of the stretch, frame), each frame once, in order.

    Where packets turn out not to say which frames they hold, the file is walked again, decoding every frame.
    """
    reached = None
    for decodes_all in (False, True):
        try:
            with open_track(path, "video") as track:
                ends = find_ends(track)
                check_stretch(path, start_s, duration_s, end_s=ends.end_s, file_end_s=ends.file_end_s)
                for tick, frame in walk(track, ends, decodes_all or counts_frames(track)):
                    if reached is None or tick > reached:
                        reached = tick
                        yield track.seconds(tick) - start_s, frame
                return
        except CannotPlanError:
            continue


def _stretch_walk(start_s: float, duration_s: float | None, rate_hz: float | None) -> _Walk:
    """Gives the way through the frames that begin in a stretch."""

    def walk(track: Track, ends: Ends, decodes_all: bool) -> _Stamped:
        stop_s = ends.end_s if duration_s is None else start_s + duration_s
        first, stop = track.ticks(start_s - EARLY_S), track.ticks(stop_s - EARLY_S)
        rate = track.stream.average_rate
        frames: _Stamped
        if decodes_all:
            frames = decode_from_start(track, ends.last_s)
        elif rate_hz is not None and rate and rate_hz < _SPARSE * rate:
            grid = (track.ticks(start_s + index / rate_hz - EARLY_S) for index in count())
            due = takewhile(lambda tick: tick < stop, grid)
            frames = decode_runs(track, plan(PacketReader(track, ends.last_s), due, first_from, []))
        else:
            frames = decode_on(track, PacketReader(track, ends.last_s), first)
        for tick, frame in frames:
            if tick >= stop:
                return
            if tick >= first:
                yield tick, frame

    return walk


def _thinned(frames: Iterator[tuple[float, VideoFrame]], rate_hz: float) -> Iterator[tuple[float, VideoFrame]]:
    """Gives the first frame of each 1 / rate_hz."""
    last_part = -1
    for time_s, frame in frames:
        part = int((time_s + EARLY_S) * rate_hz)
        if part > last_part:
            last_part = part
            yield time_s, frame


def _picked(
    path: Path,
    start_s: float,
    duration_s: float | None,
    times_of: Callable[[Ends], np.ndarray],
    choose: Choose,
    height: int | None,
) -> Frames:
    """Gives the frames that are chosen for some times, in the order of the times."""
    order = np.zeros(0, int)
    picked: list[int | None] = []
    stamps: list[float] = []

    def walk(track: Track, ends: Ends, decodes_all: bool) -> _Stamped:
        nonlocal order
        times_s = times_of(ends)
        order = np.argsort(times_s, kind="stable")
        times = [track.ticks(start_s + time) for time in times_s[order]]
        picked.clear()
        stamped = (
            _pick_of_all(decode_from_start(track, ends.last_s), times, choose, picked)
            if decodes_all
            else decode_runs(track, plan(PacketReader(track, ends.last_s), times, choose, picked))
        )
        for tick, frame in stamped:
            stamps.append(tick)
            yield tick, frame

    found = [(time_s, shown_picture(frame, height)) for time_s, frame in _walked(path, start_s, duration_s, walk)]
    place = {tick: index for index, tick in enumerate(dict.fromkeys(stamps))}
    answers = np.empty(len(order), int)
    answers[order] = [place[tick] for tick in picked if tick is not None]
    images = _stacked(path, [image for _, image in found])
    return Frames(images=images[answers], times_s=np.array([time_s for time_s, _ in found])[answers])


def _pick_of_all(frames: _Stamped, times: Sequence[float], choose: Choose, picked: list[int | None]) -> _Stamped:
    """Chooses among all frames as they come; a time is decided between the frames around it."""
    waiting = deque(times)
    around: dict[int, VideoFrame] = {}
    given = None
    for tick, frame in chain(frames, [(None, None)]):
        if tick is not None and frame is not None:
            around = {**dict(list(around.items())[-1:]), tick: frame}
        while waiting and around and (tick is None or tick >= waiting[0]):
            choice = choose(list(around), waiting.popleft())
            picked.append(choice)
            if choice is not None and choice != given:
                given = choice
                yield choice, around[choice]
        if not waiting:
            return


def _stacked(path: Path, images: Sequence[np.ndarray]) -> np.ndarray:
    shapes = {image.shape: None for image in images}
    if len(shapes) > 1:
        sizes = ", ".join(f"{width} x {tall}" for tall, width, _ in shapes)
        raise DataError(f"{path}: the size of its pictures changes on the way ({sizes}); convert it to one size")
    return np.stack(images)


def _check_above_zero(path: Path, **values: float | None) -> None:
    for name, value in values.items():
        if value is not None and not 0 < value < float("inf"):
            raise DataError(f"{path}: {name}={value}: need a number above 0")
