"""What has been done in a folder of faces, so that work can be taken up again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mersuite.clip import Clip, Media
from mersuite.errors import DataError, StoreError
from mersuite.faces.analysis import VIDEO, VOICE
from mersuite.faces.config import FacesConfig
from mersuite.faces.detectors import detector_files
from mersuite.schema import plain
from mersuite.store_lock import WriterLock
from mersuite.whole_files import whole_file

ROLES = ("speaker", "listener")
JOURNAL = "faces.jsonl"
PICTURES = "debug"
_VERSION = 2
_WITHOUT_EFFECT = ("skip_broken", "keep_mb")


def face_path(out: Path, role: str, name: str) -> Path:
    """The file of a face: <out>/face_<role>/<name>/<name>.npy."""
    return out / f"face_{role}" / name / f"{Path(name).name}.npy"


def picture_path(out: Path, name: str) -> Path:
    """The file of a debug picture."""
    return out / PICTURES / f"{name}.png"


def remove_parts(folder: Path) -> None:
    """Removes what killed runs left under temporary names in a folder, not in those within."""
    for part in folder.glob(".*.part"):
        part.unlink(missing_ok=True)


class Journal:
    """Rows of finished clips, a JSON line each, written as clips are finished. The first line holds the options.

    One process at a time holds it; the system gives it back when that process dies.

    Raises:
        DataError: If the folder is a file, holds faces of other options or faces that no journal speaks of, or another
            process works in it.
    """

    def __init__(self, out: Path, config: FacesConfig) -> None:
        self._out = out
        self._config = config
        self._options = {key: value for key, value in plain(config).items() if key not in _WITHOUT_EFFECT}
        self.rows: dict[str, dict[str, Any]] = {}
        self._sources: dict[str, Any] = {}
        path = out / JOURNAL
        _check_folder(out)
        out.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(out)
        try:
            if path.is_file():
                self._read(path)
            lines = [json.dumps({"faces": _VERSION, "options": self._options})]
            lines += [self._line(name) for name in self.rows]
            remove_parts(out)
            remove_parts(out / PICTURES)
            with whole_file(path) as stream:  # whole: a killed run may have left half a line
                stream.write("".join(f"{line}\n" for line in lines).encode())
            self._file = path.open("a", encoding="utf-8")
        except BaseException:
            self._lock.release()
            raise

    def has(self, clip: Clip, *, debug: bool) -> bool:
        """A clip is finished, its sources have not changed since and its files are there."""
        row = self.rows.get(clip.clip_id)
        if row is None or self._sources[clip.clip_id] != sources_of(clip, self._config):
            return False
        files = [face_path(self._out, role, clip.clip_id) for role in ROLES if row[role] is not None]
        files += [picture_path(self._out, clip.clip_id)] * debug
        return all(path.is_file() for path in files)

    def add(self, clip: Clip, row: dict[str, Any]) -> None:
        """Notes a finished clip; its files lie there already."""
        self.rows[clip.clip_id] = row
        self._sources[clip.clip_id] = sources_of(clip, self._config)
        self._write(self._line(clip.clip_id))

    def forget(self, clip: Clip) -> None:
        """Takes back what was noted of a clip that cannot be read any more; its files are gone already."""
        if self.rows.pop(clip.clip_id, None) is not None:
            self._write(json.dumps({"forgotten": clip.clip_id}))

    def close(self) -> None:
        """Closes the file and lets others work in the folder."""
        self._file.close()
        self._lock.release()

    def _write(self, line: str) -> None:
        self._file.write(line + "\n")
        self._file.flush()

    def _line(self, name: str) -> str:
        return json.dumps({"sources": self._sources[name], "row": self.rows[name]})

    def _read(self, path: Path) -> None:
        entries = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entries.append(json.loads(line))
            except json.JSONDecodeError:
                continue  # half a line of a killed run: that clip is done again
        head = entries[0] if entries else {}
        if head.get("faces") != _VERSION:
            raise DataError(f"{path}: was written by another version of mersuite; give another folder as out")
        before = head["options"]
        differing = [key for key in self._options if before.get(key) != self._options[key]]
        if differing:
            key = differing[0]
            raise DataError(
                f"out={self._out}: holds faces that were cut with {key}={before.get(key)}, asked for"
                f" {key}={self._options[key]}; give the same options, or another folder"
            )
        for entry in entries[1:]:
            if "forgotten" in entry:
                self.rows.pop(entry["forgotten"], None)
                continue
            self.rows[entry["row"]["name"]] = entry["row"]
            self._sources[entry["row"]["name"]] = entry["sources"]


def sources_of(clip: Clip, config: FacesConfig) -> list[list[Any]]:
    """What a clip's result depends on beside options: size, time of change and stretch of its files."""
    found: list[list[Any]] = []
    for stream in (VIDEO, VOICE):
        media = clip.media.get(stream)
        if isinstance(media, Media):
            found.append([*_state(media.path), media.start_s, media.duration_s])
    return found + [_state(path) for path in detector_files(config, clip.clip_id)]


def _state(path: Path) -> list[Any]:
    status = path.stat() if path.is_file() else None
    known = [status.st_size, status.st_mtime_ns] if status else [0, 0]
    return [str(path.absolute()), *known]


def _check_folder(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise DataError(f"out={out}: is a file, need a folder")
    if not (out / JOURNAL).is_file():
        for role in ROLES:
            folder = out / f"face_{role}"
            if folder.is_dir() and any(folder.iterdir()):
                raise DataError(
                    f"out={out}: holds {folder.name}/, which `mersuite faces` did not write: there is no {JOURNAL};"
                    " give a new or empty folder"
                )


def _locked(out: Path) -> WriterLock:
    try:
        return WriterLock(out, wait=False, on_wait=lambda holder: None)
    except StoreError as error:
        told = str(error).split(";")[0]
        raise DataError(
            f"out={out}: another run of `mersuite faces` writes there ({told}); wait for its end or give another folder"
        ) from error
