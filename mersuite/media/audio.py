"""Sound of a film clip or sound file as a mono waveform at one rate."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from math import ceil, gcd
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mersuite.errors import DataError
from mersuite.media.container import (
    CURE,
    Track,
    check_stretch,
    declared_end_s,
    last_packets,
    open_file,
    open_track,
    rewind,
    tracks,
    whole_end_s,
)

if TYPE_CHECKING:
    from av import AudioFrame

_PREROLL_S = 0.5
"""Decoded before a stretch and dropped: decoders need packets before the first that is right (Opus 80 ms, MP3 more)."""
_GAP_S = 0.02
"""Time stamps that differ less from the count of samples are rounding, more is a gap or an overlap."""
_HALF_CYCLES = 64
_STOP_DB = 80.0


def has_audio(path: Path) -> bool:
    """Tells whether a film or sound file has a sound track.

    Raises:
        DataError: If the file is missing, empty or none that can be read.
    """
    with open_file(path) as container:
        return bool(tracks(container, "audio"))


def read_audio(
    path: Path, *, rate_hz: int = 16000, start_s: float = 0.0, duration_s: float | None = None
) -> np.ndarray:
    """Gives the sound of a stretch of a film or sound file as a mono waveform.

    Sample k was heard at start_s + k / rate_hz on the clock that the pictures have too. What comes before the sound's
    first sample, and gaps in it, are silence. Channels are averaged; integers are divided by the size of their range,
    so a 16-bit wav file at `rate_hz` comes back as its numbers / 32768.

    Why not a resampler that works as the sound comes in: this filter reaches the same way into both directions, so no
    sample is shifted, and a stretch holds the same numbers as the same part of the whole.

    Args:
        path: The file; its first sound track is read.
        rate_hz: Samples a second that are wanted.
        start_s: Where the stretch begins, in seconds from the file's beginning.
        duration_s: How long it lasts; None means to the end of the sound.

    Returns:
        (sample,) float32, nominally in -1..1: resampling and lossy codecs may go beyond by a little. It holds
        round(duration_s * rate_hz) samples, or fewer where the sound ends before the file.

    Raises:
        DataError: If the file is missing, empty, cut off, broken or none that can be read; if it has no sound track, or
            one without samples; if the stretch lies beyond the end; if a packet cannot be decoded.
    """
    if rate_hz < 1:
        raise DataError(f"{path}: rate_hz={rate_hz}: need at least 1 sample a second")
    check_stretch(path, start_s, duration_s, end_s=float("inf"), file_end_s=float("inf"))
    with open_track(path, "audio") as track:
        source_hz = int(track.stream.rate)
        up, down = rate_hz // gcd(rate_hz, source_hz), source_hz // gcd(rate_hz, source_hz)
        margin = ceil(_HALF_CYCLES * max(up, down) / up) if up != down else 0
        # The first sample read is a multiple of `down`, so that a whole number of wanted samples lies before it.
        first = max(0, int(start_s * source_hz) - margin) // down * down if start_s > 0 else 0
        last = None if duration_s is None else ceil((start_s + duration_s) * source_hz) + margin + 1
        file_end_s = whole_end_s(track)
        stop_s = _filled_from_s(track)
        if stop_s is not None:
            last = min(round(stop_s * source_hz), last if last is not None else round(stop_s * source_hz))
        wave, end_s = _samples(track, source_hz, first, last)
        end_s = end_s if stop_s is None else min(end_s, stop_s)
        if end_s < start_s + (duration_s or float("inf")):
            _check_end(track, end_s)
        check_stretch(path, start_s, duration_s, end_s=end_s, file_end_s=file_end_s or end_s)
    if up != down:
        wave = _resampled(wave, up, down)
    begin = round(start_s * rate_hz) - first // down * up
    length = None if duration_s is None else round(duration_s * rate_hz)
    return np.ascontiguousarray(wave[begin:][:length])


def _samples(track: Track, source_hz: int, first: int, last: int | None) -> tuple[np.ndarray, float]:
    """Gives samples `first` to `last` of the track, mono, and where the last frame that was read ends, in seconds.

    Samples are counted on the file's clock. Frames follow one another without looking at their time stamps unless these
    say that there is a gap: many containers round them to milliseconds.
    """
    pieces: list[np.ndarray] = []
    end = first  # number of the next sample
    position: int | None = None
    for place, frame in _placed_frames(track, source_hz, first / source_hz):
        if position is None or abs(place - position) > _GAP_S * source_hz:
            position = place
        if frame.sample_rate != source_hz:
            raise DataError(
                f"{track.path}: its sound changes from {source_hz} to {frame.sample_rate} samples a second at"
                f" {place / source_hz:.2f} s; convert it to one rate"
            )
        mono = _mono(frame)
        place, position = position, position + len(mono)
        if place < end:
            mono, place = mono[end - place :], end
        if not len(mono):
            continue
        if place > end:
            pieces.append(np.zeros(place - end, np.float32))
        pieces.append(mono)
        end = place + len(mono)
        if last is not None and end >= last:
            break
    if position is None and first:  # the stretch begins after the end
        return np.zeros(0, np.float32), min(first / source_hz, whole_end_s(track) or float("inf"))
    if position is None:
        raise DataError(f"{track.path}: its sound track holds no samples; {CURE}")
    wave = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    return wave[: None if last is None else last - first], position / source_hz


def _placed_frames(track: Track, source_hz: int, from_s: float) -> Iterator[tuple[int, AudioFrame]]:
    """Gives (number of the first sample, frame) from a time on, or from some before it."""
    if from_s <= 2 * _PREROLL_S:
        for frame in _frames(track):
            yield round(track.seconds(frame.pts or 0) * source_hz), frame
        return
    grid = None
    if track.tick_s * source_hz > 1.0:  # time stamps are coarser than samples
        opening = list(islice(_frames(track), 2))
        if len(opening) == 2:
            second = round(track.seconds(opening[0].pts or 0) * source_hz) + opening[0].samples
            grid = second, opening[1].samples
    _go_before(track, from_s)
    for frame in _frames(track):
        place = round(track.seconds(frame.pts or 0) * source_hz)
        if grid is not None:
            begin, step = grid
            exact = begin + round((place - begin) / step) * step
            place = exact if abs(exact - place) <= 2 * track.tick_s * source_hz else place
        yield place, frame


def _go_before(track: Track, from_s: float) -> None:
    """Moves to a packet that lies at least half the pre-roll before a time."""
    container, stream = track.container, track.stream
    for early_s in (_PREROLL_S, 10 * _PREROLL_S):
        target = int(track.ticks(max(0.0, from_s - early_s)))
        container.seek(target, stream=stream)
        packet = next((packet for packet in container.demux(stream) if packet.size), None)
        if packet is not None and packet.pts is not None and track.seconds(packet.pts) <= from_s - _PREROLL_S / 2:
            container.seek(target, stream=stream)
            return
    rewind(track)


def _frames(track: Track) -> Iterator[AudioFrame]:
    """Gives the frames from here on."""
    import av

    reached: int | None = None
    packets = track.container.demux(track.stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = track.stream.decode(packet if packet.size else None)
        except av.FFmpegError as error:
            raise track.broken(reached, error.strerror or error) from error
        for frame in frames:
            if frame.pts is None:
                raise track.broken(reached, "a part without a time; if the file plays, convert it to wav or mp4")
            reached = frame.pts
            yield frame


def _mono(frame: AudioFrame) -> np.ndarray:
    """Gives the mean of a frame's channels: (sample,) float32."""
    array: np.ndarray = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, len(frame.layout.channels)).T
    if array.dtype.kind == "u":
        array = array.astype(np.float32) - 128.0  # 8 bits are the only unsigned kind
        scale = 128.0
    else:
        scale = 1.0 if array.dtype.kind == "f" else -float(np.iinfo(array.dtype).min)
    return (array.mean(axis=0, dtype=np.float64) / scale).astype(np.float32)


