"""npz files as the organisers write them, read without running what a pickle asks for."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mersuite.errors import DataError


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        from numpy._core import multiarray

        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name in ("_reconstruct", "scalar"):
            return getattr(multiarray, name)
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if module == "builtins" and name in ("dict", "list", "set", "frozenset", "tuple"):
            return {"dict": dict, "list": list, "set": set, "frozenset": frozenset, "tuple": tuple}[name]
        raise DataError(f"asks for {module}.{name}")


def read_npz(path: Path) -> dict[str, Any]:
    """Gives the arrays of an npz file by name; objects only where they are builtin containers and numpy arrays.

    Raises:
        DataError: If the file is missing or damaged, or a pickle in it asks for anything else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}
    except (OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a readable npz file ({error})") from error


def read_label_npz(path: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Gives corpus -> name -> labels of the organisers' label file.

    Raises:
        DataError: As read_npz does, or if the file holds something else.
    """
    return {key: value.item() for key, value in read_npz(path).items()}


def write_label_npz(path: Path, corpora: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Writes a label file in the organisers' layout."""
    arrays = {key: np.array({name: dict(item) for name, item in rows.items()}, object) for key, rows in corpora.items()}
    np.savez_compressed(path, **arrays)  # type: ignore[arg-type]


def _array(content: bytes) -> Any:
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    _, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if not dtype.hasobject:
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return _Unpickler(stream).load()
