"""npz files with labels, as the organisers write them, opened without running anything that they ask for.

Such a file holds Python dictionaries, pickled. A pickle is a program: it may call any function that Python can import.
Here only dictionaries, lists, tuples, sets, texts, numbers and numpy arrays and scalars of plain types come out of it;
numpy's own rebuilding code is not called either, because it trusts what the file says of an array's memory.
"""

from __future__ import annotations

import lzma
import pickle
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from mersuite.errors import DataError
from mersuite.whole_files import whole_file

_CURE = "download it again, or ask who wrote it for plain numbers and text"
_SUFFIX = "_corpus"
MAX_SIZE_BYTES = 2**30
"""Most that a file may hold unpacked. Why: zeros pack a thousand times smaller; 132,171 labels take some 20 MB."""
_PLAIN_KINDS = "biufcSU"
_NUMPY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUILTINS: Mapping[str, Any] = {
    item.__name__: item
    for item in (bool, bytearray, bytes, complex, dict, float, frozenset, int, list, set, str, tuple)
}


def read_npz(path: Path) -> dict[str, Any]:
    """Gives what an npz file holds, by name.

    Arrays of numbers and texts are numpy arrays. Of pickled objects, dictionaries, lists, tuples, sets, texts, numbers
    and such arrays are given; numpy scalars become Python's. An array of one object without axes gives that object.

    Raises:
        DataError: If the file is missing, empty, damaged or no npz file, or holds more than 1 GiB; if a pickle asks for
            anything else, which is named and not run.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: {'is a folder, need an npz file' if path.is_dir() else 'no such file'}")
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            _refuse_large(sum(item.file_size for item in archive.infolist()), str(path))
            for member in archive.namelist():
                key = member.removesuffix(".npy")
                with archive.open(member) as stream:
                    found[key] = _read_member(stream, f"{path}: {key}")
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{path}: not a readable npz file ({error or 'it ends early'}); {_CURE}") from error
    return found


def read_label_npz(path: Path, *, needed: Sequence[str] = ()) -> dict[str, dict[str, dict[str, Any]]]:
    """Gives corpus -> clip name -> labels, such as {"train_corpus": {"sample_00000000": {"emo": "happy"}}}.

    Args:
        path: A label file in the organisers' layout, such as track1_label_6way.npz.
        needed: Corpora that must be there.

    Raises:
        DataError: As read_npz does; if a needed corpus is missing, or the file holds something else than corpora.
    """
    corpora = read_npz(path)
    missing = [name for name in needed if name not in corpora] or ([] if corpora else ["train_corpus"])
    if missing:
        there = ", ".join(sorted(corpora)) or "none"
        raise DataError(f"{path}: has no {', '.join(missing)}; the keys that are there: {there}")
    for name, rows in corpora.items():
        if not isinstance(rows, dict):
            raise DataError(
                f"{path}: {name}: need a dictionary of clip name to labels, got {type(rows).__name__}; a label file has"
                f" keys such as train{_SUFFIX} and test1{_SUFFIX}"
            )
        for clip, labels in rows.items():
            if not isinstance(clip, str) or not isinstance(labels, dict):
                raise DataError(
                    f"{path}: {name}: need clip names with a dictionary each, such as {{'emo': 'happy'}}, got"
                    f" {_shown(clip)}: {_shown(labels)}"
                )
    return corpora


def _shown(value: Any) -> str:
    """Gives a value for a message, of anything with content its type only."""
    return repr(value)[:80] if isinstance(value, str | int | float | None) else type(value).__name__


def write_label_npz(path: Path, corpora: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Writes a label file in the organisers' layout: a pickled dictionary for each of train_corpus, test1_corpus, ...

    The file appears whole or not at all; the same labels give the same bytes.
    """
    path = Path(path)
    arrays = {}
    for name, rows in corpora.items():
        arrays[name] = np.empty((), object)
        arrays[name][()] = {clip: dict(labels) for clip, labels in rows.items()}
    with whole_file(path) as stream:
        np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]


def _refuse_large(size_bytes: int, name: str) -> None:
    if size_bytes > MAX_SIZE_BYTES:
        raise DataError(f"{name}: holds {size_bytes / 2**30:.3g} GiB, need {MAX_SIZE_BYTES / 2**30:g} or less; {_CURE}")


def _read_member(stream: IO[bytes], name: str) -> Any:
    header = np.lib.format
    try:
        version = header.read_magic(stream)
        readers: Mapping[tuple[int, int], Callable[..., tuple[tuple[int, ...], bool, np.dtype]]] = {
            (1, 0): header.read_array_header_1_0,
            (2, 0): header.read_array_header_2_0,
        }
        if version not in readers:
            raise DataError(f"{name}: .npy format {version} is not read; {_CURE}")
        shape, is_fortran, dtype = readers[version](stream)
    except ValueError as error:
        raise DataError(f"{name}: not a .npy array ({error}); {_CURE}") from error
    if dtype.kind != "O":
        return _numbers(stream.read(), dtype, shape, "F" if is_fortran else "C", name)
    content = _unpickled(stream, name)
    if not isinstance(content, np.ndarray):
        raise DataError(f"{name}: need a pickled array, got {type(content).__name__}; {_CURE}")
    return content.item() if content.shape == () else content


