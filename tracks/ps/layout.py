"""How MER-PS lies on disk: names, shapes, rates, row ids; everything that reading without labels needs.

The code submission carries this file, so it uses numpy, scipy and the standard library only. Facts and their sources:
tracks/ps/README.md.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mersuite.clip import Clip, Media, Sample
from mersuite.errors import DataError
from mersuite.media.archives import archives_in
from mersuite.media.csv_lines import read_columns
from mersuite.media.physio import mat_shapes
from tracks.ps.rates import SignalFile, find_rate

DATASET = "mer_ps"
LABEL_MIN, LABEL_MAX, LABEL_CENTRE = 1, 255, 128
# fmt: off
EEG_CH_NAMES: tuple[str, ...] = (
    "FP1", "FPZ", "FP2", "AF3", "AF4", "F7", "F5", "F3", "F1", "FZ", "F2", "F4", "F6", "F8", "FT7", "FC5", "FC3",
    "FC1", "FCZ", "FC2", "FC4", "FC6", "FT8", "T7", "C5", "C3", "C1", "CZ", "C2", "C4", "C6", "T8", "M1", "TP7",
    "CP5", "CP3", "CP1", "CPZ", "CP2", "CP4", "CP6", "TP8", "M2", "P7", "P5", "P3", "P1", "PZ", "P2", "P4", "P6",
    "P8", "PO7", "PO5", "PO3", "POZ", "PO4", "PO6", "PO8", "CB1", "O1", "OZ", "O2", "CB2",
)
# fmt: on
NUM_FNIRS_CHANNELS = 51
FNIRS_KINDS = ("hbo", "hbr", "hbt", "780", "805", "830")
FNIRS_CH_NAMES: tuple[str, ...] = tuple(
    f"ch-{channel} {kind}" for kind in FNIRS_KINDS for channel in range(1, NUM_FNIRS_CHANNELS + 1)
)
_FNIRS_MNE_TYPES = {"hbo": "hbo", "hbr": "hbr", "hbt": "misc"}
FNIRS_CH_TYPES: tuple[str, ...] = tuple(_FNIRS_MNE_TYPES.get(name.split()[1], "fnirs_od") for name in FNIRS_CH_NAMES)
STREAM_FILES = {
    "eeg": "EEG_videos.mat",
    "eeg_baseline": "EEG_baselines.mat",
    "fnirs": "fNIRS_videos.mat",
    "fnirs_baseline": "fNIRS_baselines.mat",
}
STREAMS = (*STREAM_FILES, "fnirs_reservations")
RESERVATIONS_FILE = "fNIRS_reservations.csv"
_KEY = re.compile(r"video_(\d+)")
_ROW = re.compile(r"(?P<subject>.+)_V(?P<video>\d{2,})_T(?P<second>\d{3,})")
_SAMPLE = re.compile(r"(?P<subject>[^/]+)/video_(?P<video>\d{2,})")
_SUBJECT = re.compile(r"(test_|predict)(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubjectFacts:
    """What the file headers of one subject tell.

    Attributes:
        seconds: Video number to seconds that are rated or, without ratings, recorded.
        rates_hz: "eeg" and "fnirs" to the sampling rate found; 0.0 where nothing tells.
        faults: One message each.
    """

    seconds: Mapping[int, int]
    rates_hz: Mapping[str, float]
    faults: tuple[str, ...]


def sample_id_of(subject: str, video: int) -> str:
    """Gives the id of a trial.

    >>> sample_id_of("test_3", 7)
    'test_3/video_07'
    """
    return f"{subject}/video_{video:02d}"


def split_sample_id(sample_id: str) -> tuple[str, int]:
    """Gives subject and video number of a trial's id.

    Raises:
        DataError: If it is no such id.
    """
    match = _SAMPLE.fullmatch(sample_id)
    if match is None:
        raise DataError(f"sample id {sample_id!r}: expected <subject>/video_<2 digits>, e.g. predict1/video_01")
    return match["subject"], int(match["video"])


def row_id(sample_id: str, second: int) -> str:
    """Gives the organisers' id of one second of a trial; trials with names of other kinds keep theirs.

    >>> row_id("predict1/video_01", 0), row_id("anna, rest", 12)
    ('predict1_V01_T000', 'anna, rest_T012')
    """
    match = _SAMPLE.fullmatch(sample_id)
    if match is None:
        return f"{sample_id}_T{second:03d}"
    subject, video = match["subject"], int(match["video"])
    return f"{subject}_V{video:02d}_T{second:03d}"


def split_row_id(text: str) -> tuple[str, int]:
    """Gives the trial's id and the second of a row; the inverse of row_id.

    Raises:
        DataError: If it is no such id.

    >>> split_row_id("predict1_V01_T000")
    ('predict1/video_01', 0)
    """
    match = _ROW.fullmatch(text)
    if match is None:
        raise DataError(f"row id {text!r}: expected <subject>_V<2 digits>_T<3 digits>, e.g. predict1_V01_T000")
    return sample_id_of(match["subject"], int(match["video"])), int(match["second"])


def read_row_ids(path: Path) -> tuple[str, ...]:
    """Gives the ids of the rows that must be predicted, in the file's order.

    Raises:
        DataError: If the file or its column is missing, or an id is malformed or listed twice.
    """
    names = []
    for line, (text,) in read_columns(path, ("sample_id",)):
        try:
            split_row_id(text)
        except DataError as error:
            raise DataError(f"{path}, line {line}: {error}") from error
        names.append(text)
    counts = Counter(split_row_id(name) for name in names)
    twice = [name for name in names if counts[split_row_id(name)] > 1]
    if twice:
        raise DataError(f"{path}: {twice[0]} is listed {counts[split_row_id(twice[0])]} times, need once")
    return tuple(names)


def seconds_of(row_ids: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Gives trial id to its seconds, both in the order of the rows.

    >>> seconds_of(["predict1_V02_T001", "predict1_V01_T000", "predict1_V02_T000"])
    {'predict1/video_02': (1, 0), 'predict1/video_01': (0,)}
    """
    rows: dict[str, list[int]] = {}
    for name in row_ids:
        sample_id, second = split_row_id(name)
        rows.setdefault(sample_id, []).append(second)
    return {sample_id: tuple(seconds) for sample_id, seconds in rows.items()}


