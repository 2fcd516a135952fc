"""What is in a MER folder, beside the published sizes; faults are listed, never raised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from mersuite import catalog
from mersuite.clip import Clip, Media
from mersuite.config import RunConfig
from mersuite.errors import DataError, MersuiteError
from mersuite.formats import mer2026
from mersuite.media.audio import read_audio
from mersuite.media.face_arrays import read_faces
from mersuite.media.video import probe
from mersuite.progress import progress_bars
from mersuite.track import CheckRow
from tracks.cross.reader import TRAIN_CSV, read_cross

PUBLISHED = {"training clips": 9_395, "candidates": 20_000, "english subtitles": 119_019}
OPENING = "open clips"
SEED = 0


def check_cross(config: RunConfig) -> list[CheckRow]:
    """Looks at the organisers' folder, or at a manifest, and reports everything that is odd.

    Returns:
        Counts beside published ones, remarks, and one row a fault (ok is False).
    """
    if config.data.manifest is not None:
        return _clip_rows(config, _tried_clips(config, ("train", "test")))
    try:
        folder = mer2026.open_folder(config.data.place, features=config.data.features, faces=config.data.faces)
    except DataError as error:
        return [fault(error)]
    rows = [*_archives(folder), *_lists(folder, config), *_subtitles(folder)]
    rows += _clip_rows(config, _tried_clips(config, ("train", "test")))
    return [*rows, *_features(folder)]


def fault(error: Exception | str, hint: str = "") -> CheckRow:
    """Gives the row of one fault."""
    return CheckRow(name="fault", found=str(error), ok=False, hint=hint)


def _archives(folder: mer2026.MerFolder) -> list[CheckRow]:
    names = [path.name for path in mer2026.archives(folder)]
    if not names:
        return []
    return [CheckRow(name="archives", found=", ".join(names), ok=None, hint="extract them if something is missing")]


def _lists(folder: mer2026.MerFolder, config: RunConfig) -> list[CheckRow]:
    """Counts of the csv files beside the published ones."""

    def labels() -> int:
        path = _needed(folder, TRAIN_CSV)
        return len(mer2026.read_labels(path, config.options.labels))

    def candidates() -> int:
        return len(mer2026.read_names(_needed(folder, mer2026.CANDIDATES)))

    rows = _counted("training clips", labels) + _counted("candidates", candidates)
    clips = {path.stem for path in (folder.root / "video").glob("*.mp4")} if folder.root.is_dir() else set()
    return [
        *rows,
        CheckRow(name="files in video/", found=f"{len(clips):,}", expected=f"{mer2026.PUBLISHED_CLIPS:,}", ok=None),
    ]


def _needed(folder: mer2026.MerFolder, patterns: Sequence[str]) -> Path:
    path = mer2026.find_csv(folder, patterns)
    if path is None:
        raise DataError(f"{folder.root}: no {patterns[0]}{mer2026.archive_hint(folder)}")
    return path


def _counted(name: str, count: Callable[[], int]) -> list[CheckRow]:
    try:
        found = count()
    except DataError as error:
        return [fault(error)]
    ok = True if found == PUBLISHED[name] else None
    return [CheckRow(name=name, found=f"{found:,}", expected=f"{PUBLISHED[name]:,}", ok=ok)]


def _subtitles(folder: mer2026.MerFolder) -> list[CheckRow]:
    path = folder.root / mer2026.SUBTITLES
    if not path.is_file():
        return [CheckRow(name="subtitles", found=f"no {path.name}", ok=None, hint="streams of words are not there")]
    try:
        subtitles = mer2026.read_subtitles(path)
    except DataError as error:
        return [fault(error)]
    english = sum("text.speaker.en" in texts for texts in subtitles.values())
    chinese = sum("text.speaker.zh" in texts for texts in subtitles.values())
    expected = f"{mer2026.PUBLISHED_CLIPS:,} clips, {PUBLISHED['english subtitles']:,} English"
    found = f"{len(subtitles):,} clips, {english:,} English, {chinese:,} Chinese"
    return [CheckRow(name="subtitles", found=found, expected=expected, ok=None)]


def _tried_clips(config: RunConfig, splits: Iterable[str]) -> list[Clip] | Exception:
    """Gives the clips that fit and predict would read, or why they cannot be read."""
    clips: dict[str, Clip] = {}
    for split in splits:
        try:
            data = read_cross(config, split)
        except MersuiteError as error:
            if split == "test" and config.data.manifest is not None:
                continue  # a manifest needs no test rows
            return error
        clips |= {clip.clip_id: clip for clip in data.clips}
    return list(clips.values())


def _clip_rows(config: RunConfig, clips: list[Clip] | Exception) -> list[CheckRow]:
    if isinstance(clips, Exception):
        return [fault(clips)]
    counts = Counter(stream for clip in clips for stream in clip.media)
    rows = [
        CheckRow(
            name=f"stream {stream}",
            found=f"{count:,} of {len(clips):,} clips",
            ok=True if count == len(clips) else None,
        )
        for stream, count in sorted(counts.items())
        if not stream.startswith(mer2026.FEATURE_PREFIX)
    ]
    return rows + _opened(config, clips) + _surveyed(config, clips)


def _opened(config: RunConfig, clips: Sequence[Clip]) -> list[CheckRow]:
    """Opens media of all clips, or of as many as cross.check_clips says, drawn evenly."""
    number = config.options.check_clips or len(clips)
    chosen = [clips[i] for i in _drawn(len(clips), number)]
    orders = {
        getattr(part.config, "channel_order", "bgr") for part in config.features.values() if part.name == "face"
    } or {"bgr"}
    faults, lengths_s, silent = [], [], 0
    with progress_bars({OPENING: len(chosen)}) as advance:
        for clip in chosen:
            for stream, media in clip.media.items():
                try:
                    if isinstance(media, Media):
                        found = _open(stream, media, next(iter(orders)))
                        lengths_s += [found.duration_s] if found is not None else []
                        silent += found is not None and not found.has_audio
                except DataError as error:
                    faults.append(fault(error, f"clip {clip.clip_id}"))
            advance(OPENING, 1)
    rows = [
        CheckRow(
            name="clips opened", found=f"{len(chosen):,} of {len(clips):,}, {len(faults)} faults", ok=not faults or None
        )
    ]
    if lengths_s:
        spread = f"{min(lengths_s):.1f} to {max(lengths_s):.1f} s, median {float(np.median(lengths_s)):.1f} s"
        rows.append(
            CheckRow(name="length of clips", found=spread + (f"; {silent} without sound" if silent else ""), ok=None)
        )
    return rows + faults


def _open(stream: str, media: Media, channel_order: str):  # type: ignore[no-untyped-def]
    kind = stream.partition(".")[0]
    if kind == "video":
        return probe(media.path)
    if kind == "voice":
        read_audio(media.path, start_s=media.start_s, duration_s=media.duration_s)
    elif kind == "face":
        read_faces(media.path, channel_order="rgb" if channel_order == "rgb" else "bgr")
    return None


def _drawn(length: int, number: int) -> list[int]:
    if number >= length:
        return list(range(length))
    return sorted(np.random.default_rng(SEED).choice(length, number, replace=False).tolist())


def _surveyed(config: RunConfig, clips: Sequence[Clip]) -> list[CheckRow]:
    """What the configured extractors say of their sources before they would run."""
    rows = []
    for name, part in config.features.items():
        extractor = catalog.find("extractor", part.name)(part.config)
        covered = sum(all(item in clip.media for item in extractor.inputs if not item.endswith("?")) for clip in clips)
        try:
            extractor.survey(clips)
        except MersuiteError as error:
            rows.append(fault(error, f"features.{name}"))
            continue
        found = f"{covered:,} of {len(clips):,} clips ({', '.join(extractor.inputs)})"
        rows.append(CheckRow(name=f"features.{name}", found=found, ok=True if covered else None))
    return rows


def _features(folder: mer2026.MerFolder) -> list[CheckRow]:
    """Coverage and widths of every folder of pre-extracted features."""
    rows = []
    for place in mer2026.feature_folders(folder):
        files = sorted((folder.features / place).glob("*.npy"))
        widths: Counter[int] = Counter()
        faults = []
        for path in files:
            try:
                widths[_width(path)] += 1
            except DataError as error:
                faults.append(fault(error))
        told = ", ".join(f"{width} wide ({count:,})" for width, count in widths.most_common(3))
        ok = None if len(widths) == 1 and not faults else False
        hint = "" if len(widths) <= 1 else "files of one folder must have one width: extract the rarer ones again"
        rows.append(
            CheckRow(
                name=f"features/{place}", found=f"{len(files):,} files, {told or 'none readable'}", ok=ok, hint=hint
            )
        )
        rows += faults[:3]
    return rows


def _width(path: Path) -> int:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a readable .npy file ({error})") from error
    if array.ndim not in (1, 2) or not array.size:
        raise DataError(f"{path}: need [width] or [time, width], got shape {array.shape}")
    return int(array.shape[-1])
