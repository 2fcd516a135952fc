"""Opening film and sound files: one clock for picture and sound, and errors that name the file.

Time 0 of a file is where the first of its picture and sound tracks begins, so that a picture and a sound at the same
time belong together even where one track begins later than the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mersuite.errors import DataError
from mersuite.media.cut_off import refuse_cut_off

if TYPE_CHECKING:
    from av.container import InputContainer

CURE = "copy or download it again, or leave the clip out"
SLACK_S = 0.05
"""A stretch may end this much after the file: lengths are often written with few digits."""
_TAIL_S = 1.0
_INDEX_BYTES = 4096
_STILL_FORMATS = ("image2", "tty")
_NAMES = {"video": "picture", "audio": "sound"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Track:
    """One track of an open file.

    Attributes:
        path: The file, for messages.
        kind: "video" or "audio".
        container: The open file.
        stream: The track: `av.VideoStream` or `av.AudioStream`.
        tick_s: Seconds of one tick of its time stamps.
        zero_s: Time of the file's first picture or sound on the clock of the time stamps.
    """

    path: Path
    kind: Literal["video", "audio"]
    container: InputContainer
    stream: Any
    tick_s: float
    zero_s: float

    def seconds(self, ticks: float) -> float:
        """Gives the time of a time stamp, in seconds from the file's beginning."""
        return ticks * self.tick_s - self.zero_s

    def ticks(self, time_s: float) -> float:
        """Gives the time stamp of a time, not rounded."""
        return (time_s + self.zero_s) / self.tick_s

    def broken(self, ticks: int | None, error: object) -> DataError:
        """Gives the error of a place that cannot be decoded."""
        place = "at an unknown time" if ticks is None else f"at {self.seconds(ticks):.2f} s"
        return DataError(f"{self.path}: the {_NAMES[self.kind]} {place} cannot be decoded ({error}); {CURE}")

    def check_reached(self, reached_s: float, last_s: float) -> None:
        """Checks that reading came to the last frame that the file holds.

        Raises:
            DataError: If it stopped before, at a damaged place.
        """
        if reached_s < last_s - 0.5 * self.tick_s:
            raise DataError(
                f"{self.path}: the {_NAMES[self.kind]} breaks off at {reached_s:.2f} s of {last_s:.2f} s; {CURE}"
            )


@contextmanager
def open_file(path: Path) -> Iterator[InputContainer]:
    """Opens a film or sound file.

    Raises:
        DataError: If the file is missing, empty, or none that can be read; also for read errors in the block.
    """
    import av

    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder, need a film or sound file' if path.is_dir() else 'no such file'}")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: is empty (0 bytes); {CURE}")
    refuse_cut_off(path, CURE)
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            name = container.format.name
            if name in _STILL_FORMATS or name.endswith("_pipe"):
                raise DataError(f"{path}: is a picture or a text (read as {name!r}), need a film or sound file")
            yield container
    except av.FFmpegError as error:
        raise DataError(f"{path}: not a readable film or sound file ({error.strerror or error}); {CURE}") from error


@contextmanager
def open_track(path: Path, kind: Literal["video", "audio"]) -> Iterator[Track]:
    """Opens a file for its first picture or sound track; cover pictures do not count. One thread decodes.

    Raises:
        DataError: As open_file does, and if there is no such track or no decoder for it.
    """
    with open_file(path) as container:
        found = tracks(container, kind)
        if not found:
            others = ", ".join(sorted({_NAMES.get(stream.type, stream.type) for stream in container.streams}))
            raise DataError(
                f"{path}: has no {_NAMES[kind]} track (it holds: {others or 'nothing'}); give a file with"
                f" {_NAMES[kind]}, or leave out what is made from {_NAMES[kind]}"
            )
        stream: Any = found[0]
        if stream.codec_context is None:
            raise DataError(f"{path}: the installed PyAV has no decoder for its {_NAMES[kind]} track; convert the file")
        stream.codec_context.thread_count = 1
        stream.codec_context.options = {"err_detect": "explode"}  # else damage is painted over without a word
        yield Track(
            path=Path(path),
            kind=kind,
            container=container,
            stream=stream,
            tick_s=float(stream.time_base),
            zero_s=_zero_s(container),
        )


def tracks(container: InputContainer, kind: Literal["video", "audio"]) -> list[Any]:
    """Gives the tracks of one kind without cover pictures."""
    from av.stream import Disposition

    streams: list[Any] = list(container.streams.video if kind == "video" else container.streams.audio)
    return [stream for stream in streams if not stream.disposition & Disposition.attached_pic]


def declared_end_s(track: Track) -> float | None:
    """Gives the end of a track as the header says it, of the sound too for a picture track; None where it does not.

    Why not always the length of the whole file: subtitles may end after the picture, and the picture after the sound.
    """
    heard = {stream.index: stream for stream in (track.stream, *tracks(track.container, "audio"))}
    if all(stream.duration is not None for stream in heard.values()):
        ends = [float(((item.start_time or 0) + item.duration) * item.time_base) for item in heard.values()]
        return max(ends) - track.zero_s
    return whole_end_s(track) if len(track.container.streams) == len(heard) else None


