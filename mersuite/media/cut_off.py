"""Finds film and sound files that were cut off while they were copied, by the lengths in their structure.

Decoders take what is there, and the time in a header says little: the last picture of a film may last long. But a
container begins with its own length in bytes, or its parts do, and a file that is shorter was cut off.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import IO

from mersuite.errors import DataError

_BOXES = frozenset(
    name.encode() for name in "ftyp styp moov moof mdat mfra sidx ssix emsg prft udta meta uuid free skip wide".split()
)
_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_UNKNOWN_RIFF_BYTES = 0x7FFF0000
"""Programs that write a wav or avi file as a stream put this or more into its header."""


def refuse_cut_off(path: Path, cure: str) -> None:
    """Compares the length of an mp4, mov, mkv, webm, avi or wav file with the length that it should have.

    Raises:
        DataError: If the file is shorter.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(12)
        stream.seek(0)
        whole = 0
        for applies, end_of in _KINDS:
            if applies(head):
                whole = end_of(stream, size)
    if whole > size:
        raise DataError(f"{path}: is cut off: it holds {size} of at least {whole} bytes; {cure}")


def _boxes_end(stream: IO[bytes], size: int) -> int:
    """Gives the end of the last box of an mp4 file. Source: ISO/IEC 14496-12, section 4.2."""
    place = 0
    while place + 8 <= size:
        stream.seek(place)
        head = stream.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or head[4:8] not in _BOXES:  # 0 is to the end of the file; other names are what was put behind
            return size
        place += length
    return place


def _segment_end(stream: IO[bytes], size: int) -> int:
    """Gives the end of the segment of an mkv file. Source: RFC 8794, sections 4 to 6."""
    place = 0
    while place < size:
        stream.seek(place)
        head = stream.read(12)
        width = 9 - head[4].bit_length() if len(head) == 12 and head[4] else 0
        if not width:
            return size
        length = int.from_bytes(head[4 : 4 + width], "big") & ((1 << 7 * width) - 1)
        if length == (1 << 7 * width) - 1:  # not known when the file was begun
            return size
        place += 4 + width + length
        if head[:4] == _SEGMENT:
            return place
    return place


def _riff_end(stream: IO[bytes], size: int) -> int:
    """Gives the end of the last RIFF part of a wav or avi file, without a last byte that only fills up."""
    place = 0
    while place + 8 <= size:
        stream.seek(place)
        head = stream.read(8)
        length = int.from_bytes(head[4:], "little")
        if head[:4] != b"RIFF" or not length or length >= _UNKNOWN_RIFF_BYTES:
            return size
        place += 8 + length
    return place - 1 if place - 1 == size else place


_Kind = tuple[Callable[[bytes], bool], Callable[[IO[bytes], int], int]]
_KINDS: tuple[_Kind, ...] = (
    (lambda head: head[4:8] in _BOXES, _boxes_end),
    (lambda head: head[:4] == _EBML, _segment_end),
    (lambda head: head[:4] == b"RIFF", _riff_end),
)
