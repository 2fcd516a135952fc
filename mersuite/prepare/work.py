"""Running extractors in worker processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass

from mersuite.clip import Clip, Signal
from mersuite.errors import DataError, MersuiteError
from mersuite.features.base import Extractor
from mersuite.prepare.plan import Group

_CHUNK_CLIPS = 8
_NAMED_CLIPS = 5
"""Clips that a message names; a unit may hold a hundred."""
_THREAD_KEYS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What one call of an extractor does, and one transaction stores.

    Attributes:
        groups: One group of several clips, or several clips that stand alone; all of one extractor.
    """

    groups: tuple[Group, ...]

    @property
    def extractor(self) -> Extractor:
        """What runs."""
        return self.groups[0].extractor

    @property
    def name(self) -> str:
        """Name of the extractor's entry under `features`."""
        return self.groups[0].name

    @property
    def clips(self) -> list[Clip]:
        """All clips, in order."""
        return [clip for group in self.groups for clip in group.clips]


@dataclass(frozen=True, slots=True, kw_only=True)
class Extracted:
    """What a worker gives back.

    Attributes:
        streams: Clip id to stream to signal.
        seconds: Computing time.
    """

    streams: Mapping[str, Mapping[str, Signal]]
    seconds: float


def make_units(groups: Sequence[Group], num_workers: int) -> list[Unit]:
    """Puts clips that stand alone together, a few a unit, and leaves groups of several clips as they are."""
    units: list[Unit] = []
    alone: dict[str, list[Group]] = {}
    for group in groups:
        if group.extractor.group_by is None:
            alone.setdefault(group.name, []).append(group)
        else:
            units.append(Unit(groups=(group,)))
    for members in alone.values():
        size = min(members[0].extractor.clips_per_unit or _CHUNK_CLIPS, max(1, len(members) // (4 * num_workers)))
        units += [Unit(groups=tuple(members[start : start + size])) for start in range(0, len(members), size)]
    return units


def extract_unit(extractor: Extractor, clips: Sequence[Clip]) -> Extracted:
    """Runs an extractor and checks that it gave what it promised.

    Raises:
        DataError: As the extractor does, with the clip named.
        RuntimeError: If the extractor breaks its contract.
    """
    start = time.perf_counter()
    streams: dict[str, dict[str, Signal]] = {}
    kind = type(extractor).__name__
    names = ", ".join(clip.clip_id for clip in clips[:_NAMED_CLIPS])
    names += f" and {len(clips) - _NAMED_CLIPS} more" if len(clips) > _NAMED_CLIPS else ""
    try:
        for clip_id, made in extractor.extract(clips):
            if clip_id in streams or clip_id not in {clip.clip_id for clip in clips}:
                raise RuntimeError(
                    f"{kind} gave {clip_id!r}, which it was not asked for or gave already; asked: {names}"
                )
            if unknown := set(made) - set(extractor.outputs()):
                raise RuntimeError(f"{kind} gave the streams {sorted(unknown)}, which its outputs() does not name")
            streams[clip_id] = dict(made)
    except MersuiteError as error:
        if any(clip.clip_id in str(error) for clip in clips):
            raise
        raise type(error)(f"{names}: {error}") from error
    if lost := [clip.clip_id for clip in clips if clip.clip_id not in streams]:
        raise RuntimeError(f"{kind} gave nothing for {lost}; it must yield every clip it is given")
    return Extracted(streams=streams, seconds=time.perf_counter() - start)


class InProcess(Executor):
    """Runs calls at once, in this process: one worker needs no pool."""

    def submit(self, fn, /, *args, **kwargs) -> Future:  # type: ignore[no-untyped-def]
        """Calls and gives a finished future."""
        future: Future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  the future carries it, as in a pool
            future.set_exception(error)
        return future


@contextlib.contextmanager
def local_pool(num_workers: int) -> Iterator[Executor]:
    """Gives an executor of this machine: worker processes with one thread each, or this process for one worker.

    Why spawn: a forked worker inherits locks of threads that do not exist in it.
    """
    if num_workers == 1:
        yield InProcess()
        return
    before = {key: os.environ.get(key) for key in _THREAD_KEYS}
    os.environ.update(dict.fromkeys(_THREAD_KEYS, "1"))  # read when a worker loads its libraries
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, mp_context=context, initializer=_end_with_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


def _end_with_parent() -> None:
    """Ends this worker when its parent is killed: it would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_wait_for_end, args=(parent,), daemon=True).start()


def _wait_for_end(parent) -> None:  # type: ignore[no-untyped-def]
    parent.join()
    os._exit(1)


def computed(units: Sequence[Unit], executor: Executor, max_in_flight: int) -> Iterator[tuple[Unit, Extracted]]:
    """Gives units as they are finished, with few in flight, so that memory is bounded.

    After a failure nothing new is begun; what was in flight and succeeds is still given, then the error is raised.

    Raises:
        DataError: If a recording cannot be extracted or a worker process died.
    """
    waiting = list(reversed(units))
    flying: dict[Future, Unit] = {}
    failure: Exception | None = None
    while flying or (waiting and failure is None):
        while waiting and failure is None and len(flying) < max_in_flight:
            unit = waiting.pop()
            try:
                flying[executor.submit(extract_unit, unit.extractor, unit.clips)] = unit
            except BrokenExecutor as error:
                failure = _died(unit, error)
        done = wait(flying, return_when=FIRST_COMPLETED).done
        for future in done:
            unit = flying.pop(future)
            fault = future.exception()
            if fault is None:
                yield unit, future.result()
            elif failure is None:
                failure = _died(unit, fault) if isinstance(fault, BrokenExecutor) else _as_exception(fault)
    if failure is not None:
        raise failure


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(repr(error))


def _died(unit: Unit, error: BaseException) -> DataError:
    return DataError(
        f"features.{unit.name}: a worker process died while {unit.clips[0].clip_id} was in work ({error}), most likely "
        "for lack of memory (then run again with runtime.prepare_workers=1), or because a script starts mersuite "
        "outside of `if __name__ == '__main__':`; what was finished is kept"
    )
