"""What is in a MER-PS folder or a manifest, beside the published sizes; faults are listed, never raised."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from mersuite.clip import Media
from mersuite.errors import DataError
from mersuite.media.physio import mat_shapes, read_mat_array, read_reservations, read_signal, refuse_nan, where
from mersuite.progress import progress_bars
from mersuite.track import CheckRow
from tracks.ps import layout, reader
from tracks.ps.rates import SignalFile

PUBLISHED_PEOPLE = {"test_": 24, "predict": 4}
PUBLISHED_CLIPS = 15
PUBLISHED_SECONDS = {"test_": 24 * 1536, "predict": 6143}
_KIND_WORDS = {"test_": "training", "predict": "leaderboard"}
_OPTIONAL_TABLES = (
    "README.md",
    "Metadata.csv",
    "SAM_score.csv",
    "PANAS_score.csv",
    "Targeted_emotions.txt",
    "fNIRS_coordinates.csv",
)
_VOLT_RANGE = (1e-7, 1e-3)
READING = "read recordings"


def check_ps(place: Path, full: bool = True) -> list[CheckRow]:
    """Looks at a folder in the organisers' layout, or at a manifest csv, and reports everything that is odd.

    Args:
        place: The folder, or the manifest file.
        full: Read every signal; False reads the first trial of each file.

    Returns:
        Counts beside published ones, remarks, and one row a fault (ok is False).
    """
    place = Path(place)
    if place.is_file():
        from tracks.ps.check_recordings import check_manifest

        return check_manifest(place)
    try:
        subjects = {kind: layout.find_subjects(place, kind) for kind in _KIND_WORDS}
    except DataError as error:
        return [fault(error, "extract the archives or give the folder that holds data/")]
    rows = _archives(place)
    if not any(subjects.values()):
        rows.append(CheckRow(name="subjects", found="none", expected="data/test_<n> or data/predict<n>", ok=False))
    for kind, names in subjects.items():
        rows += _check_kind(place, kind, names, full)
    rows += _check_tables(place, subjects)
    return rows


def fault(error: Exception | str, hint: str = "") -> CheckRow:
    """Gives the row of one fault."""
    return CheckRow(name="fault", found=str(error), ok=False, hint=hint)


def tried(action: Callable[[], None]) -> list[CheckRow]:
    """Runs a check that raises; gives its fault as a row, or nothing."""
    try:
        action()
    except DataError as error:
        return [fault(error)]
    return []


def _archives(root: Path) -> list[CheckRow]:
    names = [str(path.relative_to(root)) for path in layout.find_archives(root)]
    if not names:
        return []
    return [CheckRow(name="archives", found=", ".join(names), ok=None, hint="extract them if something is missing")]


def _check_kind(root: Path, kind: str, subjects: Sequence[str], full: bool) -> list[CheckRow]:
    word = _KIND_WORDS[kind]
    published = PUBLISHED_PEOPLE[kind]
    rows = [_count(f"{word} subjects", len(subjects), published)]
    if not subjects:
        return rows
    faults: list[CheckRow] = []
    shown = _rated_seconds(root, kind, subjects, faults)
    headers = {subject: _headers(root, subject, faults) for subject in subjects}
    for stream in layout.STREAM_FILES:
        have = [subject for subject in subjects if stream in headers[subject]]
        rows.append(
            CheckRow(
                name=f"{word} {stream}",
                found=f"{len(have)} of {len(subjects)} subjects",
                expected=f"data/<subject>/{layout.STREAM_FILES[stream]}",
                ok=True if len(have) == len(subjects) else None,
            )
        )
        if have:
            lacking = [subject for subject in subjects if subject not in have]
            faults += [
                fault(f"{root / 'data' / subject / layout.STREAM_FILES[stream]}: no such file, though others have it")
                for subject in lacking
                if not (root / "data" / subject / layout.STREAM_FILES[stream]).exists()
            ]
    rates: Counter[str] = Counter()
    lengths: dict[str, Mapping[int, int]] = {}
    for subject in subjects:
        facts = layout.inspect_subject(headers[subject], shown.get(subject))
        faults += [fault(text) for text in facts.faults]
        rates.update(f"{stream} {rate:.3f} Hz" for stream, rate in facts.rates_hz.items() if rate)
        lengths[subject] = facts.seconds
        if not facts.seconds:
            faults.append(fault(f"{root / 'data' / subject}: no trial"))
    clips = sorted({len(videos) for videos in lengths.values()})
    rows.append(_count(f"{word} clips a person", " or ".join(map(str, clips)), PUBLISHED_CLIPS))
    seconds = sum(sum(videos.values()) for videos in lengths.values())
    rows.append(_count(f"{word} seconds", seconds, PUBLISHED_SECONDS[kind]))
    found = ", ".join(f"{rate} ({count} subjects)" for rate, count in sorted(rates.items()))
    rows.append(CheckRow(name=f"{word} rates", found=found, expected="the same for all", ok=len(rates) <= 2 or None))
    signal_rows, signal_faults = _check_signals(root, headers, full)
    rows += [
        CheckRow(name=f"{word} {row.name}", found=row.found, expected=row.expected, ok=row.ok) for row in signal_rows
    ]
    return rows + faults + signal_faults


def _count(name: str, found: int | str, published: int) -> CheckRow:
    ok = True if str(found) == str(published) else None
    return CheckRow(name=name, found=str(found), expected=f"{published} published", ok=ok)


def _headers(root: Path, subject: str, faults: list[CheckRow]) -> dict[str, SignalFile]:
    files = {}
    for stream, name in layout.STREAM_FILES.items():
        path = root / "data" / subject / name
        if path.is_file():
            try:
                files[stream] = SignalFile(path, mat_shapes(path))
            except DataError as error:
                faults.append(fault(error))
    if not {"eeg", "fnirs"} & files.keys():
        faults.append(fault(f"{root / 'data' / subject}: no trial: no readable EEG_videos.mat or fNIRS_videos.mat"))
    return files


def _rated_seconds(root: Path, kind: str, subjects: Iterable[str], faults: list[CheckRow]) -> dict[str, dict[int, int]]:
    """Subject -> video -> seconds, from annotations; leaderboard ids win over their annotations."""
    found: dict[str, dict[int, int]] = {}
    for subject in subjects:
        path = root / "annotations" / f"{subject}_label.mat"
        if path.is_file():
            found[subject] = _label_lengths(path, faults)
        elif kind == "test_":
            faults.append(fault(f"{path}: no such file; every training subject needs its ratings"))
    ids_path = root / "sample_ids.csv"
    if kind == "predict" and ids_path.is_file():
        try:
            ids = layout.read_sample_ids(ids_path)
        except DataError as error:
            faults.append(fault(error))
            return found
        for sample_id, seconds in ids.items():
            subject, video = layout.split_sample_id(sample_id)
            if subject not in subjects:
                faults.append(
                    fault(f"{ids_path}: {sample_id} is of an unknown subject; data/ has {', '.join(subjects)}")
                )
            found.setdefault(subject, {})[video] = max(seconds) + 1
    return found


def _label_lengths(path: Path, faults: list[CheckRow]) -> dict[int, int]:
    lengths = {}
    try:
        keys = list(mat_shapes(path))
    except DataError as error:
        faults.append(fault(error))
        return {}
    for key in keys:
        try:
            lengths[layout.video_number(path, key)] = len(
                reader.orient_labels(read_mat_array(path, key), f"{path}: {key}")
            )
        except DataError as error:
            faults.append(fault(error))
    return lengths


def _check_signals(
    root: Path, headers: Mapping[str, Mapping[str, SignalFile]], full: bool
) -> tuple[list[CheckRow], list[CheckRow]]:
    """Reads the signals: rows of amplitudes, and faults."""
    media = [
        (stream, Media(path=file.path, key=key, rate_hz=1.0), _kept_channels(root, subject, stream))
        for subject, files in headers.items()
        for stream, file in files.items()
        for key in (list(file.shapes) if full else list(file.shapes)[:1])
    ]
    num_threads = min(os.cpu_count() or 1, 4)  # zlib and scipy's reader free the GIL in part
    results = []
    with ThreadPoolExecutor(max_workers=num_threads) as pool, progress_bars({READING: len(media)}) as advance:
        for result in pool.map(lambda item: _check_signal(*item), media):
            results.append(result)
            advance(READING, 1)
    faults = [row for found, _ in results for row in found]
    sizes = [size for (stream, *_), (_, size) in zip(media, results, strict=True) if stream == "eeg" and size]
    rows = []
    if sizes:
        size = float(np.median(sizes))
        ok = _VOLT_RANGE[0] <= size <= _VOLT_RANGE[1]
        rows.append(
            CheckRow(
                name="eeg amplitude", found=f"{size * 1e6:.3g} uV", expected="0.1 to 1000 uV (volts)", ok=ok or None
            )
        )
    how = "every variable" if full else "the first variable of each file"
    rows.append(CheckRow(name="signals read", found=f"{len(media)} recordings ({how})", expected="no NaN, none flat"))
    return rows, faults


def _kept_channels(root: Path, subject: str, stream: str) -> np.ndarray | None:
    """Which fNIRS channels the reservations keep, (channel,) bool; None where all count or they cannot be read."""
    path = root / layout.RESERVATIONS_FILE
    if not stream.startswith("fnirs") or not path.is_file():
        return None
    try:
        return read_reservations(path, subject)
    except DataError:
        return None  # _check_tables reports it


def _check_signal(stream: str, medium: Media, kept: np.ndarray | None) -> tuple[list[CheckRow], float]:
    """Faults of one variable, and the median deviation of its channels; ruled-out channels may hold anything."""
    try:
        signal = read_signal(medium, allow_flat=True, allow_nan=True)
        num_channels = signal.data.shape[1]
        judged = np.arange(num_channels)
        if kept is not None and num_channels % len(kept) == 0:
            judged = np.flatnonzero(np.tile(kept, num_channels // len(kept)))
        refuse_nan(signal, where(medium), judged.tolist())
    except DataError as error:
        return [fault(error)], 0.0
    if not judged.size:
        return [], 0.0
    spread = signal.data[:, judged].std(axis=0)
    flat = np.flatnonzero(np.ptp(signal.data, axis=0) == 0)
    rows = []
    if flat.size and stream.startswith("eeg"):
        names = ", ".join(layout.EEG_CH_NAMES[i] if i < len(layout.EEG_CH_NAMES) else str(i) for i in flat[:6])
        hint = "leave the interpolation of bad channels on, or repair the file"
        rows.append(fault(f"{where(medium)}: {flat.size} flat channels ({names})", hint))
    return rows, float(np.median(spread))


def _check_tables(root: Path, subjects: Mapping[str, Sequence[str]]) -> list[CheckRow]:
    rows = [
        CheckRow(name=name, found="there" if (root / name).is_file() else "missing", expected="optional", ok=None)
        for name in _OPTIONAL_TABLES
        if not (root / name).is_file()
    ]
    path = root / layout.RESERVATIONS_FILE
    people = [name for names in subjects.values() for name in names]
    if path.is_file():
        kept, faults = [], []
        for subject in people:
            try:
                kept.append(read_reservations(path, subject))
            except DataError as error:
                faults.append(fault(error))
        found = f"{len(kept)} of {len(people)} subjects"
        if kept:
            share = np.mean([mask.mean() for mask in kept])
            found += f"; {100 * share:.0f} % of channels kept"
        rows += [CheckRow(name="fNIRS reservations", found=found, ok=len(kept) == len(people)), *faults]
    else:
        rows.append(CheckRow(name="fNIRS reservations", found="missing", expected="optional", ok=None))
    targets = root / "targets.csv"
    if targets.is_file():
        rows += _check_targets(root, targets)
    elif subjects["predict"]:
        rows.append(CheckRow(name="targets.csv", found="missing", expected="needed to score", ok=None))
    if subjects["predict"] and not (root / "sample_ids.csv").is_file():
        rows.append(CheckRow(name="sample_ids.csv", found="missing", expected="every second is predicted", ok=None))
    return rows


def _check_targets(root: Path, path: Path) -> list[CheckRow]:
    """Targets beside the ids and the leaderboard's own annotation files."""
    try:
        targets = reader.read_targets(path)
        ids = layout.read_sample_ids(root / "sample_ids.csv") if (root / "sample_ids.csv").is_file() else targets
    except DataError as error:
        return [fault(error)]
    wanted = {(sample_id, second) for sample_id, seconds in ids.items() for second in seconds}
    given = {(sample_id, second) for sample_id, seconds in targets.items() for second in seconds}
    differing = sorted(wanted ^ given)
    rows = [CheckRow(name="targets.csv", found=f"{len(given)} rows", expected=f"{len(wanted)} ids", ok=not differing)]
    rows += [
        fault(f"{path}: {layout.row_id(*row)} is in one of targets.csv and sample_ids.csv only")
        for row in differing[:5]
    ]
    for sample_id, ratings in targets.items():
        subject, video = layout.split_sample_id(sample_id)
        annotation = root / "annotations" / f"{subject}_label.mat"
        if annotation.is_file():
            rows += _check_same_ratings(annotation, f"video_{video}", ratings)
    return rows


def _check_same_ratings(path: Path, key: str, ratings: Mapping[int, tuple[int, int]]) -> list[CheckRow]:
    try:
        stored = reader.orient_labels(read_mat_array(path, key), f"{path}: {key}")
    except DataError:
        return []  # reported with the annotation files
    beyond = [second for second in ratings if second >= len(stored)]
    differing = [second for second, pair in ratings.items() if second < len(stored) and tuple(stored[second]) != pair]
    if not beyond and not differing:
        return []
    return [
        fault(f"{path}: {key}: differs from targets.csv at {len(beyond) + len(differing)} of {len(ratings)} seconds")
    ]
