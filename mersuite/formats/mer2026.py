"""Folders of MER2026 and MER2025: media of many clips, subtitles, csv files of the tracks, pre-extracted features.

    video/<name>.mp4   audio/<name>.wav   openface_face/<name>/<name>.npy   subtitle_chieng.csv
    track1_train*.csv  track1_track2_candidate.csv, ...                      features/<folder>/<name>.npy
    face_speaker/<name>/<name>.npy  face_listener/<name>/<name>.npy          (of `mersuite faces`, or a user's own)

Nothing is opened here but csv files. Facts and sources: tracks/cross/README.md.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mersuite.clip import Clip, Media
from mersuite.errors import DataError
from mersuite.formats.safe_npz import read_label_npz
from mersuite.media.archives import archives_in
from mersuite.media.csv_lines import read_columns, read_csv_lines

DATASET = "mer2026"
EMOTIONS = ("neutral", "angry", "happy", "sad", "worried", "surprise")
"""The six classes of track 1 in their index order."""
INNER_FOLDERS = ("mer2026-dataset", "mer2025-dataset")
MEDIA_FOLDERS = {"video": ("video", (".mp4", ".avi", ".mkv", ".mov", ".webm")), "voice.speaker": ("audio", (".wav",))}
"""Stream to its folder and the endings of its files, the organisers' own first."""
FACE_FOLDERS = {"face.speaker": ("face_speaker", "openface_face"), "face.listener": ("face_listener",)}
"""Stream to the folders that may hold it, the first that has a clip counts. Why face_speaker first: in a clip of two
people the organisers' folder does not say whose face it shows."""
SUBTITLES = "subtitle_chieng.csv"
TEXT_COLUMNS = {"text.speaker.zh": "chinese", "text.speaker.en": "english"}
CANDIDATES = ("track1_track2_candidate.csv", "track_all_candidates.csv", "track*candidate*.csv")
FEATURE_PREFIX = "features/"
PUBLISHED_CLIPS = 132_171


@dataclass(frozen=True, slots=True, kw_only=True)
class MerFolder:
    """Where everything of a data set lies.

    Attributes:
        root: The folder that holds video/ and the csv files.
        features: Folder of pre-extracted features.
        faces: Folder that may hold face_speaker/ and face_listener/.
    """

    root: Path
    features: Path
    faces: Path


def open_folder(root: Path, *, features: Path | None = None, faces: Path | None = None) -> MerFolder:
    """Finds the data set in a folder: in itself, or in the organisers' folder inside it.

    Raises:
        DataError: If a folder that was named does not exist.
    """
    for key, place in (("data.features", features), ("data.faces", faces)):
        if place is not None and not place.is_dir():
            raise DataError(f"{key}: {place} is no folder")
    inner = next((root / name for name in INNER_FOLDERS if (root / name).is_dir()), root)
    return MerFolder(root=inner, features=features or inner / "features", faces=faces or inner)


def find_csv(folder: MerFolder, patterns: Sequence[str]) -> Path | None:
    """Gives the csv file of the first pattern that fits; None where none does.

    Raises:
        DataError: If several files fit one pattern.
    """
    for pattern in patterns:
        found = sorted(folder.root.glob(pattern))
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise DataError(f"{folder.root}: {names} could all be meant by {pattern}; leave one of them there")
        if found:
            return found[0]
    return None


def read_names(path: Path) -> tuple[str, ...]:
    """Gives the clips that a csv file lists in its column name, in its order.

    Raises:
        DataError: If a name is empty or listed twice.
    """
    return tuple(name for _, (name,) in _unique(path, read_columns(path, ("name",))))


def read_labels(path: Path, labels: Collection[str], *, column: str = "discrete") -> dict[str, str]:
    """Gives clip to label of a track csv, or of a processed label file (*.npz, its train_corpus).

    Args:
        path: The csv file, or the npz.
        labels: The labels there may be; empty allows all.
        column: The column that holds them.

    Raises:
        DataError: If a name is listed twice, or a label is none of those.
    """
    if path.suffix == ".npz":
        corpora = read_label_npz(path)
        if "train_corpus" not in corpora:
            raise DataError(f"{path}: no train_corpus; it holds {', '.join(corpora) or 'nothing'}")
        rows = [
            (f"train_corpus, {name}", name, str(item.get("emo", ""))) for name, item in corpora["train_corpus"].items()
        ]
    else:
        lines = _unique(path, read_columns(path, ("name", column)))
        rows = [(f"line {line}", name, label) for line, (name, label) in lines]
    wrong = [(where, name, label) for where, name, label in rows if not label or (labels and label not in labels)]
    if wrong:
        where, name, label = wrong[0]
        more = f" (and {len(wrong) - 1} more such rows)" if len(wrong) > 1 else ""
        raise DataError(
            f"{path}, {where}: {name} has the label {label!r}{more}; expected one of {', '.join(labels) or 'any word'}"
        )
    return {name: label for _, name, label in rows}