def _numbers(raw: bytes, dtype: np.dtype, shape: Any, order: Any, name: str) -> np.ndarray:
    """Gives an array of plain numbers or texts from its bytes."""
    if dtype.kind not in _PLAIN_KINDS or dtype.names or dtype.subdtype:
        raise DataError(f"{name}: arrays of {dtype} are not read, only numbers and text; {_CURE}")
    sizes = shape if isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape) else None
    count = int(np.prod(sizes, dtype=object)) if sizes is not None else -1
    if count < 0 or not isinstance(raw, bytes) or len(raw) != count * dtype.itemsize:
        raise DataError(f"{name}: {len(raw)} bytes do not make an array {shape} of {dtype}; {_CURE}")
    if not dtype.itemsize:  # empty texts, which take no bytes in the file and one character each in memory
        _refuse_large(4 * count, name)
        return np.zeros(sizes or (), dtype)
    return np.frombuffer(raw, dtype).reshape(sizes or (), order=order).copy()


# ---- unpickling: what numpy would build is held in the classes below, and made into arrays at the end


def _unpickled(stream: IO[bytes], name: str) -> Any:
    try:
        return _finished(_Unpickler(stream, name).load(), name)
    except DataError:
        raise
    except Exception as error:  # a damaged pickle raises anything
        raise DataError(f"{name}: holds a damaged pickle ({type(error).__name__}: {error}); {_CURE}") from error


class _Unpickler(pickle.Unpickler):
    """Refuses every name that is not needed for numbers, texts and containers."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        super().__init__(stream)
        self._name = name

    def find_class(self, module: str, name: str) -> Any:
        if module in _NUMPY_MODULES and name in ("_reconstruct", "scalar"):
            return _HeldArray if name == "_reconstruct" else _HeldScalar
        if module in ("numpy.core.numeric", "numpy._core.numeric") and name == "_frombuffer":
            return _held_buffer
        if module == "numpy" and name in ("dtype", "ndarray"):
            return _HeldType if name == "dtype" else _ARRAY_CLASS
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if (module, name) == ("_codecs", "encode"):
            return _latin1
        raise DataError(
            f"{self._name}: holds a pickle that asks for {module}.{name}, which was not run; only numpy arrays and"
            f" builtin containers are read; {_CURE}"
        )

    def persistent_load(self, pid: Any) -> Any:
        raise DataError(f"{self._name}: holds a pickle that points outside the file ({pid!r}); {_CURE}")


_ARRAY_CLASS = object()
"""Stands for numpy.ndarray, which a pickle names and must not call."""


class _HeldType:
    """A dtype of plain numbers, texts or objects."""

    def __init__(self, code: str, *_: Any) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in _PLAIN_KINDS + "O" or self.dtype.names or self.dtype.subdtype:
            raise ValueError(f"arrays of {self.dtype} are not read")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order, subarray, names, fields = state[1:5]
        if subarray is not None or names is not None or fields is not None or order not in ("<", ">", "=", "|"):
            raise ValueError("arrays with fields are not read")
        if order in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(order)


class _HeldArray:
    """An array that is to be rebuilt from (version, shape, type, is Fortran, content)."""

    def __init__(self, *_: Any) -> None:
        self.state: tuple[Any, ...] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.state = state


class _HeldScalar:
    """A numpy scalar: its type and bytes."""

    def __init__(self, held: _HeldType, raw: Any = None) -> None:
        self.held, self.raw = held, raw


def _held_buffer(raw: Any, held: _HeldType, shape: tuple[int, ...], order: str) -> _HeldArray:
    """Gives an array whose content a pickle of protocol 5 holds as one block."""
    if not isinstance(raw, bytes | bytearray):
        raise ValueError(f"the content of an array is {type(raw).__name__}")
    array = _HeldArray()
    array.state = (1, shape, held, order == "F", bytes(raw))
    return array


def _latin1(text: str, encoding: str) -> bytes:
    """Gives bytes, which old pickles write as text."""
    if encoding != "latin1":
        raise ValueError(f"bytes as text in {encoding!r}")
    return text.encode("latin1")


_NESTING = (dict, list, tuple, set, frozenset, _HeldArray)


def _finished(value: Any, name: str, made: dict[int, Any] | None = None) -> Any:
    """Replaces what is held by what it stands for, in containers too.

    Args:
        value: What was unpickled.
        name: What messages begin with.
        made: What was made of objects so far, by id. Why: lists that hold one list ten times, and so on, would grow
            tenfold a level.
    """
    made = {} if made is None else made
    if not isinstance(value, _NESTING):
        return _made(value, name, made)
    if id(value) not in made:
        made[id(value)] = _made(value, name, made)
    return made[id(value)]


def _made(value: Any, name: str, made: dict[int, Any]) -> Any:
    if isinstance(value, _HeldArray):
        return _finished_array(value, name, made)
    if isinstance(value, _HeldScalar):
        scalar = _numbers(value.raw, value.held.dtype, (), "C", name)
        return scalar.item()
    if isinstance(value, _HeldType) or value is _ARRAY_CLASS:
        raise ValueError("a type stands where a value is needed")
    if isinstance(value, dict):
        return {_finished(key, name, made): _finished(item, name, made) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(_finished(item, name, made) for item in value)
    return value


def _finished_array(value: _HeldArray, name: str, made: dict[int, Any]) -> np.ndarray:
    if value.state is None:
        raise ValueError("an array without content")
    _, shape, held, is_fortran, content = value.state
    if held.dtype.kind != "O":
        return _numbers(content, held.dtype, shape, "F" if is_fortran else "C", name)
    flat = np.empty(len(content), object)
    for index, item in enumerate(content):
        flat[index] = _finished(item, name, made)
    return flat.reshape(shape, order="F" if is_fortran else "C")
