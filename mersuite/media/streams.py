"""Streams of a clip as arrays."""

from __future__ import annotations

from mersuite.clip import Clip, Media, Signal
from mersuite.errors import DataError
from mersuite.media.physio import read_signal


def stream_media(clip: Clip, stream: str) -> Media:
    """Gives the file of one stream of a clip.

    Raises:
        DataError: If the clip has no such stream, or the stream is a text.
    """
    media = clip.media.get(stream)
    if not isinstance(media, Media):
        there = ", ".join(sorted(clip.media)) or "none"
        raise DataError(f"{clip.clip_id}: there is no recording {stream!r}; the streams that are there: {there}")
    return media


def read_stream(clip: Clip, stream: str, *, allow_flat: bool = False, allow_nan: bool = False) -> Signal:
    """Reads one recording of a clip, as `read_signal` does; messages begin with the clip's id.

    Raises:
        DataError: If the clip has no such stream, or the recording is unreadable, or flat or with NaN where that is not
            allowed.
    """
    media = stream_media(clip, stream)
    try:
        return read_signal(media, allow_flat=allow_flat, allow_nan=allow_nan)
    except DataError as error:
        raise DataError(f"{clip.clip_id}: {stream}: {error}") from error
