"""Growth, forks, other processes and full disks."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mersuite.clip import Signal
from mersuite.errors import StoreError
from mersuite.store import FeatureStore
from mersuite.store_entry import StoreKey

TINY = 2**16


def key(index: int) -> StoreKey:
    return StoreKey("probe", f"s1/v{index}", "eeg", "f" * 64)


def make(index: int, num_rows: int = 400) -> Signal:
    data = np.random.default_rng(index).normal(size=(num_rows, 16)).astype(np.float32)
    return Signal(data=data, rate_hz=1000 / 21, ch_names=())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with ten entries."""
    with FeatureStore(tmp_path / "store", readonly=False, map_size_bytes=TINY) as store:
        store.put({key(index): make(index) for index in range(10)})
    return tmp_path / "store"


def same(found: Signal | None, wanted: Signal) -> bool:
    return found is not None and np.array_equal(found.data, wanted.data)


# ---- growth


def test_a_store_grows_from_a_tiny_map(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, readonly=False, map_size_bytes=TINY) as store:
        for start in range(0, 100, 10):
            store.put({key(index): make(index) for index in range(start, start + 10)})
        assert store.size_bytes > 30 * TINY
    with FeatureStore(tmp_path, readonly=True, map_size_bytes=TINY) as store:
        assert all(same(store.get(key(index)), make(index)) for index in range(100))


SMALL = """
import resource, sys
from pathlib import Path
from mersuite.store import FeatureStore
resource.setrlimit(resource.RLIMIT_AS, (4 * 2**30, resource.getrlimit(resource.RLIMIT_AS)[1]))
with FeatureStore(Path(sys.argv[1]), readonly=True) as store:
    print(sum(store.get(key).data.shape[0] for key in store.all_keys()))
"""