def whole_end_s(track: Track) -> float | None:
    """Gives the end of the longest track, of whatever kind, as the header says it; None where it does not."""
    import av

    container = track.container
    if container.duration is None:
        return None
    return ((container.start_time or 0) + container.duration) / av.time_base - track.zero_s


def check_stretch(path: Path, start_s: float, duration_s: float | None, *, end_s: float, file_end_s: float) -> None:
    """Checks a stretch against the end of its track and of the file, which the other track may set.

    Raises:
        DataError: If the stretch is empty, begins before 0, or begins or ends after the end.
    """
    name = f"start_s={start_s:g}, duration_s={'None' if duration_s is None else f'{duration_s:g}'}"
    if not 0 <= start_s < float("inf") or (duration_s is not None and not 0 < duration_s < float("inf")):
        raise DataError(f"{path}: {name}: need start_s of at least 0 and duration_s above 0")
    last_s = start_s + (duration_s or 0.0)
    if start_s >= end_s or last_s > max(end_s, file_end_s) + SLACK_S:
        raise DataError(
            f"{path}: {name}: the stretch lies beyond the end, which is at {max(end_s, file_end_s):.2f} s"
            f" (this track: {end_s:.2f} s); give a stretch inside the file"
        )


def last_packets(track: Track, stated_s: float | None) -> dict[int, tuple[float, float]]:
    """Gives stream number -> (time of the last packet, its end), of all picture and sound; moves to the beginning.

    Args:
        track: One of them.
        stated_s: The end that the header tells; packets are read from a little before it. None reads all.

    Raises:
        DataError: If the file cannot be read to its end.
    """
    import av

    try:
        found: dict[int, tuple[float, float]] = {}
        bytes_read = 0
        if stated_s is not None:
            tail = int(track.ticks(max(0.0, stated_s - _TAIL_S)))
            track.container.seek(tail, stream=track.stream, any_frame=True)
            found, bytes_read = _ends_from_here(track)
        if track.stream.index not in found:
            rewind(track)
            found, bytes_read = _ends_from_here(track)
        rewind(track)
    except av.FFmpegError as error:
        raise DataError(f"{track.path}: cannot be read to its end ({error.strerror or error}); {CURE}") from error
    reached_s = max((end for _, end in found.values()), default=0.0)
    size = track.path.stat().st_size
    is_mkv = track.container.format.name.startswith("matroska")  # its reader stops at damage without a word
    if is_mkv and stated_s is not None and reached_s < stated_s - _TAIL_S and bytes_read < 0.9 * (size - _INDEX_BYTES):
        raise DataError(
            f"{track.path}: is damaged after {reached_s:.2f} s of {stated_s:.2f} s: the last {size - bytes_read} bytes"
            f" cannot be read; {CURE}"
        )
    return found


def rewind(track: Track) -> None:
    """Moves to the beginning of a file.

    Why 10 s before it: moving to its first time exactly may end at the second key frame of a file without index. But
    avi and mp3 files take no time below 0.
    """
    import av

    try:
        track.container.seek(int(track.ticks(-10.0)), stream=track.stream)
    except av.FFmpegError:
        track.container.seek(int(track.ticks(0.0)), stream=track.stream)


def counts_frames(track: Track) -> bool:
    """Tells whether a container numbers frames, in the order of decoding, and does not time them."""
    return track.container.format.name == "avi"


def _ends_from_here(track: Track) -> tuple[dict[int, tuple[float, float]], int]:
    """Gives the last packets from here on, and where the last of them ends in the file, in bytes."""
    found: dict[int, tuple[float, float]] = {}
    bytes_read = 0
    rate = getattr(track.stream, "average_rate", None)
    for packet in track.container.demux([*tracks(track.container, "video"), *tracks(track.container, "audio")]):
        tick = packet.dts if counts_frames(track) or packet.pts is None else packet.pts
        if tick is None or not packet.size or packet.is_discard:
            continue
        bytes_read = max(bytes_read, (packet.pos or 0) + packet.size)
        tick_s = float(packet.time_base)
        length_s = (packet.duration or 0) * tick_s
        if not length_s and packet.stream_index == track.stream.index and rate:
            length_s = 1.0 / float(rate)
        time_s = tick * tick_s - track.zero_s
        last_s, end_s = found.get(packet.stream_index, (time_s, time_s))
        found[packet.stream_index] = (max(last_s, time_s), max(end_s, time_s + length_s))
    return found, bytes_read


def _zero_s(container: InputContainer) -> float:
    """Gives the beginning of the first track, on the clock of the time stamps.

    Why sound below 0 counts as 0: those are the samples that a decoder needs to start up, and drops.
    """
    begins = [
        float(stream.start_time * stream.time_base)
        for stream in tracks(container, "video")
        if stream.start_time is not None
    ]
    begins += [
        max(0.0, float(stream.start_time * stream.time_base))
        for stream in tracks(container, "audio")
        if stream.start_time is not None
    ]
    return min(begins, default=0.0)