def read_subtitles(path: Path) -> dict[str, dict[str, str]]:
    """Gives clip to text stream to what is said; a language without a text is left out.

    Raises:
        DataError: If the file is malformed or a name is listed twice.
    """
    lines = _unique(path, read_columns(path, ("name", *TEXT_COLUMNS.values())))
    return {
        name: {stream: text for stream, text in zip(TEXT_COLUMNS, texts, strict=True) if text}
        for _, (name, *texts) in lines
    }


def read_group_columns(path: Path) -> dict[str, dict[str, str]]:
    """Gives clip to further groups: a column name, and one column a group; empty cells are left out.

    Raises:
        DataError: If there is no group column, or a name is listed twice.
    """
    lines = read_csv_lines(path)
    header = lines[0][1] if lines else []
    groups = [name for name in header if name not in ("name", "clip")]
    if "name" not in header or not groups:
        raise DataError(
            f"{path}: need a column name and one column a group, the columns are {', '.join(header) or 'none'}"
        )
    rows = _unique(path, read_columns(path, ("name", *groups)))
    return {
        name: {group: cell for group, cell in zip(groups, cells, strict=True) if cell} for _, (name, *cells) in rows
    }


def media_of(folder: MerFolder, names: Sequence[str]) -> dict[str, dict[str, Media | str]]:
    """Gives every clip's media by stream name; clips without any have an empty mapping.

    Pre-extracted features are streams named features/<folder>. Folders are listed once, so that 132,171 clips take
    seconds.

    Raises:
        DataError: If the subtitles are malformed.
    """
    wanted = set(names)
    found: dict[str, dict[str, Media | str]] = {name: {} for name in names}
    for stream, (place, endings) in MEDIA_FOLDERS.items():
        for name, path in _files(folder.root / place, endings).items():
            if name in wanted:
                found[name][stream] = Media(path=path)
    for stream, places in FACE_FOLDERS.items():
        for place in places:
            base = folder.root if place == "openface_face" else folder.faces
            there = _names_in(base / place) & wanted
            for name in sorted(there):
                path = base / place / name / f"{name}.npy"
                if stream not in found[name] and path.is_file():
                    found[name][stream] = Media(path=path)
    subtitles = folder.root / SUBTITLES
    for name, texts in (read_subtitles(subtitles) if subtitles.is_file() else {}).items():
        if name in wanted:
            found[name].update(texts)
    for place in feature_folders(folder):
        for name, path in _files(folder.features / place, (".npy",)).items():
            if name in wanted:
                found[name][FEATURE_PREFIX + place] = Media(path=path)
    return found


def read_clips(
    folder: MerFolder, names: Sequence[str], groups: Mapping[str, Mapping[str, str]]
) -> tuple[list[Clip], list[str]]:
    """Gives the clips that have any medium, and the names of those that have none.

    Args:
        folder: The data set.
        names: Clips that are wanted, in order.
        groups: Clip to its groups, beside {"clip": name}.

    Raises:
        DataError: As media_of does; or if no clip has any medium.
    """
    media = media_of(folder, names)
    clips = [
        Clip(clip_id=name, dataset=DATASET, media=media[name], groups={"clip": name, **groups.get(name, {})})
        for name in names
        if media[name]
    ]
    if names and not clips:
        raise DataError(
            f"{folder.root}: none of the {len(names)} clips has a file in video/, audio/, openface_face/ or features/, "
            f"or a line in {SUBTITLES}{archive_hint(folder)}"
        )
    return clips, [name for name in names if not media[name]]


def feature_folders(folder: MerFolder) -> list[str]:
    """Gives the names of the folders of pre-extracted features, sorted."""
    return sorted(path.name for path in folder.features.iterdir() if path.is_dir()) if folder.features.is_dir() else []


def archives(folder: MerFolder) -> list[Path]:
    """Gives archives beside the data and one level below that nobody has extracted yet."""
    below = [path for path in sorted(folder.root.iterdir()) if path.is_dir()] if folder.root.is_dir() else []
    places = [place for place, _ in MEDIA_FOLDERS.values()] + [
        name for names in FACE_FOLDERS.values() for name in names
    ]
    return archives_in([folder.root, *(path for path in below if path.name in places), folder.features])


def archive_hint(folder: MerFolder) -> str:
    """Says that archives wait to be extracted; "" where there are none."""
    found = archives(folder)
    return f"; extract {', '.join(path.name for path in found[:3])} first" if found else ""


def _unique(path: Path, rows: list[tuple[int, tuple[str, ...]]]) -> list[tuple[int, tuple[str, ...]]]:
    first: dict[str, int] = {}
    for line, (name, *_) in rows:
        if not name:
            raise DataError(f"{path}, line {line}: the name is empty")
        if name in first:
            raise DataError(
                f"{path}, line {line}: {name} is listed on line {first[name]} already; need every name once"
            )
        first[name] = line
    return rows


def _names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _files(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    """Gives name to file; of two files of one name that with the earlier ending."""
    if not folder.is_dir():
        return {}
    found: dict[str, Path] = {}
    rank = {ending: place for place, ending in enumerate(endings)}
    for path in folder.iterdir():
        ending = path.suffix.lower()
        if ending in rank and (path.stem not in found or rank[ending] < rank[found[path.stem].suffix.lower()]):
            found[path.stem] = path
    return found
