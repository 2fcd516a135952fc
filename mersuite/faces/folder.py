"""Cuts the faces of many clips, in the organisers' layout, each file whole or not at all.

out/
    face_speaker/<name>/<name>.npy      (frame, 112, 112, 3) uint8
    face_listener/<name>/<name>.npy
    debug/<name>.png                    when asked for
    faces.csv                           a row a clip: what was decided and how sure it is
    faces.jsonl                         the same as it is written while work goes on; lets it be taken up again
    writer.lock                         held by the process that works there
"""

from __future__ import annotations

import csv
import io
import math
import multiprocessing
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mersuite.clip import Clip, Media
from mersuite.errors import DataError
from mersuite.faces.analysis import VIDEO, FaceAnalysis, analyse
from mersuite.faces.config import FacesConfig
from mersuite.faces.detectors import check_detector, opencv
from mersuite.faces.journal import ROLES, Journal, face_path, picture_path, remove_parts
from mersuite.faces.picture import check_matplotlib, save_picture
from mersuite.media.streams import stream_media
from mersuite.media.video import probe
from mersuite.progress import progress_bars
from mersuite.whole_files import whole_file

COLUMNS = (
    "name",
    "num_people",
    "num_tracks",
    "num_scenes",
    "speaker",
    "listener",
    "agreement_speaker",
    "agreement_listener",
    "confidence",
    "uncertain",
    "seen_speaker",
    "seen_listener",
    "reason",
)
TABLE = "faces.csv"
_NUM_PROBED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class FacesReport:
    """What was done.

    Attributes:
        table: The csv with a row a clip.
        num_clips: Clips that were given.
        num_done: Clips that were done now.
        num_kept: Clips that had been done before.
        num_two: Clips with at least two people.
        num_fewer: Clips with fewer.
        num_uncertain: Clips whose decision is uncertain, those with fewer than two people among them.
        broken: Name and reason of the clips that could not be read.
    """

    table: Path
    num_clips: int
    num_done: int
    num_kept: int
    num_two: int
    num_fewer: int
    num_uncertain: int
    broken: tuple[tuple[str, str], ...]


def cut_faces(
    clips: Sequence[Clip],
    out: Path,
    config: FacesConfig,
    *,
    executor: Executor,
    max_in_flight: int,
    debug: bool = False,
    progress: bool = True,
) -> FacesReport:
    """Finds, assigns and cuts the faces of clips; may be killed and called again.

    Args:
        clips: With a stream `video`; the sound is voice.speaker, or the video's own where a clip has none.
        out: Folder of one configuration.
        config: How.
        executor: Runs the clips.
        max_in_flight: So many clips are handed to the executor at once.
        debug: Write a picture a clip, too.
        progress: Show a bar where a person watches.

    Raises:
        ConfigError: If the detector cannot be made, or pictures are asked for and Matplotlib is not there.
        DataError: If clips lack a video, names repeat, the folder was made with other options, holds faces of somebody
            else or is being written, or the disk is too small, all before any work; or if a clip cannot be read and
            config.skip_broken is not set. What was finished is kept.
    """
    _check_clips(clips)
    check_detector(config)
    if debug:
        check_matplotlib()
    journal = Journal(out, config)
    broken: list[tuple[str, str]] = []
    try:
        waiting = [clip for clip in clips if not journal.has(clip, debug=debug)]
        _check_disk(waiting, out, config)
        with progress_bars({"faces": len(waiting)}, enabled=progress) as advance:
            for clip, result in _computed(waiting, (out, config, debug), executor, max_in_flight):
                if isinstance(result, str):
                    journal.forget(clip)
                    broken.append((clip.clip_id, result))
                else:
                    journal.add(clip, result)
                advance("faces", 1)
    finally:
        _write_table(out / TABLE, [*journal.rows.values(), *map(_broken_row, broken)])
        journal.close()
    rows = [journal.rows[clip.clip_id] for clip in clips if clip.clip_id in journal.rows]
    return FacesReport(
        table=out / TABLE,
        num_clips=len(clips),
        num_done=len(waiting) - len(broken),
        num_kept=len(clips) - len(waiting),
        num_two=sum(row["num_people"] >= 2 for row in rows),
        num_fewer=sum(row["num_people"] < 2 for row in rows),
        num_uncertain=sum(row["uncertain"] for row in rows),
        broken=tuple(broken),
    )


def cut_clip(clip: Clip, out: Path, config: FacesConfig, debug: bool) -> dict[str, Any] | str:
    """Does one clip and gives its row; where it cannot be read and skip_broken is set, the reason.

    Raises:
        DataError: If it cannot be read and skip_broken is not set.
    """
    if multiprocessing.parent_process() is not None:  # a worker: the others use the other cores
        opencv().setNumThreads(1)
    try:
        analysis = analyse(clip, config)
    except DataError as error:
        if config.skip_broken:
            for path in (*(face_path(out, role, clip.clip_id) for role in ROLES), picture_path(out, clip.clip_id)):
                path.unlink(missing_ok=True)
            return str(error)
        raise DataError(f"{error}; skip_broken=true leaves such clips out") from error
    for role in ROLES:
        path = face_path(out, role, clip.clip_id)
        remove_parts(path.parent)
        person = getattr(analysis.decision, role)
        if person is None:
            path.unlink(missing_ok=True)
            continue
        faces = analysis.crops[person]
        with whole_file(path) as stream:
            np.save(stream, faces[..., ::-1] if config.channel_order == "bgr" else faces)
    picture = picture_path(out, clip.clip_id)
    if debug:
        with whole_file(picture) as stream:
            save_picture(stream, clip.clip_id, stream_media(clip, VIDEO), analysis)
    else:
        picture.unlink(missing_ok=True)  # it would show what was decided before
    return _row(clip.clip_id, analysis)


