"""Physiological recordings as arrays: variables of MATLAB files, and any recording that MNE opens.

Nothing here ever unpickles a file. MNE is imported only for recordings, so that code which reads MATLAB files runs
with numpy and scipy alone.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import scipy.io

from mersuite.clip import Media, Signal
from mersuite.errors import DataError
from mersuite.media.csv_lines import read_csv_lines

if TYPE_CHECKING:
    import mne

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_HEADER_BYTES = 128
_SIGNAL_TYPES = frozenset(
    ("eeg", "ecog", "seeg", "mag", "grad", "hbo", "hbr", "fnirs_cw_amplitude", "fnirs_od", "fnirs_fd_ac_amplitude")
)


def read_signal(media: Media, *, allow_flat: bool = False, allow_nan: bool = False) -> Signal:
    """Reads one recording, cut to the media's start and duration, and checks it.

    A MATLAB file (.mat) is read by variable name; leading axes are flattened in C order to channels, so (6, 51, time)
    becomes 306 channels with the second axis running fastest. Everything else goes through MNE.

    Why float32: half the memory of MATLAB's doubles, at a resolution 1e5 times finer than an amplifier's.

    Args:
        media: What to read. For .mat files `key` and `rate_hz` are needed, and `ch_names` where names are known.
        allow_flat: Accept channels that never change, for callers that detect and interpolate bad channels themselves.
            A recording in which every channel is flat is refused either way.
        allow_nan: Accept NaN and infinite values, for callers that leave channels out and call `refuse_nan` on the
            others.

    Returns:
        The recording: data (time, channel) float32, in volts ("V") for EEG and light intensity, molar ("M") for
        haemoglobin, or in the media's own unit for bare arrays. A recording of EEG and haemoglobin says "V", which is
        its EEG's; its haemoglobin is molar all the same.

    Raises:
        DataError: If the file is missing, empty, truncated or of an unknown kind; if the variable is missing or has
            another shape than the media says; if values are NaN or infinite; if a channel is flat.
    """
    path = _existing(media.path)
    signal = _read_mat(media) if path.suffix.lower() == ".mat" else _read_recording(media)
    if not allow_nan:
        refuse_nan(signal, where(media), range(len(signal.ch_names)))
    _check_flat(signal, where(media), allow_flat)
    return signal


def refuse_nan(signal: Signal, name: str, judged: Sequence[int], cure: str = "") -> None:
    """Refuses NaN and infinite values in some channels of a recording.

    Args:
        signal: The recording.
        name: How the message begins: the file and the variable.
        judged: Numbers of the channels that must be finite.
        cure: What may be done beside repairing the file and leaving the recording out.

    Raises:
        DataError: If there are any; the message names the channels and counts the samples.
    """
    data = signal.data
    finite = np.isfinite(data.min(axis=0)) & np.isfinite(data.max(axis=0))
    bad = np.array([index for index in judged if not finite[index]], int)
    if bad.size:
        rows = int((~np.isfinite(data[:, bad])).any(axis=1).sum())
        raise DataError(
            f"{name}: NaN or infinite values in {bad.size} channels ({_some(signal, bad)}) at {rows} of {len(data)}"
            f" samples; repair the file or leave the recording out{', or ' + cure if cure else ''}"
        )


def where(media: Media) -> str:
    """Names a medium in messages: the file, and the variable inside it."""
    return f"{media.path}: {media.key}" if media.key else str(media.path)


def num_samples(media: Media) -> int:
    """Gives the samples of a recording between its start and end, from file headers alone.

    Raises:
        DataError: As read_signal does for files and variables.
    """
    path = _existing(media.path)
    if path.suffix.lower() != ".mat":
        return len(open_raw(media).times)
    shapes = mat_shapes(path)
    _check_key(media, shapes)
    shape = shapes[str(media.key)]
    total = shape[-1] if shape else 0
    start, stop = _sample_range(media, total)
    return stop - start


def recording_length_s(media: Media) -> float:
    """Gives the seconds of a recording between its start and end, from file headers alone.

    Raises:
        DataError: As read_signal does for files and variables.
    """
    path = _existing(media.path)
    if path.suffix.lower() != ".mat":
        raw = open_raw(media)
        return len(raw.times) / float(raw.info["sfreq"])
    return num_samples(media) / _mat_rate(media)


def mat_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Gives name -> shape of the variables of a MATLAB file without loading them.

    Why headers: of a compressed variable only the first block is inflated, so a file of 15 long trials takes 15 ms.

    Raises:
        DataError: If the file is missing, empty, truncated, of version 7.3 (HDF5) or no MATLAB file.
    """
    path = _existing(path)
    _check_mat_container(path)
    try:
        return {name: tuple(shape) for name, shape, _ in scipy.io.whosmat(str(path))}
    except Exception as error:  # scipy raises a dozen types on malformed files
        raise DataError(f"{path}: not a readable MATLAB file ({error}); copy or download it again") from error


