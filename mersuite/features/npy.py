"""Features that users already have: one .npy file a clip, a vector or rows in time."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from mersuite.clip import Clip, Signal
from mersuite.errors import DataError, did_you_mean
from mersuite.features.base import Extractor
from mersuite.media.streams import stream_media
from mersuite.schema import require_all

PREFIX = "features/"
NUM_NAMED = 20
"""Clips without a file that a message names."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class NpyConfig:
    """Knobs of ready-made features.

    Attributes:
        folder: Name of the folder of features, such as "chinese-hubert-large-UTT"; the clip's stream is
            features/<folder>.
        role: Whose it is, such as "speaker" or "listener"; the stored stream is <folder>_<role>, or <folder> where it
            is "".
        rate_hz: Rows a second of files that hold frames, (frame, width); null means that every file is one vector, of
            shape (width,) or (1, width). Why nominal: the files do not say it.
        pool: "mean" makes one vector of the frames, and needs no rate; "none" keeps them.
        missing: What a clip without a file means: "refuse" stops and lists such clips, "mask" goes on without and lets
            models see the stream as missing.
    """

    folder: str
    role: str = ""
    rate_hz: float | None = None
    pool: Literal["none", "mean"] = "none"
    missing: Literal["refuse", "mask"] = "refuse"

    def __post_init__(self) -> None:
        require_all(
            (
                bool(self.folder) and not set(self.folder) & set("/\\"),
                f"folder: need the name of one folder in features/, got {self.folder!r}",
            ),
            (self.rate_hz is None or self.rate_hz > 0, f"rate_hz: need a rate above 0, or null, got {self.rate_hz}"),
        )


