"""Reads clips and labels of MER-Cross: the organisers' folder, or own clips through a manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mersuite.clip import Clip, Sample
from mersuite.config import RunConfig
from mersuite.errors import ConfigError, DataError, did_you_mean
from mersuite.formats import mer2026
from mersuite.formats.dialogue import is_dialogues
from mersuite.formats.manifest import read_manifest
from mersuite.track import TrackData
from tracks.cross.dialogue import read_dialogue_data
from tracks.cross.head import TARGET
from tracks.cross.roles import OTHER, OWN, ROLE, assign, check_parts, notes_of, sources_of

SPLITS = ("train", "test", "all")
TRAIN_CSV = ("track1_train.csv", "track1_train*.csv", "track1_label_6way.npz")
STREAMS = (
    "video",
    "voice.speaker",
    "face.speaker",
    "face.listener",
    *mer2026.TEXT_COLUMNS,
    f"{mer2026.FEATURE_PREFIX}*",
)
"""Media streams; each folder of pre-extracted features is one."""


def read_cross(config: RunConfig, split: str) -> TrackData:
    """Reads clips and samples of a split; of media only names.

    A sample is a clip: its groups are clip and role (own: the labelled person speaks, other: listens) and those of
    data.groups; its target is {"emotion": the label's name} for training rows.

    Args:
        config: data.*, features, model.encoders and cross.* are read.
        split: "train", "test" (the candidates) or "all".

    Raises:
        ConfigError: If the split is unknown, or cross.own or cross.other name streams that nothing writes.
        DataError: If files are missing, malformed or contradict each other.
    """
    if split not in SPLITS:
        raise ConfigError(f"split={split!r}: {did_you_mean(split, SPLITS)}")
    check_parts(config)
    if config.options.dialogue is not None or (config.data.manifest and is_dialogues(config.data.manifest)):
        return read_dialogue_data(config, split)
    if config.data.manifest is not None:
        return _read_manifest(config, config.data.place, split)
    folder = mer2026.open_folder(config.data.place, features=config.data.features, faces=config.data.faces)
    if split == "all":
        return _joined([_read_train(config, folder), _read_candidates(config, folder)])
    return _read_train(config, folder) if split == "train" else _read_candidates(config, folder)


def _read_train(config: RunConfig, folder: mer2026.MerFolder) -> TrackData:
    path = mer2026.find_csv(folder, TRAIN_CSV)
    if path is None:
        raise DataError(
            f"{folder.root}: no {TRAIN_CSV[0]} (name,discrete) and no {TRAIN_CSV[-1]}{mer2026.archive_hint(folder)}"
        )
    labels = mer2026.read_labels(path, config.options.labels)
    clips, lost = mer2026.read_clips(folder, tuple(labels), _groups(config))
    notes = [f"training: {len(clips)} clips of {path.name}; {_shares(labels.values())}"]
    if lost:
        _refuse_lost(config, path, lost, len(labels))
        notes.append(f"{len(lost)} of {len(labels)} training clips have no medium and were left out")
    return _data(config, clips, dict.fromkeys(labels, OWN), labels, notes)


def _read_candidates(config: RunConfig, folder: mer2026.MerFolder) -> TrackData:
    path = mer2026.find_csv(folder, mer2026.CANDIDATES)
    if path is None:
        raise DataError(f"{folder.root}: no {mer2026.CANDIDATES[0]} (name){mer2026.archive_hint(folder)}")
    names = mer2026.read_names(path)
    clips, lost = mer2026.read_clips(folder, names, _groups(config))
    if lost:
        raise DataError(
            f"{path}: {len(lost)} of {len(names)} candidates have no medium: {_first(lost)}; a submission needs every "
            "candidate: add their files"
        )
    return _data(config, clips, dict.fromkeys(names, OTHER), {}, [f"candidates: {len(clips)} clips"], row_ids=names)


def _groups(config: RunConfig) -> dict[str, dict[str, str]]:
    """Gives clip to its further groups. Candidates have them too: those of a held-out dialogue stay out of training."""
    return {} if config.data.groups is None else mer2026.read_group_columns(config.data.groups)


def _read_manifest(config: RunConfig, path: Path, split: str) -> TrackData:
    """Reads own clips: the streams as columns, target.emotion, and group.role (own or other; own where it is empty)."""
    rows = read_manifest(path, STREAMS, label_names=(TARGET,))
    chosen = [row for row in rows if split in ("all", row.split)]
    if not chosen:
        raise DataError(f"{path}: no row of split {split!r}; fill it in in the column 'split'")
    clips, roles, labels = [], {}, {}
    for row in chosen:
        where = f"{path}, line {row.line}"
        role = row.groups.get(ROLE, OWN)
        if role not in (OWN, OTHER):
            raise DataError(
                f"{where}: group.role is {role!r}; need own (the labelled person speaks) or other (listens)"
            )
        label = row.labels.get(TARGET, "")
        if label and config.options.labels and label not in config.options.labels:
            raise DataError(
                f"{where}: target.emotion is {label!r}; expected one of {', '.join(config.options.labels)}, or set "
                "cross.labels=[] to take the labels of the file"
            )
        groups = {"clip": row.clip_id, **{name: member for name, member in row.groups.items() if name != ROLE}}
        clips.append(Clip(clip_id=row.clip_id, dataset="own_clips", media=row.media, groups=groups))
        roles[row.clip_id] = role
        if label:
            labels[row.clip_id] = label
    notes = [f"own clips ({split}): {len(clips)}, {len(labels)} labelled; {_shares(labels.values())}"]
    return _data(config, clips, roles, labels, notes)


def _data(
    config: RunConfig,
    clips: Sequence[Clip],
    roles: Mapping[str, str],
    labels: Mapping[str, str],
    notes: Sequence[str],
    row_ids: tuple[str, ...] = (),
) -> TrackData:
    made = sources_of(config)
    samples = tuple(
        Sample(
            sample_id=clip.clip_id,
            clip_id=clip.clip_id,
            groups={**clip.groups, ROLE: roles[clip.clip_id]},
            streams=assign(config, clip, roles[clip.clip_id], made),
            target={TARGET: np.asarray(labels[clip.clip_id])} if clip.clip_id in labels else {},
        )
        for clip in clips
    )
    every = (*notes, *notes_of(config, samples))
    return TrackData(clips=tuple(clips), samples=samples, notes=every, row_ids=row_ids)


def _joined(parts: Sequence[TrackData]) -> TrackData:
    clips = {clip.clip_id: clip for part in parts for clip in part.clips}
    samples = [sample for part in parts for sample in part.samples]
    twice = [name for name, count in Counter(sample.sample_id for sample in samples).items() if count > 1]
    if twice:
        raise DataError(f"{len(twice)} clips are both training clips and candidates: {_first(twice)}")
    notes = tuple(note for part in parts for note in part.notes)
    row_ids = tuple(name for part in parts for name in part.row_ids)
    return TrackData(clips=tuple(clips.values()), samples=tuple(samples), notes=notes, row_ids=row_ids)


def _refuse_lost(config: RunConfig, path: Path, lost: Sequence[str], num_listed: int) -> None:
    if not config.data.skip_missing:
        raise DataError(
            f"{path}: {len(lost)} of {num_listed} clips ({100 * len(lost) / num_listed:.1f} %) have no medium: "
            f"{_first(lost)}; add their files, or leave them out with data.skip_missing=true"
        )


def _shares(labels: Iterable[str]) -> str:
    counts = Counter(labels)
    return ", ".join(f"{label} {count}" for label, count in counts.most_common()) or "no labels"


def _first(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