def read_sample_ids(path: Path) -> dict[str, tuple[int, ...]]:
    """Gives the rows that must be predicted: trial id to its seconds, both in the file's order.

    Raises:
        DataError: As read_row_ids does.
    """
    return seconds_of(read_row_ids(path))


def find_archives(root: Path) -> list[Path]:
    """Gives archives in the folder and in its data/ and annotations/ that nobody has extracted yet."""
    return archives_in((root, root / "data", root / "annotations"))


def find_subjects(root: Path, kind: str) -> list[str]:
    """Gives the subjects of one kind that have a folder, in numeric order.

    Args:
        root: The data folder, which holds data/.
        kind: "test_" for training subjects, "predict" for leaderboard subjects, as the organisers name them.

    Raises:
        DataError: If there is no data/ folder; archives waiting to be extracted are named.
    """
    if not root.is_dir():
        raise DataError(f"data.root={root}: no such folder")
    data = root / "data"
    if not data.is_dir():
        archives = find_archives(root)
        if archives:
            listed = ", ".join(path.name for path in archives)
            raise DataError(
                f"data.root={root}: no data/ folder, but archives that are not extracted: {listed}; extract them"
            )
        inner = sorted(path.parent.name for path in root.glob("*/data"))
        hint = f"; did you mean data.root={root / inner[0]}?" if inner else ""
        raise DataError(f"data.root={root}: no data/ folder with data/test_<n>/EEG_videos.mat{hint}")
    names = [path.name for path in data.iterdir() if path.is_dir()]
    matches = [match for name in names if (match := _SUBJECT.fullmatch(name))]
    return [match[0] for match in sorted(matches, key=lambda match: int(match[2])) if match[1] == kind]


