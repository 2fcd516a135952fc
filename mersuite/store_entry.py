"""How one stored stream looks as bytes: a short JSON header, then the bare array. No pickle.

A value is `magic, header length, checksum` (12 bytes), the JSON header padded with blanks, and the array in
little-endian C order. LMDB puts a large value 16 bytes after the start of a page, and the padding is chosen so that
the array then begins on a multiple of 64 bytes. Channel names are many and equal over clips, so an entry holds only
the digest of its names; the table of names is stored once.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mersuite.clip import Signal
from mersuite.errors import StoreError

_MAGIC = b"MSE1"
_PREFIX = struct.Struct("<4sII")
_CHECKSUM_PLACE = slice(8, 12)
_PAGE_HEADER_BYTES = 16
_ALIGN_BYTES = 64
MAX_KEY_BYTES = 511
"""Longest key of LMDB as it is built by default."""
DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "int64": np.dtype("<i8")}
"""What may be stored: features and recordings, and token ids."""


class StoreKey(NamedTuple):
    """Which stored stream: the fingerprint says from which source bytes and which extractor it was made."""

    dataset: str
    clip_id: str
    stream: str
    fingerprint: str

    def __str__(self) -> str:
        return f"{self.dataset}: {self.clip_id} {self.stream} ({self.fingerprint[:8]})"


Names = tuple[tuple[str, ...], tuple[str, ...]]
"""(ch_names, ch_types)."""


def key_bytes(key: StoreKey) -> bytes:
    """Gives the key as LMDB holds it.

    Raises:
        StoreError: If a part is empty, holds a NUL, or the whole is too long.
    """
    text = "\0".join(key)
    if not all(key) or text.count("\0") != len(key) - 1:
        raise StoreError(f"a store key needs four texts without NUL, none of them empty, got {tuple(key)!r}")
    raw = text.encode()
    if len(raw) > MAX_KEY_BYTES:
        raise StoreError(
            f"{key.clip_id!r} and its data set and stream names take {len(raw)} bytes; a store key has at most "
            f"{MAX_KEY_BYTES}: shorten the clip's name"
        )
    return raw


def parse_key(raw: bytes | memoryview) -> StoreKey:
    """Gives back what key_bytes was given."""
    return StoreKey(*bytes(raw).decode().split("\0"))


def names_record(signal: Signal) -> tuple[bytes, bytes]:
    """Gives digest and JSON of a signal's channel names and types."""
    raw = json.dumps([list(signal.ch_names), list(signal.ch_types)], ensure_ascii=False).encode()
    return hashlib.sha256(raw).digest()[:16], raw


def check_signal(key: StoreKey, signal: Signal) -> None:
    """Refuses what may not be stored.

    Raises:
        StoreError: If the data are not (time, channel) float32 (or int64 token ids), not finite, empty, or if the
            channel names or the rate do not fit.
    """
    data = signal.data
    if data.ndim != 2 or 0 in data.shape:
        raise StoreError(f"{key}: need (time, channel) with both above 0, got shape {data.shape}")
    if data.dtype.name not in DTYPES:
        raise StoreError(f"{key}: need float32 (int64 for token ids), got {data.dtype}")
    if data.dtype == np.float32 and not np.isfinite(data).all():
        count = int((~np.isfinite(data)).sum())
        raise StoreError(
            f"{key}: {count} of {data.size} values are NaN or infinite; the extractor must give finite values"
        )
    for name, items in (("ch_names", signal.ch_names), ("ch_types", signal.ch_types)):
        if items and len(items) != data.shape[1]:
            raise StoreError(f"{key}: {data.shape[1]} channels but {len(items)} {name}")
    if not (np.isfinite(signal.rate_hz) and signal.rate_hz >= 0):
        raise StoreError(f"{key}: need a finite rate of 0 Hz or more, got {signal.rate_hz}")
    if signal.rate_hz == 0 and data.shape[0] != 1 and data.dtype == np.float32:
        raise StoreError(f"{key}: a stream without a rate is one vector, got {data.shape[0]} rows")