class _Header(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def rows(self) -> int:
        """Frames; 1 for a vector."""
        return 1 if len(self.shape) == 1 else self.shape[0]

    @property
    def width(self) -> int:
        return self.shape[-1]


class NpyExtractor(Extractor):
    """Writes `<folder>_<role>`: the features as they are, as float32.

    Files hold float16, float32 or float64. With a rate, a file of shape (width,) is one frame: some tools drop the
    axis of a single one.
    """

    Config = NpyConfig
    version = 1
    no_effect = ("missing",)
    config: NpyConfig

    def __init__(self, config: NpyConfig) -> None:
        super().__init__(config)
        self.stream = f"{PREFIX}{config.folder}"
        self.inputs = (self.stream,)

    def outputs(self) -> tuple[str, ...]:
        """Names of the streams written for each clip."""
        config = self.config
        return (f"{config.folder}_{config.role}" if config.role else config.folder,)

    def survey(self, clips: Sequence[Clip]) -> None:
        """Looks for clips without a file and at the headers of all files.

        Raises:
            DataError: If a clip lacks a file and missing is "refuse"; a file is unreadable, holds no
                floats, is empty, or holds frames and neither rate_hz nor pool is set; or widths differ between files.
        """
        there = [clip for clip in clips if self.stream in clip.media]
        lacking = [clip.clip_id for clip in clips if self.stream not in clip.media]
        if clips and not there:
            folders = {name.removeprefix(PREFIX) for clip in clips for name in clip.media if name.startswith(PREFIX)}
            hint = did_you_mean(self.config.folder, folders) if folders else "there is no folder of features at all"
            told = f"{self.stream}: none of the {len(clips)} clips has a file there; {hint}"
            if self.config.missing == "refuse":
                raise DataError(told)
            # Why no error: features of listeners are there for candidates alone, and `fit` reads training clips alone.
            _log.warning("%s; the stream is masked everywhere", told)
            return
        if lacking:
            share = f"{len(lacking)} of {len(clips)} clips ({len(lacking) / len(clips):.1%})"
            if self.config.missing == "refuse":
                raise DataError(
                    f"{self.stream}: {share} have no file: {_listed(lacking)}; add them, or set missing=mask of the "
                    f"entry under `features` with folder={self.config.folder}, to go on with these clips masked"
                )
            _log.warning("%s: %s have no file and are masked", self.stream, share)
        widths: dict[int, list[str]] = {}
        for clip in there:
            widths.setdefault(self._header(clip).width, []).append(stream_media(clip, self.stream).path.name)
        if len(widths) > 1:
            found = ", ".join(
                f"{width} ({len(names)} files, such as {names[0]})"
                for width, names in sorted(widths.items(), key=lambda item: -len(item[1]))
            )
            raise DataError(
                f"{self.stream}: files differ in width: {found}; all files of a folder come from one model: make the "
                "others again, or move them out"
            )

    def estimate_bytes(self, clips: Sequence[Clip]) -> int:
        """Gives the bytes of the features, from the headers of the files."""
        headers = [self._header(clip) for clip in clips]
        pairs = zip(clips, headers, strict=True)
        return sum(4 * header.width * self._num_rows(clip, header.rows) for clip, header in pairs)

    def _num_rows(self, clip: Clip, rows: int) -> int:
        """Gives about how many rows of a file are stored."""
        if self.config.pool == "mean":
            return 1
        media, rate_hz = stream_media(clip, self.stream), self.config.rate_hz
        return rows if media.duration_s is None or rate_hz is None else min(rows, ceil(media.duration_s * rate_hz))

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields the features of every clip.

        Raises:
            DataError: If a file is unreadable, of another form than the knobs say, or holds NaN or infinite values.
        """
        for clip in clips:
            self._header(clip)
            media = stream_media(clip, self.stream)
            with np.errstate(over="ignore"):  # what overflows is infinite and refused below
                data = np.atleast_2d(_load(clip, media.path)).astype(np.float32)
            if bad := int((~np.isfinite(data)).sum()):
                raise DataError(
                    f"{clip.clip_id}: {media.path}: {bad} of {data.size} values are NaN or infinite (or too large for "
                    "float32); make the file again"
                )
            data = self._stretch(clip, data)
            rate_hz = self.config.rate_hz or 0.0
            if self.config.pool == "mean":
                data, rate_hz = data.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32), 0.0
            yield clip.clip_id, {self.outputs()[0]: Signal(data=data, rate_hz=rate_hz, ch_names=())}

    def _header(self, clip: Clip) -> _Header:
        path = stream_media(clip, self.stream).path
        header = _read_header(clip, path)
        where = f"{clip.clip_id}: {path}"
        if header.dtype.kind != "f":
            raise DataError(f"{where}: need floating point numbers, got {header.dtype}; make the file again")
        if len(header.shape) not in (1, 2) or 0 in header.shape:
            raise DataError(f"{where}: need (width,) or (frame, width), none of them 0, got {header.shape}")
        if header.rows > 1 and self.config.rate_hz is None and self.config.pool == "none":
            raise DataError(
                f"{where}: holds {header.rows} frames; of the entry under `features` with folder={self.config.folder} "
                "set rate_hz (frames a second) to keep them, or pool=mean"
            )
        return header

    def _stretch(self, clip: Clip, data: np.ndarray) -> np.ndarray:
        media, rate_hz = stream_media(clip, self.stream), self.config.rate_hz
        if media.start_s == 0 and media.duration_s is None:
            return data
        if rate_hz is None:
            raise DataError(
                f"{clip.clip_id}: {self.stream}: the clip is a stretch of the file; set rate_hz (frames a second)"
            )
        first = round(media.start_s * rate_hz)
        last = len(data) if media.duration_s is None else first + max(1, round(media.duration_s * rate_hz))
        if first >= len(data):
            raise DataError(
                f"{clip.clip_id}: {media.path}: the clip begins at {media.start_s:g} s, and {len(data)} frames at "
                f"{rate_hz:g} Hz end before"
            )
        return data[first:last]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NUM_NAMED} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more


def _read_header(clip: Clip, path: Path) -> _Header:
    """Reads shape and dtype without the data.

    Raises:
        DataError: If the file is missing or no .npy file of plain numbers.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(
                    f"its format {version[0]}.{version[1]} is for named fields, which features do not have"
                )
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
    except (OSError, ValueError) as error:
        raise _unreadable(clip, path, error) from error
    return _Header(shape, dtype)


def _load(clip: Clip, path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, MemoryError) as error:  # a broken header may ask for any size
        raise _unreadable(clip, path, error) from error


def _unreadable(clip: Clip, path: Path, error: Exception) -> DataError:
    return DataError(f"{clip.clip_id}: {path}: not a readable .npy file ({error}); make or copy it again")