def read_headers(root: Path, subjects: Iterable[str]) -> dict[str, dict[str, SignalFile]]:
    """Gives subject -> stream -> file with the shapes of its variables, for the files that exist.

    Raises:
        DataError: If a file is unreadable; if a subject has neither EEG nor fNIRS, or lacks a file that others have.
    """
    found: dict[str, dict[str, SignalFile]] = {}
    for subject in subjects:
        paths = {stream: root / "data" / subject / name for stream, name in STREAM_FILES.items()}
        found[subject] = {s: SignalFile(path, mat_shapes(path)) for s, path in paths.items() if path.is_file()}
        if not {"eeg", "fnirs"} & found[subject].keys():
            raise DataError(
                f"{root / 'data' / subject}: no trial: neither EEG_videos.mat nor fNIRS_videos.mat is there"
            )
    for stream in STREAM_FILES:
        lacking = [subject for subject in found if stream not in found[subject]]
        if lacking and len(lacking) < len(found):
            path = root / "data" / lacking[0] / STREAM_FILES[stream]
            raise DataError(f"{path}: no such file, though {len(found) - len(lacking)} other subjects have it; copy it")
    return found


def subject_clips(
    root: Path, subject: str, files: Mapping[str, SignalFile], seconds: Mapping[int, int] | None
) -> tuple[list[Clip], dict[int, int]]:
    """Gives the clips of one subject with rates found and checked, and the seconds of each.

    Args:
        root: The data folder.
        subject: Its folder's name.
        files: What read_headers gave for it.
        seconds: Video number to labelled seconds; None where no label and no list of ids tells, then the signals do.

    Raises:
        DataError: If a trial is missing from a file, a shape is wrong, or rates contradict each other.
    """
    facts = inspect_subject(files, seconds)
    if facts.faults:
        more = f" ({len(facts.faults) - 1} more faults; `mersuite check` lists all)" if len(facts.faults) > 1 else ""
        raise DataError(facts.faults[0] + more)
    if not facts.seconds:
        raise DataError(f"{root / 'data' / subject}: no trial: the files hold no variable video_1, video_2, ...")
    reservations = root / RESERVATIONS_FILE
    clips = []
    for video in sorted(facts.seconds):
        media = {s: _media(s, file.path, video, facts.rates_hz[_trial_of(s)]) for s, file in files.items()}
        if "fnirs" in media and reservations.is_file():
            media["fnirs_reservations"] = Media(path=reservations, key=subject)
        groups = {"subject": subject, "clip": f"video_{video:02d}"}
        clips.append(Clip(clip_id=sample_id_of(subject, video), dataset=DATASET, media=media, groups=groups))
    return clips, dict(facts.seconds)


def inspect_subject(files: Mapping[str, SignalFile], seconds: Mapping[int, int] | None) -> SubjectFacts:
    """Finds rates and lengths of one subject and collects every fault instead of raising; see subject_clips."""
    faults: list[str] = []
    trials = [stream for stream in files if _trial_of(stream) == stream]
    lengths = {stream: _lengths(file, stream, faults) for stream, file in files.items()}
    videos = sorted({video for stream in trials for video in lengths[stream]} if seconds is None else seconds)
    for file in files.values():
        there = ", ".join(file.shapes) or "none"
        faults += [
            f"{file.path}: no variable 'video_{video}'; the variables that are there: {there}"
            for video in videos
            if f"video_{video}" not in file.shapes
        ]
    rates = {stream: find_rate(stream, files, lengths, seconds, faults) for stream in trials}
    if seconds is None:
        # Why 0.05: 1000/21 Hz does not divide a second, so the last one may lack a fraction of a sample.
        spans = {v: [lengths[s][v] / rates[s] for s in trials if rates[s] and v in lengths[s]] for v in videos}
        seconds = {video: int(min(span) + 0.05) for video, span in spans.items() if span}
    return SubjectFacts(seconds=seconds, rates_hz=rates, faults=tuple(faults))


