"""Which packets of a film must be decoded for which frames.

A film is a row of packets, one a frame; a frame can be decoded from the last key frame before it on. Reading packets
is cheap, decoding them is not: everything here looks at packets alone. Times are time stamps in ticks.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mersuite.errors import DataError
from mersuite.media.container import CURE, Track

if TYPE_CHECKING:
    from av import Packet

Choose = Callable[[list[int], float], int | None]
"""(sorted time stamps of frames, time) -> the frame that is wanted, or None."""

SEEK_S = 4.0
"""Gaps above this are jumped over. Why: reading on costs about 0.5 ms a second of film, a jump about as much as 2 s."""
_STEPS_BACK_S = (0.0, 1.0, 10.0, 60.0)


class CannotPlanError(Exception):
    """Packets do not say which frames they hold; all frames have to be decoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Packets from a key frame on, in the order of decoding, and the time stamps of the frames that are wanted."""

    packets: list[Packet]
    wanted: set[int]


def nearest(known: list[int], time: float) -> int | None:
    """Gives the time stamp nearest to a time, of two the earlier.

    >>> nearest([0, 10, 20], 15.0), nearest([0, 10, 20], 15.1), nearest([0, 10, 20], 99.0)
    (10, 20, 20)
    """
    place = bisect_left(known, time)
    around = known[max(0, place - 1) : place + 1]
    return min(around, key=lambda tick: abs(tick - time), default=None)


def first_from(known: list[int], time: float) -> int | None:
    """Gives the first time stamp at or after a time.

    >>> first_from([0, 10, 20], 10.0), first_from([0, 10, 20], 10.1), first_from([0, 10, 20], 20.1)
    (10, 20, None)
    """
    place = bisect_left(known, time)
    return known[place] if place < len(known) else None


def on_show(known: list[int], time: float) -> int | None:
    """Gives the last time stamp at or before a time: the frame that a player shows then; else the first.

    >>> on_show([0, 10, 20], 19.0), on_show([5, 10], 1.0)
    (10, 5)
    """
    place = bisect_right(known, time)
    return known[max(0, place - 1)] if known else None


class PacketReader:
    """Reads packets of a picture track from a key frame on, and jumps.

    Frames that are shown before the key frame at which reading began are left out: they need packets before it.
    """

    def __init__(self, track: Track, last_s: float) -> None:
        """Begins at the file's beginning; `last_s` is the time of the last frame."""
        self.track = track
        self._last_s = last_s
        self._packets = track.container.demux(track.stream)
        self._floor: int | None = None
        self._kept: list[Packet] = []
        self._last: Packet | None = None
        self._reached = 0.0
        self.seek_ticks = SEEK_S / track.tick_s
        self.num_seeks = 0

    def read(self) -> Packet | None:
        """Gives the next packet, or None at the end.

        Raises:
            DataError: If the file cannot be read on, marks a packet as damaged, or breaks off before its end.
            CannotPlanError: If a packet has no time stamp.
        """
        while (packet := self._kept.pop() if self._kept else self._next()) is not None:
            if packet.pts is None:
                raise CannotPlanError
            if self._floor is None and packet.is_keyframe:
                self._floor = packet.pts
            if self._floor is not None and packet.pts >= self._floor:
                self._last = packet
                self._reached = max(self._reached, self.track.seconds(packet.pts))
                return packet
        self.track.check_reached(self._reached, self._last_s)
        return None

    def jump(self, time: float) -> None:
        """Moves to the last key frame at or before a time, unless that has been read already.

        Raises:
            DataError: If the file cannot be read there.
            CannotPlanError: If the file cannot be moved in.
        """
        for back_s in _STEPS_BACK_S:
            self._seek(time - back_s / self.track.tick_s)
            key = self._next_key()
            if key is not None and key.pts is not None and key.pts <= time:
                break
        else:
            self._seek(self.track.ticks(-10.0))
            key = self._next_key()
        if key is None or key.pts is None:
            raise CannotPlanError
        last = self._last
        if last is None or last.pts is None or key.pts > last.pts:
            self._floor = key.pts
            self._kept = [key]
            return
        self.seek_ticks *= 2  # key frames are rare: jump less
        packet: Packet | None = key
        while packet is not None and packet.pts != last.pts:
            packet = self._next()
        if packet is None:
            raise CannotPlanError

    def _seek(self, time: float) -> None:
        import av

        self.num_seeks += 1
        self._kept = []
        try:
            self.track.container.seek(int(time), stream=self.track.stream)
        except av.FFmpegError as error:
            raise CannotPlanError from error
        self._packets = self.track.container.demux(self.track.stream)

    def _next_key(self) -> Packet | None:
        while (packet := self._next()) is not None and not packet.is_keyframe:
            pass
        return packet

    def _next(self) -> Packet | None:
        import av

        try:
            packet = next(packet for packet in self._packets if packet.size)
        except StopIteration:
            return None
        except av.FFmpegError as error:
            raise self.track.broken(self._last.pts if self._last else None, error.strerror or error) from error
        if packet.is_corrupt:
            raise self.track.broken(packet.pts, "the file marks this packet as damaged")
        return packet


