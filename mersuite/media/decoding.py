"""Packets of a picture track to frames, with their exact times."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mersuite.errors import DataError
from mersuite.media.container import CURE, Track, counts_frames, declared_end_s, last_packets
from mersuite.media.packets import CannotPlanError, PacketReader, Run

if TYPE_CHECKING:
    from av import Packet, VideoFrame


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Where a picture track and its file end, in seconds from the file's beginning.

    Attributes:
        last_s: Time of the last frame.
        end_s: End of the last frame.
        file_end_s: End of the file; later than end_s where the sound lasts longer.
    """

    last_s: float
    end_s: float
    file_end_s: float


def find_ends(track: Track) -> Ends:
    """Finds the ends in the last packets, and moves back to the beginning. Nothing is decoded.

    Why not the header: that of an mkv file counts the longest of all tracks, and some have none.

    Raises:
        DataError: If there are no packets, or the file cannot be read to its end.
    """
    stated_s = declared_end_s(track)
    ends = last_packets(track, stated_s)
    if track.stream.index not in ends:
        raise DataError(f"{track.path}: its picture track holds no frames; {CURE}")
    last_s, end_s = ends[track.stream.index]
    reached_s = max(end for _, end in ends.values())
    return Ends(last_s=last_s, end_s=end_s, file_end_s=max(reached_s, stated_s or 0.0))


def decode_runs(track: Track, runs: Iterable[Run]) -> Iterator[tuple[int, VideoFrame]]:
    """Gives (time stamp, frame) of the wanted frames, in order.

    Frames that no other frame refers to are left out where they are not wanted.

    Raises:
        DataError: If the file cannot be read on.
        CannotPlanError: If a packet did not hold the frame that it promised, or cannot be decoded: the file may be
            damaged, or decoding may not begin at its key frames, and decoding it all tells which.
    """
    codec = track.stream.codec_context
    for run in runs:
        codec.flush_buffers()
        waiting = deque(sorted(run.wanted))
        for packet in (*run.packets, None):
            skips = packet is not None and packet.pts not in run.wanted
            codec.skip_frame = "NONREF" if skips else "DEFAULT"
            for frame in _decode_or_give_up(track, packet):
                if waiting and frame.pts is not None and frame.pts >= waiting[0]:
                    if frame.pts != waiting.popleft():
                        raise CannotPlanError
                    yield frame.pts, frame
        if waiting:
            raise CannotPlanError


def decode_on(track: Track, reader: PacketReader, from_ticks: float) -> Iterator[tuple[int, VideoFrame]]:
    """Gives (time stamp, frame) of all frames from the last key frame before a time on.

    Raises:
        DataError: If a packet cannot be read or decoded.
        CannotPlanError: If packets have no time stamps, or cannot be decoded after a key frame in the middle.
    """
    restarted = from_ticks - track.ticks(0.0) > reader.seek_ticks
    if restarted:
        reader.jump(from_ticks)
    held: list[Packet] = []
    passed = False
    first: int | None = None
    while (packet := reader.read()) is not None:
        if not passed and packet.is_keyframe and packet.pts is not None and packet.pts <= from_ticks:
            restarted = restarted or first is not None
            held, first = [], packet.pts  # this is where to begin; frames shown before it need packets before it
        if first is not None and packet.pts is not None and packet.pts < first:
            continue
        held.append(packet)
        passed = passed or (packet.dts is not None and packet.dts >= from_ticks)
        if passed:
            for each in held:
                yield from _stamped(track, _decode_or_give_up(track, each) if restarted else _decode(track, each))
            held = []
    for last in (*held, None):
        yield from _stamped(track, _decode_or_give_up(track, last) if restarted else _decode(track, last))


def decode_from_start(track: Track, last_s: float) -> Iterator[tuple[int, VideoFrame]]:
    """Gives (time stamp, frame) of all frames, for files whose packets do not say when their frames are shown.

    Why a queue for avi: its packets are numbered in the order of decoding alone, and so are the time stamps that a
    decoder makes of them. Frames come out in the order of showing, so the n-th frame has the n-th number.

    Raises:
        DataError: If a packet cannot be read or decoded, or frames have no time at all.
    """
    import av

    numbers: deque[int] = deque()
    counts = counts_frames(track)
    begun, reached_s = False, 0.0
    packets = track.container.demux(track.stream)
    packet: Packet | None = None
    while True:
        try:
            packet = next((item for item in packets if item.size), None)
        except av.FFmpegError as error:
            raise track.broken(round(track.ticks(reached_s)), error.strerror or error) from error
        begun = begun or packet is None or packet.is_keyframe
        if not begun:
            continue
        if packet is not None and packet.dts is not None:
            numbers.append(packet.dts)
        for frame in _decode(track, packet):
            if counts:
                frame.pts = numbers.popleft() if numbers else None
            for tick, stamped in _stamped(track, [frame]):
                reached_s = max(reached_s, track.seconds(tick))
                yield tick, stamped
        if packet is None:
            break
    track.check_reached(reached_s, last_s)


def _decode(track: Track, packet: Packet | None) -> list[VideoFrame]:
    import av

    try:
        frames = track.stream.decode(packet)
    except av.FFmpegError as error:
        raise track.broken(packet.pts if packet else None, error.strerror or error) from error
    for frame in frames:
        if frame.is_corrupt:
            raise track.broken(frame.pts, "the decoder marks this frame as damaged")
    return frames


def _decode_or_give_up(track: Track, packet: Packet | None) -> list[VideoFrame]:
    try:
        return _decode(track, packet)
    except DataError as error:
        raise CannotPlanError from error


def _stamped(track: Track, frames: Iterable[VideoFrame]) -> Iterator[tuple[int, VideoFrame]]:
    for frame in frames:
        if frame.pts is None:
            raise DataError(f"{track.path}: its frames have no times; convert the file to mp4 or mkv")
        yield frame.pts, frame