def _row(name: str, analysis: FaceAnalysis) -> dict[str, Any]:
    decision = analysis.decision
    row: dict[str, Any] = {
        "name": name,
        "num_people": len(analysis.people),
        "num_tracks": analysis.num_tracks,
        "num_scenes": int(analysis.found.scenes[-1]) + 1,
        "confidence": round(decision.confidence, 4),
        "uncertain": decision.uncertain,
        "reason": decision.reason,
    }
    for role in ROLES:
        person = getattr(decision, role)
        agreement = math.nan if person is None else decision.agreements[person]
        row[role] = person
        row[f"agreement_{role}"] = None if math.isnan(agreement) else round(agreement, 4)
        row[f"seen_{role}"] = None if person is None else round(float(analysis.people[person].seen.mean()), 4)
    return row


def _broken_row(fault: tuple[str, str]) -> dict[str, Any]:
    name, reason = fault
    return {"name": name, "num_people": 0, "confidence": 0.0, "uncertain": True, "reason": f"broken: {reason}"}


def _write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", restval="")
    writer.writeheader()
    for row in sorted(rows, key=lambda each: each["name"]):
        cells = {key: str(value).lower() if isinstance(value, bool) else value for key, value in row.items()}
        writer.writerow({key: "" if value is None else value for key, value in cells.items()})
    with whole_file(path) as stream:
        stream.write(text.getvalue().encode())


def _check_clips(clips: Sequence[Clip]) -> None:
    names = [clip.clip_id for clip in clips]
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise DataError(f"clip {twice!r} is listed twice; names must be unique")
    for name in names:
        if not name or Path(name).is_absolute() or ".." in Path(name).parts:
            raise DataError(f"clip {name!r}: cannot be the name of a file; rename it")
    absent = [name for name, clip in zip(names, clips, strict=True) if not _has_video(clip)]
    if absent:
        shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        raise DataError(
            f"{len(absent)} of {len(names)} clips have no video file: {shown}; leave them out or add the files"
        )


def _has_video(clip: Clip) -> bool:
    media = clip.media.get(VIDEO)
    return isinstance(media, Media) and media.path.is_file()


def _check_disk(clips: Sequence[Clip], out: Path, config: FacesConfig) -> None:
    """Refuses when the faces will not fit, judged by the lengths of a few clips."""
    if not clips:
        return
    step = max(1, len(clips) // _NUM_PROBED)
    lengths = [length for clip in clips[::step] if (length := _length_s(stream_media(clip, VIDEO))) is not None]
    if not lengths:
        return
    a_face = float(np.mean(lengths)) * config.rate_hz * config.crop_side**2 * 3
    needed = len(ROLES) * a_face * len(clips)
    free = shutil.disk_usage(out).free
    if needed > free:
        raise DataError(
            f"out={out}: {len(clips)} clips need about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; give"
            " another disk, fewer clips, a lower rate_hz or a smaller crop_side"
        )


def _length_s(media: Media) -> float | None:
    if media.duration_s is not None:
        return media.duration_s
    try:
        return max(0.0, probe(media.path).duration_s - media.start_s)
    except DataError:
        return None  # it is told when its turn comes


def _computed(
    clips: Sequence[Clip], options: tuple[Path, FacesConfig, bool], executor: Executor, max_in_flight: int
) -> Iterator[tuple[Clip, dict[str, Any] | str]]:
    """Gives clips as they are finished. After a failure what is in flight is still given, then it is raised."""
    waiting = list(reversed(clips))
    flying: dict[Future, Clip] = {}
    failure: BaseException | None = None
    while flying or (waiting and failure is None):
        while waiting and failure is None and len(flying) < max_in_flight:
            clip = waiting.pop()
            try:
                flying[executor.submit(cut_clip, clip, *options)] = clip
            except BrokenExecutor as error:
                failure = _died(clip, error)
        for future in wait(flying, return_when=FIRST_COMPLETED).done:
            clip = flying.pop(future)
            fault = future.exception()
            if fault is None:
                yield clip, future.result()
            elif failure is None:
                failure = _died(clip, fault) if isinstance(fault, BrokenExecutor) else fault
    if failure is not None:
        raise failure


def _died(clip: Clip, error: BaseException) -> DataError:
    return DataError(
        f"{clip.clip_id}: a worker process died while this clip was in work ({error}), most likely for lack of memory;"
        " run again with fewer workers; what was finished is kept"
    )