def plan(reader: PacketReader, times: Iterable[float], choose: Choose, picked: list[int | None]) -> Iterator[Run]:
    """Gives the packets to decode for the frames at some times.

    It goes forward once. Between two wanted frames it decodes on where no key frame lies between them, else it starts
    again at the last such key frame; gaps above SEEK_S are jumped over without reading them.

    Args:
        reader: The packets.
        times: Increasing times, in ticks.
        choose: Which frame answers a time.
        picked: Filled with the time stamp of the frame of each time; None where there is none.

    Raises:
        DataError: As PacketReader does.
        CannotPlanError: As PacketReader does.
    """
    ahead = _Ahead(reader)
    run: Run | None = None
    first = 0  # time stamp of the run's first frame; those shown before it need packets before it
    ticks: set[int] = set()
    for time in times:
        ahead.read_past(time)
        pick = choose(ahead.known, time)
        picked.append(pick)
        if pick is None:
            continue
        place = ahead.place(pick)
        if place is None:  # it belongs to the run already
            if run is None or pick not in ticks:
                raise CannotPlanError
            run.wanted.add(pick)
            continue
        key = ahead.last_key(place, pick)
        if run is None or key is not None:
            if run is not None:
                yield run
            run, ticks = Run(packets=[], wanted=set()), set()
            ahead.drop(key or 0)
            place -= key or 0
            first = ahead.first_tick()
        taken = [packet for packet in ahead.take(place + 1) if packet.pts is not None and packet.pts >= first]
        ticks.update(packet.pts for packet in taken if packet.pts is not None)
        run.packets.extend(taken)
        run.wanted.add(pick)
    if run is not None:
        yield run


class _Ahead:
    """Packets that have been read and belong to no run yet, and the time stamps of all packets near them."""

    def __init__(self, reader: PacketReader) -> None:
        self._reader = reader
        self._packets: list[Packet] = []
        self._ended = False
        self._decoded_to: float = reader.track.ticks(0.0)
        self.known: list[int] = []

    def read_past(self, time: float) -> None:
        """Reads until no frame nearer to a time can come: until packets are decoded after the next frame."""
        if not self._ended and time - self._decoded_to > self._reader.seek_ticks:
            self._reader.jump(time)
        while not self._ended:
            following = first_from(self.known, time)
            if following is not None and self._decoded_to >= following:
                break
            packet = self._reader.read()
            if packet is None:
                self._ended = True
                if not self.known:
                    raise DataError(f"{self._reader.track.path}: has no frame that can be decoded; {CURE}")
                break
            self._packets.append(packet)
            if packet.pts is not None and not packet.is_discard:
                insort(self.known, packet.pts)
            if packet.dts is not None:
                self._decoded_to = max(self._decoded_to, packet.dts)
        del self.known[: max(0, bisect_left(self.known, time) - 2)]

    def place(self, tick: int) -> int | None:
        """Gives the index of a frame's packet."""
        return next((index for index, packet in enumerate(self._packets) if packet.pts == tick), None)

    def last_key(self, place: int, tick: int) -> int | None:
        """Gives the index of the last key frame from which a frame can be decoded."""
        for index in range(place, -1, -1):
            packet = self._packets[index]
            if packet.is_keyframe and packet.pts is not None and packet.pts <= tick:
                return index
        return None

    def first_tick(self) -> int:
        """Gives the time stamp of the first packet."""
        return self._packets[0].pts or 0

    def drop(self, num_packets: int) -> None:
        """Leaves out the first packets."""
        del self._packets[:num_packets]

    def take(self, num_packets: int) -> list[Packet]:
        """Gives the first packets away."""
        taken = self._packets[:num_packets]
        del self._packets[:num_packets]
        return taken