def pack(signal: Signal | None, names_digest: bytes) -> bytes:
    """Gives an entry's bytes; None is the note that the extractor gave nothing for this stream of this clip."""
    if signal is None:
        fields: dict[str, Any] = {"absent": True}
        body = memoryview(b"")
    else:
        array = np.ascontiguousarray(signal.data, DTYPES[signal.data.dtype.name])
        fields = {
            "dtype": signal.data.dtype.name,
            "shape": list(array.shape),
            "rate_hz": float(signal.rate_hz),
            "start_s": float(signal.start_s),
            "unit": signal.unit,
            "names": names_digest.hex(),
        }
        body = array.data.cast("B")
    header = json.dumps(fields, ensure_ascii=False).encode()
    header += b" " * (-(_PAGE_HEADER_BYTES + _PREFIX.size + len(header)) % _ALIGN_BYTES)
    checksum = zlib.crc32(body, zlib.crc32(header, len(header)))
    return b"".join((_PREFIX.pack(_MAGIC, len(header), checksum), header, body))


def _split(key: StoreKey, value: memoryview) -> tuple[memoryview, memoryview, int]:
    if len(value) < _PREFIX.size:
        raise StoreError(f"{key}: the entry is damaged ({len(value)} bytes are left of it)")
    magic, header_bytes, checksum = _PREFIX.unpack(value[: _PREFIX.size])
    if magic != _MAGIC or _PREFIX.size + header_bytes > len(value):
        raise StoreError(f"{key}: the entry is damaged (it does not begin as an entry does)")
    return value[_PREFIX.size : _PREFIX.size + header_bytes], value[_PREFIX.size + header_bytes :], checksum


def _read_header(key: StoreKey, header: memoryview) -> dict[str, Any]:
    try:
        fields = json.loads(bytes(header))
    except ValueError as error:
        raise StoreError(f"{key}: the entry is damaged (its header is unreadable: {error})") from error
    return fields


def unpack(
    key: StoreKey,
    value: memoryview,
    names_of: Callable[[bytes], Names],
    as_array: Callable[[memoryview, np.dtype, tuple[int, ...]], np.ndarray],
) -> Signal | None:
    """Reads an entry.

    Args:
        key: For messages.
        value: The entry's bytes.
        names_of: Digest to channel names and types.
        as_array: Makes the array of the body's bytes; the caller knows how long they stay valid.

    Raises:
        StoreError: If the entry is damaged.
    """
    header, body, _ = _split(key, value)
    fields = _read_header(key, header)
    if fields.get("absent"):
        return None
    try:
        dtype, shape = DTYPES[fields["dtype"]], tuple(int(size) for size in fields["shape"])
        names = names_of(bytes.fromhex(fields["names"]))
        rate_hz, start_s, unit = float(fields["rate_hz"]), float(fields["start_s"]), str(fields["unit"])
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"{key}: the entry is damaged (its header lacks {error})") from error
    if len(shape) != 2 or shape[0] * shape[1] * dtype.itemsize != len(body):
        raise StoreError(f"{key}: the entry is damaged ({len(body)} bytes for shape {shape})")
    return Signal(
        data=as_array(body, dtype, shape),
        rate_hz=rate_hz,
        start_s=start_s,
        unit=unit,
        ch_names=names[0],
        ch_types=names[1],
    )


def copy_bodies(values: Sequence[memoryview | bytes], like: memoryview, rows: np.ndarray) -> bool:
    """Copies the arrays of entries that are alike but for their numbers; False, where some are not.

    Args:
        values: The entries' bytes.
        like: The bytes of an entry, whose header all others must have.
        rows: (entry, value) float32, filled with the arrays.
    """
    if any(len(value) != len(like) for value in values):
        return False
    head_bytes = len(like) - rows.shape[1] * rows.itemsize
    before, after = bytes(like[: _CHECKSUM_PLACE.start]), bytes(like[_CHECKSUM_PLACE.stop : head_bytes])
    for value, row in zip(values, rows, strict=True):
        if value[: _CHECKSUM_PLACE.start] != before or value[_CHECKSUM_PLACE.stop : head_bytes] != after:
            return False
        row[:] = np.frombuffer(value, row.dtype, offset=head_bytes)
    return True


def checksum_matches(key: StoreKey, value: memoryview) -> bool:
    """Whether header and array are as they were written.

    Raises:
        StoreError: If not even the beginning is.
    """
    header, body, checksum = _split(key, value)
    return zlib.crc32(body, zlib.crc32(header, len(header))) == checksum