def read_inputs(root: Path, ids: Mapping[str, Sequence[int]] | None) -> tuple[list[Clip], list[Sample]]:
    """Gives clips and samples of the leaderboard subjects, without any target.

    Args:
        root: The folder with data/<subject>/.
        ids: Rows to predict as read_sample_ids gives them; None to predict every second of every trial.

    Raises:
        DataError: If files are missing or contradict each other, or an id is of an unknown subject or clip.
    """
    subjects = _known_subjects(root, ids)
    headers = read_headers(root, subjects)
    clips: list[Clip] = []
    samples: list[Sample] = []
    for subject in subjects:
        wanted = None if ids is None else _wanted_seconds(subject, ids)
        found, seconds = subject_clips(root, subject, headers[subject], wanted)
        clips += found
        samples += [
            Sample(sample_id=c.clip_id, clip_id=c.clip_id, groups=c.groups, duration_s=float(seconds[number_of(c)]))
            for c in found
        ]
    return clips, samples


def number_of(clip: Clip | Sample) -> int:
    """Gives the video number of a clip or sample."""
    return split_sample_id(clip.clip_id)[1]


def video_number(path: Path, key: str) -> int:
    """Gives the number of a variable named video_<n>.

    Raises:
        DataError: If the variable is named otherwise.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        raise DataError(f"{path}: variable {key!r}, expected video_<n>")
    return int(match[1])


def _trial_of(stream: str) -> str:
    return stream.removesuffix("_baseline")


def _lengths(file: SignalFile, stream: str, faults: list[str]) -> dict[int, int]:
    """Video number to samples, of the variables that have the right shape."""
    leading = (len(EEG_CH_NAMES),) if _trial_of(stream) == "eeg" else (len(FNIRS_KINDS), NUM_FNIRS_CHANNELS)
    need = ", ".join(str(length) for length in leading)
    lengths = {}
    for key, shape in file.shapes.items():
        match = _KEY.fullmatch(key)
        if match is None:
            faults.append(f"{file.path}: variable {key!r}, expected video_<n>")
        elif shape[:-1] != leading or shape[-1] == 0:
            faults.append(f"{file.path}: {key}: shape {shape}, expected ({need}, time)")
        else:
            lengths[int(match[1])] = shape[-1]
    return lengths


def _media(stream: str, path: Path, video: int, rate_hz: float) -> Media:
    key = f"video_{video}"
    if stream.startswith("eeg"):
        types = ("eeg",) * len(EEG_CH_NAMES)
        return Media(path=path, key=key, rate_hz=rate_hz, ch_names=EEG_CH_NAMES, ch_types=types, unit="V")
    return Media(path=path, key=key, rate_hz=rate_hz, ch_names=FNIRS_CH_NAMES, ch_types=FNIRS_CH_TYPES)


def _known_subjects(root: Path, ids: Mapping[str, Sequence[int]] | None) -> list[str]:
    """Gives the subjects to predict: those of the ids, whatever they are called, else every predict<n>."""
    subjects = find_subjects(root, "predict")
    listed = dict.fromkeys(split_sample_id(sample_id)[0] for sample_id in ids or ())
    # Why any name: how the organisers call the people of the private cohort is not known.
    unknown = sorted(subject for subject in listed if not (root / "data" / subject).is_dir())
    if not subjects and len(unknown) == len(listed):
        raise DataError(f"data.root={root}: no leaderboard subject; expected folders data/predict<n>")
    if ids is None:
        return subjects
    if unknown:
        there = ", ".join(sorted(path.name for path in (root / "data").iterdir() if path.is_dir()))
        raise DataError(
            f"sample_ids.csv lists {unknown[0]!r}, an unknown subject; {root / 'data'} has {there or 'no folder'}"
        )
    return [subject for subject in subjects if subject in listed] + [item for item in listed if item not in subjects]


def _wanted_seconds(subject: str, ids: Mapping[str, Sequence[int]]) -> dict[int, int]:
    trials = {split_sample_id(sample_id): seconds for sample_id, seconds in ids.items()}
    return {video: max(seconds) + 1 for (owner, video), seconds in trials.items() if owner == subject}
