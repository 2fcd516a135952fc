"""Clips to extractors to store: in parallel, with one writer, safe to kill at any instant and to repeat.

The unit of work is one group of clips (Extractor.group_by), or a few clips, with one extractor. Worker processes give
streams; the parent alone writes, each finished unit in one transaction. What is stored under the wanted fingerprint is
done, so a run that was killed goes on where it stood.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

from mersuite.clip import Clip
from mersuite.errors import StoreError
from mersuite.features.base import Extractor
from mersuite.prepare.coverage import Coverage, StreamCoverage
from mersuite.prepare.plan import Group, Plan, make_plan
from mersuite.prepare.reader import FeatureReader, num_cores, stream_fingerprints
from mersuite.prepare.work import Extracted, InProcess, Unit, computed, local_pool, make_units
from mersuite.progress import progress_bars
from mersuite.store import FeatureStore, open_if_made

_log = logging.getLogger(__name__)


def prepare(
    clips: Sequence[Clip],
    extractors: Mapping[str, Extractor],
    store_path: Path,
    *,
    num_workers: int,
    executor: Executor | None = None,
    progress: bool = False,
) -> Coverage:
    """Runs all extractors on all clips, except for what is stored already.

    Only one prepare writes a store; another one started meanwhile waits for it, then does what is left. A clip that
    lacks an input stream of an extractor is left out and reported.

    Args:
        clips: What to prepare.
        extractors: By their names under `features`.
        store_path: The store's folder; made where it does not exist.
        num_workers: Processes that extract; 0 means one for each core, 1 works in this process.
        executor: Where to extract instead of local processes, such as a cluster's.
        progress: Show progress bars on stderr, if that is a terminal.

    Raises:
        ConfigError: If two extractors write one stream.
        DataError: If a source cannot be read or extracted. What was finished is kept.
        StoreError: If the store is damaged, of another format, or no space is left.
    """
    plan = _plan_with_memory(clips, extractors, store_path)
    existing = open_if_made(store_path)
    pending: Sequence[Group] = plan.groups
    if existing is not None:
        with existing:
            pending = _to_do(plan, existing)
            _survey(plan, pending, clips, extractors, store_path)
            if not pending:
                return _report(plan, clips, extractors, existing, {}, 0)
    else:
        _survey(plan, pending, clips, extractors, store_path)
    with FeatureStore(store_path, readonly=False, wait=True) as store:
        to_do = _to_do(plan, store)
        if not to_do:
            _log.info("%s: another process has prepared everything meanwhile; nothing is left to do", store_path)
        store.put({}, plan.fresh_sources)
        seconds = _run(to_do, store, num_workers or num_cores(), executor, progress)
        num_computed = sum(len(group.clips) for group in to_do)
        return _report(plan, clips, extractors, store, seconds, num_computed)


def _plan_with_memory(clips: Sequence[Clip], extractors: Mapping[str, Extractor], store_path: Path) -> Plan:
    """Plans, using and extending what the store remembers of the contents of source files."""
    existing = open_if_made(store_path)
    if existing is None:
        return make_plan(clips, extractors, None, num_cores())
    with existing:
        plan = make_plan(clips, extractors, existing, num_cores())
    if plan.fresh_sources and os.access(store_path, os.W_OK):
        # Another writer, or a full disk, only means that these files are hashed once more next time.
        with contextlib.suppress(StoreError), FeatureStore(store_path, readonly=False) as store:
            store.put({}, plan.fresh_sources)
    return plan


def _survey(
    plan: Plan, pending: Sequence[Group], clips: Sequence[Clip], extractors: Mapping[str, Extractor], store_path: Path
) -> None:
    """Lets every extractor that has work, or lacks sources, look at all clips, and compares estimates with the disk.

    Raises:
        StoreError: If it is not.
        MersuiteError: As Extractor.survey does.
    """
    estimates: dict[str, int] = {}
    for name, extractor in extractors.items():
        waiting = [clip for group in pending if group.name == name for clip in group.clips]
        if waiting or plan.left_out[name]:
            extractor.survey(clips)
        if waiting and (size_bytes := extractor.estimate_bytes(waiting)) is not None:
            estimates[name] = size_bytes
            _log.info("features.%s: about %.3g GiB for %d clips", name, size_bytes / 2**30, len(waiting))
    existing = next(folder for folder in (store_path.absolute(), *store_path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if sum(estimates.values()) > free:
        parts = ", ".join(f"features.{name} {size / 2**30:.3g}" for name, size in estimates.items())
        needed = sum(estimates.values()) / 2**30
        raise StoreError(
            f"{store_path}: about {needed:.3g} GiB are needed ({parts}) and {free / 2**30:.3g} GiB are free; "
            "pool frames to fewer rows, make space, or give another store.path"
        )


def _to_do(plan: Plan, store: FeatureStore) -> list[Group]:
    return [group for group in plan.groups if store.missing(group.keys())]


def _run(
    groups: Sequence[Group], store: FeatureStore, num_workers: int, executor: Executor | None, progress: bool
) -> dict[str, float]:
    """Extracts and stores; gives the computing seconds of each extractor."""
    units = make_units(groups, num_workers)
    seconds: dict[str, float] = {}
    done_bytes, written_bytes, all_bytes = 0, 0, sum(group.source_bytes for group in groups)
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(progress_bars(_num_clips(groups), enabled=progress))
        pool = executor or stack.enter_context(local_pool(min(num_workers, max(1, len(units)))))
        # One unit more than there are workers keeps them busy while the parent writes.
        in_flight = 1 if isinstance(pool, InProcess) else num_workers + 1
        for unit, extracted in computed(units, pool, in_flight):
            written_bytes += _store_unit(store, unit, extracted)
            done_bytes += sum(group.source_bytes for group in unit.groups)
            seconds[unit.name] = seconds.get(unit.name, 0.0) + extracted.seconds
            advance(_shown(unit.name), len(unit.clips))
            _check_room(store.path, written_bytes, done_bytes, all_bytes)
    return seconds


def _store_unit(store: FeatureStore, unit: Unit, extracted: Extracted) -> int:
    return store.put(
        {
            group.key(clip, stream): extracted.streams[clip.clip_id].get(stream)
            for group in unit.groups
            for clip in group.clips
            for stream in unit.extractor.outputs()
        }
    )


def _check_room(store_path: Path, written_bytes: int, done_bytes: int, all_bytes: int) -> None:
    """Stops early where the rest cannot fit, going by what a byte of source has taken so far.

    Raises:
        StoreError: If it cannot.
    """
    left = written_bytes / max(done_bytes, 1) * (all_bytes - done_bytes)
    free = shutil.disk_usage(store_path).free
    if left > free:
        raise StoreError(
            f"{store_path}: no space for the rest: about {left / 2**30:.3g} GiB are needed and {free / 2**30:.3g} GiB "
            "are free; what was finished is kept: make space, or give another store.path"
        )


def _num_clips(groups: Sequence[Group]) -> dict[str, int]:
    totals: dict[str, int] = {}
    for group in groups:
        totals[_shown(group.name)] = totals.get(_shown(group.name), 0) + len(group.clips)
    return totals


def _shown(extractor: str) -> str:
    return f"prepare {extractor}"


def _report(
    plan: Plan,
    clips: Sequence[Clip],
    extractors: Mapping[str, Extractor],
    store: FeatureStore,
    seconds: Mapping[str, float],
    num_computed: int,
) -> Coverage:
    rows = []
    for name, extractor in extractors.items():
        members = [(group, clip) for group in plan.groups if group.name == name for clip in group.clips]
        for stream in extractor.outputs():
            reasons = dict(plan.left_out[name])
            size_bytes, none_made = 0, []
            for group, clip in members:
                key = group.key(clip, stream)
                if store.get(key) is None:
                    none_made.append(clip.clip_id)
                else:
                    size_bytes += store.entry_size_bytes(key)
            if none_made:
                reasons["the extractor gave none"] = tuple(none_made)
            rows.append(
                StreamCoverage(
                    stream=stream,
                    extractor=name,
                    num_clips=len(clips),
                    num_covered=len(members) - len(none_made),
                    left_out=reasons,
                    size_bytes=size_bytes,
                    seconds=seconds.get(name, 0.0),
                )
            )
    return Coverage(store_path=store.path, streams=tuple(rows), num_computed=num_computed)


__all__ = ["Coverage", "FeatureReader", "StreamCoverage", "prepare", "stream_fingerprints"]