def test_a_store_opens_where_address_space_is_limited(path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SMALL, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout == "4000\n", done.stderr


def test_growth_under_arrays_that_are_in_use_is_refused_and_possible_once_they_are_gone(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, readonly=False, map_size_bytes=2 * TINY) as store:
        store.put({key(0): make(0)})
        held = store.get(key(0))
        with pytest.raises(StoreError, match="must grow while arrays read from it are in use"):
            store.put({key(index): make(index) for index in range(1, 20)})
        assert same(held, make(0))
        del held
        gc.collect()
        store.put({key(index): make(index) for index in range(1, 20)})
        assert same(store.get(key(19)), make(19))


FOLLOW = """
import sys
from pathlib import Path
from mersuite.store import FeatureStore
from mersuite.store_entry import StoreKey
key = StoreKey("probe", "s1/v59", "eeg", "f" * 64)
with FeatureStore(Path(sys.argv[1]), readonly=True, map_size_bytes=2**16) as store:
    print(store.has(key), flush=True)
    sys.stdin.readline()
    print(float(store.get(key).data.sum()), flush=True)
"""


def test_a_reader_in_another_process_follows_growth(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, readonly=False, map_size_bytes=TINY) as store:
        store.put({key(0): make(0, 10)})
        reader = subprocess.Popen(
            [sys.executable, "-c", FOLLOW, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert reader.stdout is not None
        assert reader.stdout.readline() == "False\n"
        store.put({key(index): make(index) for index in range(1, 60)})
        assert reader.communicate("grown\n", timeout=60)[0] == f"{float(make(59).data.sum())}\n"


# ---- processes


def test_a_forked_child_reads_on_also_with_inherited_arrays(path: Path) -> None:
    store = FeatureStore(path, readonly=True)
    for held in (None, store.get(key(1))):
        child = os.fork()
        if child == 0:
            good = held is None or same(held, make(1))
            good = good and same(store.get(key(2)), make(2)) and len(list(store.all_keys())) == 10
            with FeatureStore(path, readonly=True) as second:
                good = good and same(second.get(key(3)), make(3))
            os._exit(0 if good else 1)
        assert os.waitpid(child, 0)[1] == 0
    assert same(store.get(key(4)), make(4))
    with FeatureStore(path, readonly=False) as writer:
        writer.put({key(20): make(20)})
    assert same(store.get(key(20)), make(20))
    store.close()


def test_a_forked_child_with_older_arrays_sees_what_its_parent_saw_last(path: Path) -> None:
    store = FeatureStore(path, readonly=True)
    held = store.get(key(1))
    with FeatureStore(path, readonly=False) as writer:
        writer.put({key(20): make(20)})
    assert store.has(key(20))
    child = os.fork()
    if child == 0:
        os._exit(0 if same(store.get(key(20)), make(20)) and same(held, make(1)) else 1)
    assert os.waitpid(child, 0)[1] == 0
    store.close()


def test_a_forked_child_that_ends_does_not_take_the_parents_snapshot(path: Path) -> None:
    store = FeatureStore(path, readonly=True)
    held = store.get(key(1))
    if os.fork() == 0:
        store.get(key(2))
        store.close()
        gc.collect()
        os._exit(0)
    os.wait()
    # Another process deletes and rewrites everything several times: the pages of the held array must not be used.
    subprocess.run([sys.executable, "-c", CHURN, str(path)], check=True, cwd=Path.cwd())
    assert same(held, make(1))
    store.close()


CHURN = """
import sys
from pathlib import Path
import numpy as np
from mersuite.clip import Signal
from mersuite.store import FeatureStore
with FeatureStore(Path(sys.argv[1]), readonly=False) as store:
    keys = list(store.all_keys())
    for generation in range(6):
        store.remove(keys)
        data = np.full((400, 16), generation, np.float32)
        store.put({key: Signal(data=data, rate_hz=1.0, ch_names=()) for key in keys})
"""


def test_a_forked_child_with_inherited_arrays_cannot_write_and_says_why(path: Path) -> None:
    store = FeatureStore(path, readonly=True)
    held = store.get(key(1))
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with FeatureStore(path, readonly=False) as writer:
                writer.put({key(30): make(30)})
        except StoreError as error:
            status = 0 if "cannot write while it holds arrays" in str(error) else 2
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert held is not None
    store.close()


def test_a_pickled_store_is_a_reader_of_the_same_path(path: Path) -> None:
    with FeatureStore(path, readonly=False) as writer:
        copy = pickle.loads(pickle.dumps(writer))
        assert copy.readonly
        assert same(copy.get(key(8)), make(8))
        copy.close()


def test_a_store_deleted_and_made_again_at_its_path_is_read_anew(path: Path) -> None:
    old = FeatureStore(path, readonly=True)
    assert old.has(key(1))
    shutil.rmtree(path)
    with FeatureStore(path, readonly=False) as writer:
        writer.put({key(70): make(70)})
        with FeatureStore(path, readonly=True) as reader:
            assert list(reader.all_keys()) == [key(70)]
    old.close()


# ---- no space


def test_a_full_disk_is_noticed_before_writing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(path)
    with FeatureStore(path, readonly=False) as store:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        with pytest.raises(StoreError, match=r"no space left: .* are needed and .* are free; nothing was written"):
            store.put({key(60): make(60)})
        monkeypatch.undo()
        assert not store.has(key(60))


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import numpy as np
from mersuite.clip import Signal
from mersuite.errors import StoreError
from mersuite.store import FeatureStore
from mersuite.store_entry import StoreKey
path = Path(sys.argv[1])
with FeatureStore(path, readonly=False) as store:
    size = (path / "data.mdb").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 200_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    big = Signal(data=np.ones((2000, 16), np.float32), rate_hz=1.0, ch_names=())
    try:
        for index in range(20):
            store.put({StoreKey("d", f"c{index}-{part}", "s", "f") : big for part in range(2)})
        sys.exit("no error was raised")
    except StoreError as error:
        print(error)
    groups = {}
    for found in store.all_keys():
        if found.dataset == "d":
            assert np.array_equal(store.get(found).data, big.data)
            groups.setdefault(found.clip_id.split("-")[0], []).append(found)
    assert all(len(group) == 2 for group in groups.values()), groups
    assert store.verify() == ()
"""


def test_a_write_that_the_system_cuts_off_leaves_whole_groups_only(path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_FSIZE)[1] != resource.RLIM_INFINITY:
        pytest.skip("file sizes are limited here already")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(Path.cwd())], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "nothing was written" in done.stdout
    assert "make space or give another store.path" in done.stdout
    with FeatureStore(path, readonly=False) as store:
        assert store.verify() == ()
        store.put({key(61): make(61)})
        assert same(store.get(key(61)), make(61))


def test_the_file_always_covers_the_pages_that_the_database_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with FeatureStore(tmp_path, readonly=False, map_size_bytes=TINY) as store:
        keys: list[StoreKey] = []
        for step in range(60):
            store.put({key(1000 * step + index): make(index, int(rng.integers(1, 60))) for index in range(8)})
            keys = list(store.all_keys())
            store.remove([keys[int(index)] for index in rng.integers(0, len(keys), 6)])
            assert (tmp_path / "data.mdb").stat().st_size >= store.size_bytes - 4096 * 4
