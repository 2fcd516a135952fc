"""Writes made-up data in the organisers' layout, each file whole or not at all."""

from __future__ import annotations

import csv
import io
import json
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from mersuite.errors import DataError
from mersuite.whole_files import whole_file

_HEADER_BYTES = 128
_COMPRESSED = 15
MARKER = "fake.json"


def write_mat(path: Path, variables: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes a compressed MATLAB version 5 file, one variable after the other.

    Why not scipy.io.savemat alone: it needs all variables in memory and compresses at zlib's level 6, which is five
    times slower here for files of about the same size.
    """
    with whole_file(path) as stream:
        for index, (name, array) in enumerate(variables):
            buffer = io.BytesIO()
            scipy.io.savemat(buffer, {name: array})
            content = buffer.getbuffer()
            if index == 0:
                stream.write(content[:_HEADER_BYTES])
            packed = zlib.compress(content[_HEADER_BYTES:], 1)
            stream.write(struct.pack("<II", _COMPRESSED, len(packed)))
            stream.write(packed)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Writes a csv file with a header line."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Writes a text file."""
    with whole_file(path) as stream:
        stream.write(text.encode())


def claim_folder(out: Path, track: str, config: Mapping[str, Any]) -> None:
    """Marks a folder as made-up data of a configuration, or checks that it is marked so already.

    Other tracks may add their files to the same folder: the marker holds one entry a track, and the seed is common.

    Raises:
        DataError: If the folder holds files that no `mersuite fake` wrote, or was made with other options.
    """
    marker = out / MARKER
    if out.exists() and not out.is_dir():
        raise DataError(f"out={out}: is a file, need a folder")
    known: dict[str, Any] = {}
    if marker.is_file():
        known = json.loads(marker.read_text(encoding="utf-8"))
    elif out.is_dir() and any(out.iterdir()):
        raise DataError(f"out={out}: holds files that `mersuite fake` did not write; give a new or empty folder")
    for other, options in known.items():
        wanted = config if other == track else {"seed": config["seed"]}
        differing = [key for key, value in wanted.items() if options.get(key) != value]
        if differing:
            key = differing[0]
            raise DataError(
                f"out={out}: was made with {key}={options.get(key)} ({other}), asked for {key}={wanted[key]};"
                " repeat with the same options or give another folder"
            )
    write_text(marker, json.dumps({**known, track: dict(config)}, indent=1) + "\n")
