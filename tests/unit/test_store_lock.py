from __future__ import annotations

import os
import signal as signals
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mersuite.errors import StoreError
from mersuite.store import FeatureStore
from mersuite.store_lock import LOCK_FILE, WriterLock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An empty store."""
    FeatureStore(tmp_path / "store", readonly=False).close()
    return tmp_path / "store"


def test_one_process_holds_one_writer(path: Path) -> None:
    with (
        FeatureStore(path, readonly=False),
        pytest.raises(StoreError, match="already open for writing in this process"),
    ):
        FeatureStore(path, readonly=False)
    FeatureStore(path, readonly=False).close()


HOLD = """
import sys, time
from pathlib import Path
from mersuite.store import FeatureStore
with FeatureStore(Path(sys.argv[1]), readonly=False):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def hold(path: Path, seconds: float) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_told_which_process_holds_the_store(path: Path) -> None:
    process = hold(path, 60)
    try:
        with pytest.raises(StoreError, match=rf"is being written by process {process.pid} on "):
            FeatureStore(path, readonly=False)
    finally:
        process.kill()
        process.communicate()


def test_a_waiting_writer_goes_on_when_the_holder_is_killed(path: Path) -> None:
    process = hold(path, 60)
    process.send_signal(signals.SIGKILL)
    process.communicate()
    with FeatureStore(path, readonly=False, wait=True) as store:
        assert list(store.all_keys()) == []


def test_waiting_ends_when_the_holder_is_done(path: Path) -> None:
    process = hold(path, 0.5)
    start = time.monotonic()
    FeatureStore(path, readonly=False, wait=True).close()
    assert time.monotonic() - start > 0.1
    process.communicate()


def test_a_forked_child_neither_holds_nor_releases_its_parents_lock(path: Path) -> None:
    told: list[str] = []
    lock = WriterLock(path, wait=False, on_wait=told.append)
    child = os.fork()
    if child == 0:
        lock.release()
        try:
            WriterLock(path, wait=False, on_wait=told.append)
        except StoreError as error:
            os._exit(0 if f"process {os.getppid()} " in str(error) else 2)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    lock.release()
    WriterLock(path, wait=False, on_wait=told.append).release()
    assert told == []


def test_a_holder_that_left_no_note_is_called_another_process(path: Path) -> None:
    process = hold(path, 60)
    try:
        (path / LOCK_FILE).write_text("")
        with pytest.raises(StoreError, match="is being written by another process; wait for it to end"):
            FeatureStore(path, readonly=False)
    finally:
        process.kill()
        process.communicate()