def read_mat_array(path: Path, key: str) -> np.ndarray:
    """Gives one numeric variable of a MATLAB file as it is stored, doubles as a rule.

    Raises:
        DataError: If the file or the variable cannot be read; the message lists the variables that are there.
    """
    path = _existing(path)
    _check_mat_container(path)
    try:
        content = scipy.io.loadmat(str(path), variable_names=[key])
    except Exception as error:  # scipy and zlib raise a dozen types on malformed files
        raise DataError(f"{path}: {key} is not readable ({error}); copy or download the file again") from error
    if key not in content:
        _check_key(Media(path=path, key=key), mat_shapes(path))
    array = content[key]
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        kind = getattr(array, "dtype", type(array).__name__)
        raise DataError(f"{path}: {key} must be a numeric array, got {kind}")
    return array


def read_reservations(path: Path, subject: str) -> np.ndarray:
    """Gives which fNIRS channels of a subject are kept: (channel,) bool.

    The file is a csv with a column `sub_id` and one column a channel (`ch-1`, `ch-2`, ...); 1 keeps the channel, 0
    rules it out.

    Raises:
        DataError: If the file has no such columns, no row or two rows of the subject, or other values than 0 and 1.
    """
    path = _existing(path)
    rows = [cells for _, cells in read_csv_lines(path)]
    header = rows[0] if rows else []
    columns = [index for index, name in enumerate(header) if name.lower().startswith(("ch-", "ch_"))]
    if "sub_id" not in header or not columns:
        raise DataError(f"{path}: need the columns sub_id, ch-1, ch-2, ..., got {header[:4]}")
    found = [row for row in rows[1:] if row[header.index("sub_id")] == subject]
    if len(found) != 1:
        known = ", ".join(row[header.index("sub_id")] for row in rows[1:7])
        raise DataError(f"{path}: need one row of subject {subject!r}, got {len(found)}; there are: {known}, ...")
    try:
        values = np.array([float(found[0][index]) for index in columns])
    except (ValueError, IndexError) as error:
        raise DataError(f"{path}: the row of {subject!r} must hold {len(columns)} numbers 0 or 1 ({error})") from error
    if not np.isin(values, (0.0, 1.0)).all():
        raise DataError(f"{path}: the row of {subject!r} must hold only 0 and 1, got {sorted(set(values))}")
    return values == 1.0


def open_raw(media: Media, *, preload: bool = False) -> mne.io.BaseRaw:
    """Opens a recording with MNE, cut to the media's start and duration; montage and optode positions are kept.

    Raises:
        DataError: If MNE cannot open the file, or it ends before the clip begins or ends.
    """
    import mne

    path = _existing(media.path)
    try:
        raw = mne.io.read_raw(path, preload=False, verbose="ERROR")
    except Exception as error:  # every reader of MNE raises types of its own
        reason = " ".join(str(error).split())[:200]
        raise DataError(
            f"{path}: MNE cannot read this recording ({reason}); see mne.io.read_raw for formats"
        ) from error
    rate_hz = float(raw.info["sfreq"])
    start, stop = _sample_range(media, len(raw.times), rate_hz)
    raw.crop(tmin=start / rate_hz, tmax=(stop - 1) / rate_hz, include_tmax=True, verbose="ERROR")
    try:
        return raw.load_data(verbose="ERROR") if preload else raw
    except Exception as error:  # as above; a truncated file shows here
        raise DataError(f"{path}: the recording is cut short or damaged ({error}); copy it again") from error


def _read_mat(media: Media) -> Signal:
    rate_hz = _mat_rate(media)
    array = read_mat_array(media.path, str(media.key))
    total = array.shape[-1] if array.ndim else 0
    num_channels = array.size // total if total else 0
    if array.ndim < 2 or total == 0:
        raise DataError(f"{where(media)} must be an array (channel, time) with samples, got shape {array.shape}")
    if media.ch_names and num_channels != len(media.ch_names):
        raise DataError(f"{where(media)} has {num_channels} channels (shape {array.shape}), need {len(media.ch_names)}")
    start, stop = _sample_range(media, total)
    data = np.empty((stop - start, num_channels), np.float32)
    data.reshape(stop - start, *array.shape[:-1])[...] = np.moveaxis(array[..., start:stop], -1, 0)
    names = media.ch_names or tuple(f"ch-{index + 1}" for index in range(num_channels))
    return Signal(data=data, rate_hz=rate_hz, ch_names=names, ch_types=media.ch_types, unit=media.unit)


