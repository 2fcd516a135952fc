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
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from mersuite.clip import Clip
from mersuite.errors import MersuiteError, StoreError
from mersuite.features.base import Extractor
from mersuite.prepare.coverage import Coverage, StreamCoverage
from mersuite.prepare.fingerprint import lacking_streams
from mersuite.prepare.plan import Group, Plan, check_outputs, make_plan
from mersuite.prepare.reader import FeatureReader, num_cores, stream_fingerprints
from mersuite.prepare.work import Extracted, InProcess, Unit, computed, local_pool, make_units
from mersuite.progress import progress_bars
from mersuite.store import FeatureStore, open_if_made

_log = logging.getLogger(__name__)
_WORTH_SAYING_BYTES = 2**30
"""Estimates from here on are shown before the work starts; smaller ones stand in the table after it."""


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
    check_outputs(extractors)
    # Hashing all sources may take long, so extractors that have done nothing yet look at the clips before it.
    estimates = _survey(_not_begun(clips, extractors, store_path), clips, extractors, store_path, {})
    plan = _plan_with_memory(clips, extractors, store_path)
    existing = open_if_made(store_path)
    if existing is not None:
        with existing:
            pending = _to_do(plan, existing)
            rest = {name: own for name, own in _waiting(plan, pending).items() if name not in estimates}
            _survey(rest, clips, extractors, store_path, estimates)
            if not pending:
                return _report(plan, clips, extractors, existing, {}, 0)
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


def _not_begun(clips: Sequence[Clip], extractors: Mapping[str, Extractor], store_path: Path) -> dict[str, list[Clip]]:
    """Gives the usable clips of each extractor of which the store holds nothing yet, going by the first of them."""
    found = {}
    with contextlib.ExitStack() as stack:
        store = open_if_made(store_path)
        if store is not None:
            stack.enter_context(store)
        for name, extractor in extractors.items():
            usable = [clip for clip in clips if not lacking_streams(extractor, clip)]
            begun = store is not None and any(
                store.fingerprints(clip.dataset, clip.clip_id, stream)
                for clip in usable[:1]
                for stream in extractor.outputs()
            )
            if clips and not begun:
                found[name] = usable
    return found


def _waiting(plan: Plan, pending: Sequence[Group]) -> dict[str, list[Clip]]:
    """Gives the clips of each extractor that has work, or lacks sources."""
    waiting: dict[str, list[Clip]] = {name: [] for name, reasons in plan.left_out.items() if reasons}
    for group in pending:
        waiting.setdefault(group.name, []).extend(group.clips)
    return waiting


def _survey(
    waiting: Mapping[str, Sequence[Clip]],
    clips: Sequence[Clip],
    extractors: Mapping[str, Extractor],
    store_path: Path,
    before: Mapping[str, int],
) -> dict[str, int]:
    """Lets extractors look at all clips, and compares estimates of what is to be done with the disk.

    Args:
        waiting: Extractor's name to the clips that it has to work on.
        clips: All clips.
        extractors: By their names.
        store_path: The store.
        before: Estimates of other extractors, in bytes.

    Returns:
        Those and the new ones; 0 where nobody can tell.

    Raises:
        StoreError: If it does not fit.
        MersuiteError: As Extractor.survey does.
    """
    estimates = dict(before)
    for name, own in waiting.items():
        try:
            extractors[name].survey(clips)
        except MersuiteError as error:
            raise type(error)(f"features.{name}: {error}") from error  # which entry a knob of the message belongs to
        size_bytes = extractors[name].estimate_bytes(own) if own else None
        estimates[name] = size_bytes or 0
        if size_bytes is not None:
            level = logging.WARNING if size_bytes >= _WORTH_SAYING_BYTES else logging.INFO
            _log.log(level, "features.%s: about %.3g GiB for %d clips", name, size_bytes / 2**30, len(own))
    existing = next(folder for folder in (store_path.absolute(), *store_path.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if sum(estimates.values()) > free:
        parts = ", ".join(f"features.{name} {size / 2**30:.3g}" for name, size in estimates.items() if size)
        needed = sum(estimates.values()) / 2**30
        raise StoreError(
            f"{store_path}: about {needed:.3g} GiB are needed ({parts}) and {free / 2**30:.3g} GiB are free; "
            "pool frames to fewer rows, make space, or give another store.path"
        )
    return estimates


def _to_do(plan: Plan, store: FeatureStore) -> list[Group]:
    return [group for group in plan.groups if store.missing(group.keys())]


def _run(
    groups: Sequence[Group], store: FeatureStore, num_workers: int, executor: Executor | None, progress: bool
) -> dict[str, float]:
    """Extracts and stores; gives the computing seconds of each extractor."""
    units = make_units(groups, num_workers)
    seconds: dict[str, float] = {}
    sizes = {name: _Sizes(sum(group.source_bytes for group in groups if group.name == name)) for name in _names(groups)}
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(progress_bars(_num_clips(groups), enabled=progress))
        pool = executor or stack.enter_context(local_pool(min(num_workers, max(1, len(units)))))
        # One unit more than there are workers keeps them busy while the parent writes.
        in_flight = 1 if isinstance(pool, InProcess) else num_workers + 1
        for unit, extracted in computed(units, pool, in_flight):
            sizes[unit.name].written_bytes += _store_unit(store, unit, extracted)
            sizes[unit.name].done_bytes += sum(group.source_bytes for group in unit.groups)
            seconds[unit.name] = seconds.get(unit.name, 0.0) + extracted.seconds
            advance(_shown(unit.name), len(unit.clips))
            _check_room(store.path, sizes.values())
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


@dataclass(slots=True)
class _Sizes:
    """What an extractor has read and written so far."""

    source_bytes: int
    done_bytes: int = 0
    written_bytes: int = 0

    @property
    def left_bytes(self) -> float:
        """Bytes that the rest will take, going by what a byte of source has taken so far; 0 before it has begun."""
        return self.written_bytes / max(self.done_bytes, 1) * (self.source_bytes - self.done_bytes)


def _names(groups: Sequence[Group]) -> list[str]:
    return list(dict.fromkeys(group.name for group in groups))


def _check_room(store_path: Path, sizes: Iterable[_Sizes]) -> None:
    """Stops early where the rest of what has begun cannot fit.

    Why each extractor by itself: a text takes a hundred times its bytes, a film a thousandth of them.

    Raises:
        StoreError: If it cannot.
    """
    left = sum(size.left_bytes for size in sizes)
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
