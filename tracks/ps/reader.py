"""Reads MER-PS folders: training subjects test_<n> with ratings, leaderboard subjects predict<n>."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mersuite.clip import Clip, Media, Sample
from mersuite.errors import ConfigError, DataError, did_you_mean
from mersuite.formats.manifest import ManifestRow, read_manifest, read_target_csv
from mersuite.media.csv_lines import read_columns
from mersuite.media.physio import mat_shapes, read_mat_array, recording_length_s
from mersuite.track import TrackData
from tracks.ps import layout
from tracks.ps.layout import LABEL_MAX, LABEL_MIN
from tracks.ps.rates import TRIAL_TOLERANCE_S

TARGET = "valence_arousal"
"""Name of the target: (second, 2) float32, column 0 valence, 1 arousal, raw scale 1..255."""
SPLITS = ("train", "test", "all")


def read_ps(root: Path, split: str) -> TrackData:
    """Reads the clips and samples of a MER-PS folder; of signals only file headers are read.

    A sample is a trial: sample_id and clip_id are "test_3/video_07", groups are subject and clip, the target is
    {"valence_arousal": (second, 2) float32} where ratings are known, and duration_s is the number of rated seconds.
    Streams are "eeg", "eeg_baseline", "fnirs", "fnirs_baseline", "fnirs_reservations"; those whose files are missing
    from every subject are left out and noted.

    Args:
        root: The folder with data/, annotations/ and, for the leaderboard, sample_ids.csv and targets.csv.
        split: "train" for test_<n>, "test" for predict<n>, "all" for both.

    Raises:
        ConfigError: If the split is unknown.
        DataError: If files are missing, malformed or contradict each other; the message names file and variable.
    """
    root = Path(root)
    if split not in SPLITS:
        raise ConfigError(f"split={split!r}: {did_you_mean(split, SPLITS)}")
    if split == "all":
        kinds = [
            kind for kind, prefix in (("train", "test_"), ("test", "predict")) if layout.find_subjects(root, prefix)
        ]
        parts = [read_ps(root, kind) for kind in kinds or ["train"]]
    else:
        parts = [_read_train(root) if split == "train" else _read_test(root)]
    notes = [note for part in parts for note in part.notes]
    archives = layout.find_archives(root)
    if archives:
        names = ", ".join(str(path.relative_to(root)) for path in archives)
        notes.append(f"archives beside the data, not read: {names}; extract them if something is missing")
    return TrackData(
        clips=tuple(clip for part in parts for clip in part.clips),
        samples=tuple(sample for part in parts for sample in part.samples),
        notes=tuple(notes),
        row_ids=parts[0].row_ids if len(parts) == 1 else (),
    )


def _read_train(root: Path) -> TrackData:
    subjects = layout.find_subjects(root, "test_")
    if not subjects:
        raise DataError(f"data.root={root}: no training subject; expected folders data/test_<n>{_archive_hint(root)}")
    headers = layout.read_headers(root, subjects)
    clips: list[Clip] = []
    samples: list[Sample] = []
    for subject in subjects:
        path = root / "annotations" / f"{subject}_label.mat"
        if not path.is_file():
            raise DataError(f"{path}: no such file; every training subject needs its ratings{_archive_hint(root)}")
        labels = read_labels(path)
        lengths = {video: len(ratings) for video, ratings in labels.items()}
        found, _ = layout.subject_clips(root, subject, headers[subject], lengths)
        clips += found
        samples += [_rated_sample(clip, labels[layout.number_of(clip)]) for clip in found]
    notes = (_count_note("training", clips, samples), *_rate_notes(clips))
    return TrackData(clips=tuple(clips), samples=tuple(samples), notes=notes)


def _read_test(root: Path) -> TrackData:
    ids_path, targets_path = root / "sample_ids.csv", root / "targets.csv"
    asked = layout.read_row_ids(ids_path) if ids_path.is_file() else ()
    targets = read_targets(targets_path) if targets_path.is_file() else {}
    if not asked:
        asked = tuple(layout.row_id(sample_id, second) for sample_id, rows in targets.items() for second in rows)
    ids = layout.seconds_of(asked) or None
    clips, bare = layout.read_inputs(root, ids)
    notes: list[str] = []
    if ids is not None:
        _check_same_ids(targets_path, targets, ids)
    samples = [_with_target(root, sample, targets.get(sample.sample_id), notes) for sample in bare]
    if ids is None:
        notes.append(f"{ids_path.name} is not there: every second of every leaderboard trial is predicted")
    left_out = set(layout.find_subjects(root, "predict")) - {sample.groups["subject"] for sample in samples}
    if left_out:
        notes.append(f"leaderboard subjects without a row in {ids_path.name}, left out: {', '.join(sorted(left_out))}")
    first = (_count_note("leaderboard", clips, samples), *_rate_notes(clips))
    every = tuple(
        layout.row_id(item.sample_id, second) for item in samples for second in range(int(item.duration_s or 0))
    )
    row_ids = () if asked == every else asked
    return TrackData(clips=tuple(clips), samples=tuple(samples), notes=(*first, *notes), row_ids=row_ids)


def read_ps_manifest(path: Path, split: str) -> TrackData:
    """Reads own recordings from a manifest csv (columns: mersuite/formats/manifest.py); of recordings only headers.

    The truth comes from a `target` csv (columns second, valence, arousal) or, for one rating a clip, from
    `target.valence` and `target.arousal`, on the scale 1 to 255. Rows without truth can be predicted. A row without
    `clip` is a stimulus of its own.

    Args:
        path: The manifest.
        split: "train", "test" or "all"; without a split column every row is train.

    Raises:
        ConfigError: If the split is unknown.
        DataError: If a row or its files are at fault, ratings are off the scale, or a recording is shorter than
            its ratings.
    """
    if split not in SPLITS:
        raise ConfigError(f"split={split!r}: {did_you_mean(split, SPLITS)}")
    rows = read_manifest(path, layout.STREAMS)
    chosen = [row for row in rows if split in ("all", row.split)]
    if not chosen:
        raise DataError(f"{path}: no row of split {split!r}; fill it in in the column 'split'")
    clips, samples = zip(*(manifest_trial(path, row) for row in chosen), strict=True)
    rated = sum(bool(sample.target) for sample in samples)
    note = _count_note(f"own recordings ({split})", clips, samples)
    sources = Counter(row.target_source for row in chosen if row.target_source and (row.targets or row.target_path))
    caveat = "targets: " + ", ".join(f"{source} ({count})" for source, count in sources.items()) if sources else ""
    return TrackData(clips=clips, samples=samples, notes=(f"{note}; {rated} of {len(samples)} rated",), caveat=caveat)


def read_targets(path: Path) -> dict[str, dict[int, tuple[int, int]]]:
    """Gives the leaderboard's ratings: trial id -> second -> (valence, arousal).

    Raises:
        DataError: If a column is missing, an id is malformed or listed twice, or a rating is out of range.
    """
    found: dict[str, dict[int, tuple[int, int]]] = {}
    for line, (text, *cells) in read_columns(path, ("sample_id", "valence", "arousal")):
        sample_id, second = layout.split_row_id(text)
        try:
            pair = [float(cell) for cell in cells]
        except ValueError:
            pair = [float("nan")]
        if not all(LABEL_MIN <= value <= LABEL_MAX and value == round(value) for value in pair):
            raise DataError(f"{path}, line {line}: ratings must be integers from 1 to 255, got {', '.join(cells)}")
        rows = found.setdefault(sample_id, {})
        if second in rows:
            raise DataError(f"{path}, line {line}: {text} is listed twice, need once")
        rows[second] = (int(pair[0]), int(pair[1]))
    return found


def orient_labels(array: np.ndarray, name: str) -> np.ndarray:
    """Gives ratings as (second, 2) float32, column 0 valence, from either orientation.

    Raises:
        DataError: If neither axis or both have length 2, or values are not integers from 1 to 255.
    """
    axes = [axis for axis, length in enumerate(array.shape) if length == 2]
    if array.ndim != 2 or len(axes) != 1 or not array.size:
        found = "both could be" if len(axes) > 1 else "there is no such axis"
        raise DataError(f"{name}: need one axis of length 2 (valence, arousal), got shape {array.shape}: {found}")
    ratings = np.asarray(array if axes[0] == 1 else array.T, dtype=np.float64)
    wrong = ~((ratings >= LABEL_MIN) & (ratings <= LABEL_MAX) & (ratings == np.round(ratings)))
    if wrong.any():
        second, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{name}: ratings must be integers from {LABEL_MIN} to {LABEL_MAX}, got {ratings[second, column]:g}"
            f" ({('valence', 'arousal')[column]}, second {second}; {int(wrong.sum())} such values)"
        )
    return ratings.astype(np.float32)


def read_labels(path: Path) -> dict[int, np.ndarray]:
    """Gives video number to ratings (second, 2) float32 of one annotation file.

    Raises:
        DataError: As read_mat_array and orient_labels do.
    """
    shapes = mat_shapes(path)
    if not shapes:
        raise DataError(f"{path}: no trial: the file holds no variable video_1, video_2, ...")
    return {
        layout.video_number(path, key): orient_labels(read_mat_array(path, key), f"{path}: {key}") for key in shapes
    }


def manifest_trial(path: Path, row: ManifestRow) -> tuple[Clip, Sample]:
    """Gives clip and sample of one manifest row; headers of its recordings are read.

    Raises:
        DataError: As read_ps_manifest does.
    """
    where = f"{path}, line {row.line}"
    if "subject" not in row.groups:
        raise DataError(f"{where}: no subject; fill in the column 'subject', splits go by it")
    groups = {"clip": row.clip_id, **row.groups}
    media = {name: medium for name, medium in row.media.items() if isinstance(medium, Media)}
    trials = {name: medium for name, medium in media.items() if name in ("eeg", "fnirs")}
    if not trials:
        raise DataError(f"{where}: need a recording in the column eeg or fnirs, got {', '.join(media)}")
    if "fnirs_reservations" in media:
        media["fnirs_reservations"] = replace(media["fnirs_reservations"], key=groups["subject"])
    length_s = min(recording_length_s(medium) for medium in trials.values())
    if length_s < 1.0:
        raise DataError(f"{where}: the recording has {length_s:.2f} s, need 1 s or more")
    ratings = _manifest_ratings(where, row, int(length_s + 0.05))
    if ratings is not None and len(ratings) > length_s + TRIAL_TOLERANCE_S:
        raise DataError(f"{where}: {len(ratings)} rated seconds, but the recording has {length_s:.2f} s")
    sample = Sample(
        sample_id=row.clip_id,
        clip_id=row.clip_id,
        groups=groups,
        duration_s=float(int(length_s + 0.05) if ratings is None else len(ratings)),
        target={} if ratings is None else {TARGET: ratings},
    )
    return Clip(clip_id=row.clip_id, dataset="recordings", media=media, groups=groups), sample


def _manifest_ratings(where: str, row: ManifestRow, num_seconds: int) -> np.ndarray | None:
    names = ("valence", "arousal")
    if row.target_path is not None:
        ratings = read_target_csv(row.target_path, names)
    elif row.targets:
        missing = [name for name in names if name not in row.targets]
        if missing:
            raise DataError(f"{where}: target.{missing[0]} is missing; give target.valence and target.arousal")
        ratings = np.tile(np.array([[row.targets[name] for name in names]], np.float32), (num_seconds, 1))
    else:
        return None
    if not ((ratings >= LABEL_MIN) & (ratings <= LABEL_MAX)).all():
        found = f"{ratings.min():g} to {ratings.max():g}"
        raise DataError(f"{where}: ratings go from {found}; rescale them to {LABEL_MIN} to {LABEL_MAX}")
    return ratings


def _rated_sample(clip: Clip, ratings: np.ndarray) -> Sample:
    return Sample(
        sample_id=clip.clip_id,
        clip_id=clip.clip_id,
        groups=clip.groups,
        duration_s=float(len(ratings)),
        target={TARGET: ratings},
    )


def _with_target(root: Path, sample: Sample, rows: Mapping[int, tuple[int, int]] | None, notes: list[str]) -> Sample:
    """Fills in the ratings of a leaderboard trial from targets.csv, else from its annotation file."""
    length = int(sample.duration_s or 0)
    if rows is not None and len(rows) == length:
        ratings = np.array([rows[second] for second in range(length)], dtype=np.float32)
        return replace(sample, target={TARGET: ratings})
    path = root / "annotations" / f"{sample.groups['subject']}_label.mat"
    if path.is_file():
        key = f"video_{layout.number_of(sample)}"
        ratings = orient_labels(read_mat_array(path, key), f"{path}: {key}")
        if len(ratings) < length:
            raise DataError(f"{path}: {key}: {len(ratings)} rated seconds, but the ids ask for {length}")
        return replace(sample, target={TARGET: ratings[:length]})
    if rows is not None:
        notes.append(
            f"targets.csv holds {len(rows)} of {length} seconds of {sample.sample_id}: read without its target"
        )
    return sample


def _check_same_ids(
    path: Path, targets: Mapping[str, Mapping[int, tuple[int, int]]], ids: Mapping[str, Sequence[int]]
) -> None:
    for sample_id, rows in targets.items():
        extra = sorted(set(rows) - set(ids.get(sample_id, ())))
        if extra:
            raise DataError(f"{path}: {layout.row_id(sample_id, extra[0])} is not listed in sample_ids.csv")


def _count_note(kind: str, clips: Sequence[Clip], samples: Sequence[Sample]) -> str:
    subjects = len({clip.groups["subject"] for clip in clips})
    seconds = int(sum(sample.duration_s or 0.0 for sample in samples))
    streams = dict.fromkeys(stream for clip in clips for stream in clip.media)
    missing = [stream for stream in layout.STREAMS if stream not in streams]
    absent = f"; not there: {', '.join(missing)}" if missing else ""
    return f"{kind}: {subjects} subjects, {len(clips)} trials, {seconds} seconds; streams: {', '.join(streams)}{absent}"


def _rate_notes(clips: Sequence[Clip]) -> list[str]:
    """One note for each kind of signal that not all subjects have at the same rate."""
    notes = []
    for stream in ("eeg", "fnirs"):
        media = [clip.media[stream] for clip in clips if stream in clip.media]
        found = sorted({medium.rate_hz for medium in media if isinstance(medium, Media) and medium.rate_hz})
        if len(found) > 1:
            notes.append(f"{stream} sampling rates differ: {', '.join(f'{rate:g} Hz' for rate in found)}")
    return notes


def _archive_hint(root: Path) -> str:
    archives = layout.find_archives(root)
    return f"; not extracted yet: {', '.join(path.name for path in archives)}" if archives else ""