def _mat_rate(media: Media) -> float:
    if media.key is None or media.rate_hz is None or media.rate_hz <= 0:
        raise DataError(
            f"{where(media)}: a MATLAB file does not say its variable and sampling rate, got key={media.key} and"
            f" rate_hz={media.rate_hz}; in a manifest, give them as columns <stream>.key and <stream>.rate_hz"
        )
    return media.rate_hz


def _read_recording(media: Media) -> Signal:
    raw = open_raw(media)
    types = raw.get_channel_types()
    try:
        values = raw.get_data()
    except Exception as error:  # every reader of MNE raises types of its own
        raise DataError(f"{media.path}: the recording is cut short or damaged ({error}); copy it again") from error
    data = np.ascontiguousarray(values.T, dtype=np.float32)
    unit = "M" if {"hbo", "hbr"} & set(types) and "eeg" not in types else "V"
    return Signal(
        data=data, rate_hz=float(raw.info["sfreq"]), ch_names=tuple(raw.ch_names), ch_types=tuple(types), unit=unit
    )


def _sample_range(media: Media, total: int, rate_hz: float | None = None) -> tuple[int, int]:
    """First and last-plus-one sample of the clip in its file."""
    rate = media.rate_hz if rate_hz is None else rate_hz
    if media.start_s == 0.0 and media.duration_s is None:
        start, stop = 0, total
    elif rate is None:
        raise DataError(f"{where(media)}: start_s and duration_s need a rate_hz")
    else:
        start = round(media.start_s * rate)
        stop = total if media.duration_s is None else start + round(media.duration_s * rate)
    if not 0 <= start < stop <= total:
        length = f"{total / rate:.3f} s" if rate else f"{total} samples"
        raise DataError(
            f"{where(media)}: start_s={media.start_s} and duration_s={media.duration_s} do not fit"
            f" a recording of {length}"
        )
    return start, stop


def _check_flat(signal: Signal, name: str, allow_flat: bool) -> None:
    low, high = signal.data.min(axis=0), signal.data.max(axis=0)
    judged = np.array([not signal.ch_types or kind in _SIGNAL_TYPES for kind in signal.ch_types or signal.ch_names])
    flat = np.flatnonzero((low == high) & judged)
    if flat.size and (not allow_flat or flat.size == judged.sum()):
        raise DataError(
            f"{name}: {flat.size} of {judged.sum()} channels are flat ({_some(signal, flat)});"
            " mark them as bad or turn on the interpolation of bad channels"
        )


def _some(signal: Signal, indices: np.ndarray) -> str:
    names = [signal.ch_names[index] for index in indices[:4]]
    return ", ".join(names) + (", ..." if len(indices) > len(names) else "")


def _existing(path: Path) -> Path:
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; copy or download it again")
    return path


def _check_key(media: Media, shapes: Mapping[str, tuple[int, ...]]) -> None:
    if media.key not in shapes:
        there = ", ".join(shapes) or "none"
        raise DataError(f"{media.path}: no variable {media.key!r}; the variables that are there: {there}")


def _check_mat_container(path: Path) -> None:
    """Walks the top-level elements of a version 5 file: a cheap and complete test of truncation."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = stream.read(_HEADER_BYTES)
        if header.startswith(_HDF5_MAGIC) or b"MATLAB 7.3" in header[:64]:
            raise DataError(
                f"{path}: MATLAB version 7.3 (HDF5) is not read; in MATLAB save(..., '-v7') gives one that is"
            )
        if len(header) < _HEADER_BYTES or header[126:128] not in (b"IM", b"MI"):
            raise DataError(f"{path}: not a MATLAB version 5 file, or its first bytes are missing; download it again")
        order = "<" if header[126:128] == b"IM" else ">"
        position = _HEADER_BYTES
        while position < size:
            stream.seek(position)
            tag = stream.read(8)
            length = struct.unpack(order + "II", tag)[1] if len(tag) == 8 else size
            position += 8 + length
        if position > size:
            raise DataError(
                f"{path}: truncated, {position - size} bytes or more are missing; copy or download it again"
            )