def _filled_from_s(track: Track) -> float | None:
    """Gives where the sound of an mp4 or mov file ends; coders fill their last block from there on."""
    return declared_end_s(track) if track.container.format.name.startswith("mov") else None


def _check_end(track: Track, end_s: float) -> None:
    """Refuses a sound track that ends early because the file is cut off or damaged."""
    if track.container.format.name == "flac":
        stated_s = declared_end_s(track)
        if stated_s is not None and end_s < stated_s - 0.5 / track.stream.rate:
            raise DataError(f"{track.path}: is cut off: it holds {end_s:.2f} s of {stated_s:.2f} s; {CURE}")
    whole_s = whole_end_s(track)
    if track.container.format.name.startswith("matroska") and whole_s is not None and end_s < whole_s:
        last_packets(track, whole_s)


def _resampled(wave: np.ndarray, up: int, down: int) -> np.ndarray:
    from scipy.signal import resample_poly

    return resample_poly(wave, up, down, window=_low_pass(up, down)).astype(np.float32, copy=False)


@lru_cache(maxsize=16)
def _low_pass(up: int, down: int) -> np.ndarray:
    """Gives the filter of a change of rate, at `up` times the source's rate: (tap,) float32.

    What lies above half the lower rate is weakened by 80 dB; the filter's slope begins at 92 % of it.

    Source: Kaiser, "Nonrecursive digital filter design using the I0-sinh window function", ISCAS 1974.
    """
    from scipy.signal import firwin, kaiser_beta

    widest = max(up, down)
    num_taps = 2 * _HALF_CYCLES * widest + 1
    slope = (_STOP_DB - 7.95) / (2.285 * np.pi * (num_taps - 1))  # width of the slope, 1 = half the fine rate
    return firwin(num_taps, 1.0 / widest - slope / 2, window=("kaiser", kaiser_beta(_STOP_DB))).astype(np.float32)
