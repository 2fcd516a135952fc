from __future__ import annotations

import gc
import os
import pickle
import resource
import shutil
import signal as signals
import subprocess
import sys
import time
from pathlib import Path

import lmdb
import numpy as np
import pytest

from mersuite import store_environment
from mersuite.clip import Signal
from mersuite.errors import StoreError
from mersuite.store import FeatureStore, SourceHash
from mersuite.store_entry import StoreKey, checksum_matches, key_bytes, pack, parse_key

TINY = 2**16
NAMES = tuple(f"EEG {index}" for index in range(16))


def key(index: int, fingerprint: str = "f" * 64, stream: str = "eeg") -> StoreKey:
    return StoreKey("probe", f"s1/v{index}", stream, fingerprint)


def make(index: int, num_rows: int = 400) -> Signal:
    data = np.random.default_rng(index).normal(size=(num_rows, 16)).astype(np.float32)
    return Signal(data=data, rate_hz=1000 / 21, ch_names=NAMES, ch_types=("eeg",) * 16, unit="V", start_s=-0.5)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with ten entries."""
    with FeatureStore(tmp_path / "store", readonly=False, map_size_bytes=TINY) as store:
        store.put({key(index): make(index) for index in range(10)})
    return tmp_path / "store"


def same(found: Signal | None, wanted: Signal) -> bool:
    assert found is not None
    fields = ("rate_hz", "ch_names", "ch_types", "unit", "start_s")
    equal = all(getattr(found, name) == getattr(wanted, name) for name in fields)
    return equal and found.data.dtype == wanted.data.dtype and np.array_equal(found.data, wanted.data)


# ---- reading and writing


def test_streams_come_back_bit_for_bit_with_everything_that_describes_them(path: Path) -> None:
    with FeatureStore(path, readonly=True) as store:
        assert all(same(store.get(key(index)), make(index)) for index in range(10))
        assert [item.clip_id for item in store.all_keys()] == [key(index).clip_id for index in range(10)]


def test_large_arrays_are_views_on_the_map_aligned_to_64_bytes_and_read_only(path: Path) -> None:
    with FeatureStore(path, readonly=True) as store:
        signal = store.get(key(3))
    assert signal is not None
    assert not signal.data.flags.owndata
    assert signal.data.ctypes.data % 64 == 0
    with pytest.raises(ValueError, match="read-only"):
        signal.data[0, 0] = 1.0


def test_small_arrays_are_aligned_for_their_type_and_read_only(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, readonly=False) as store:
        store.put({key(index, stream=f"{'x' * index}"): make(index, 1) for index in range(1, 9)})
        found = [store.get(key(index, stream=f"{'x' * index}")) for index in range(1, 9)]
    assert all(item is not None and item.data.flags.aligned and not item.data.flags.writeable for item in found)
    assert all(same(item, make(index, 1)) for index, item in enumerate(found, start=1))


def test_token_ids_keep_their_whole_number_type(tmp_path: Path) -> None:
    tokens = Signal(data=np.arange(7, dtype=np.int64)[:, None], rate_hz=0.0, ch_names=())
    with FeatureStore(tmp_path, readonly=False) as store:
        store.put({key(0): tokens})
        assert same(store.get(key(0)), tokens)


def test_a_note_that_a_stream_does_not_exist_counts_as_an_entry_and_reads_as_none(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, readonly=False) as store:
        store.put({key(0): None})
        assert store.has(key(0))
        assert store.get(key(0)) is None


def test_channel_names_are_stored_once_for_all_clips(path: Path) -> None:
    raw = (path / "data.mdb").read_bytes()
    assert raw.count(NAMES[-1].encode()) == 1


def test_arrays_outlive_the_store_they_were_read_from(path: Path) -> None:
    store = FeatureStore(path, readonly=True)
    found = store.get(key(5))
    store.close()
    del store
    gc.collect()
    assert same(found, make(5))
    with FeatureStore(path, readonly=True) as again:
        assert same(again.get(key(6)), make(6))


def test_a_reader_sees_what_is_written_after_it_was_opened(path: Path) -> None:
    with FeatureStore(path, readonly=True) as reader, FeatureStore(path, readonly=False) as writer:
        assert not reader.has(key(77))
        writer.put({key(77): make(77)})
        assert same(reader.get(key(77)), make(77))


def test_get_many_and_missing_keep_the_order_asked_for(path: Path) -> None:
    with FeatureStore(path, readonly=True) as store:
        found = store.get_many([key(4), key(2)])
        assert store.missing([key(99), key(1), key(98)]) == [key(99), key(98)]
    assert same(found[0], make(4))
    assert same(found[1], make(2))


def test_an_unknown_key_names_the_cure(path: Path) -> None:
    with (
        FeatureStore(path, readonly=True) as store,
        pytest.raises(StoreError, match=r"not prepared; run `mersuite prep"),
    ):
        store.get(key(99))


def test_another_fingerprint_is_never_answered_with_stored_features(path: Path) -> None:
    with FeatureStore(path, readonly=True) as store:
        assert not store.has(key(0, "0" * 64))
        with pytest.raises(StoreError, match="made by another configuration or from other files"):
            store.get(key(0, "0" * 64))


# ---- what is refused


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full((4, 16), np.nan, np.float32), "64 of 64 values are NaN or infinite"),
        (np.array([[np.inf] * 16], np.float32), "16 of 16 values are NaN or infinite"),
        (np.zeros((4, 16)), "need float32"),
        (np.zeros((4, 15), np.float32), "15 channels but 16 ch_names"),
        (np.zeros((0, 16), np.float32), r"need \(time, channel\) with both above 0"),
        (np.zeros(16, np.float32), r"need \(time, channel\)"),
    ],
)
def test_values_that_may_not_be_stored_are_refused_and_nothing_of_the_group_is_written(
    path: Path, data: np.ndarray, message: str
) -> None:
    bad = Signal(data=data, rate_hz=10.0, ch_names=NAMES)
    with FeatureStore(path, readonly=False) as store:
        with pytest.raises(StoreError, match=message):
            store.put({key(50): make(50), key(51): bad})
        assert not store.has(key(50))


def test_a_stream_without_a_rate_must_be_one_vector(path: Path) -> None:
    bad = Signal(data=np.zeros((2, 1), np.float32), rate_hz=0.0, ch_names=())
    with FeatureStore(path, readonly=False) as store, pytest.raises(StoreError, match="one vector, got 2 rows"):
        store.put({key(50): bad})


def test_a_rate_must_be_a_finite_number(path: Path) -> None:
    bad = Signal(data=np.zeros((2, 1), np.float32), rate_hz=float("nan"), ch_names=())
    with FeatureStore(path, readonly=False) as store, pytest.raises(StoreError, match="finite rate"):
        store.put({key(50): bad})


def test_names_that_do_not_fit_a_key_are_refused() -> None:
    with pytest.raises(StoreError, match="at most 511: shorten the clip's name"):
        key_bytes(StoreKey("d", "c" * 500, "eeg", "f" * 64))
    with pytest.raises(StoreError, match="four texts without NUL"):
        key_bytes(StoreKey("d", "c\0", "eeg", "f"))
    assert parse_key(key_bytes(key(3))) == key(3)


def test_a_reader_cannot_write(path: Path) -> None:
    with FeatureStore(path, readonly=True) as store, pytest.raises(StoreError, match="opened for reading"):
        store.put({key(1): make(1)})


def test_a_closed_store_says_so(path: Path) -> None:
    store = FeatureStore(path, readonly=True)
    store.close()
    with pytest.raises(StoreError, match="was closed"):
        store.has(key(1))


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a feature store"):
        FeatureStore(tmp_path, readonly=True)


def test_a_folder_with_other_files_is_not_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StoreError, match=r"holds 'thesis\.tex'"):
        FeatureStore(tmp_path, readonly=False)


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make a feature store here"):
        FeatureStore(tmp_path / "file", readonly=False)


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"\1" * 20000)
    with pytest.raises(StoreError, match="damaged or not made by mersuite"):
        FeatureStore(tmp_path, readonly=True)


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    env = lmdb.open(str(tmp_path))
    with env.begin(write=True) as transaction:
        transaction.put(b"a", b"b")
    env.close()
    for readonly in (True, False):
        with pytest.raises(StoreError, match="an LMDB database of something else"):
            FeatureStore(tmp_path, readonly=readonly)


def test_an_empty_database_is_no_store_to_read(tmp_path: Path) -> None:
    lmdb.open(str(tmp_path)).close()
    with pytest.raises(StoreError, match="is an empty feature store"):
        FeatureStore(tmp_path, readonly=True)


def test_another_format_version_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_environment, "FORMAT", b"mersuite features 2")
    for readonly in (True, False):
        with pytest.raises(StoreError, match="holds format 'mersuite features 1'; this version reads"):
            FeatureStore(path, readonly=readonly)


def test_a_truncated_file_is_refused_before_anything_is_read(path: Path) -> None:
    size = (path / "data.mdb").stat().st_size
    os.truncate(path / "data.mdb", size // 2)
    for readonly in (True, False):
        with pytest.raises(StoreError, match=rf"cut short: it has {size // 2} bytes"):
            FeatureStore(path, readonly=readonly)


def test_a_folder_that_may_not_be_written_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda item, mode: False)
    with pytest.raises(StoreError, match="no permission to write"):
        FeatureStore(path, readonly=False)


def test_a_store_that_may_not_be_written_can_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda item, mode: False)
    opened = []
    real_open = lmdb.open
    monkeypatch.setattr(lmdb, "open", lambda *args, **options: opened.append(options) or real_open(*args, **options))
    with FeatureStore(path, readonly=True) as store:
        assert same(store.get(key(2)), make(2))
    assert opened[0]["readonly"]
    assert not opened[0]["lock"]


# ---- damage


def test_verify_names_every_damaged_entry_and_no_other(path: Path) -> None:
    raw = bytearray((path / "data.mdb").read_bytes())
    for index in (2, 7):
        place = raw.index(make(index).data.tobytes()[:64])
        raw[place + 5000] ^= 0xFF
    (path / "data.mdb").write_bytes(raw)
    with FeatureStore(path, readonly=True) as store:
        assert [damage.key for damage in store.verify()] == [key(2), key(7)]


def test_verify_finds_nothing_wrong_with_a_sound_store(path: Path) -> None:
    with FeatureStore(path, readonly=True) as store:
        assert store.verify() == ()


def test_an_entry_with_a_damaged_header_is_refused_when_read_and_named_by_verify(path: Path) -> None:
    raw = bytearray((path / "data.mdb").read_bytes())
    place = raw.index(make(4).data.tobytes()[:64])
    raw[place - 300 : place] = bytes(300)
    (path / "data.mdb").write_bytes(raw)
    with FeatureStore(path, readonly=True) as store:
        with pytest.raises(StoreError, match=r"s1/v4 eeg .* damaged"):
            store.get(key(4))
        assert [damage.key for damage in store.verify()] == [key(4)]


@pytest.mark.parametrize("position", [0, 4, 8, 12, 60, -1])
def test_one_changed_byte_anywhere_is_noticed(position: int) -> None:
    value = bytearray(pack(make(0), bytes(16)))
    value[position] ^= 0x20
    try:
        noticed = not checksum_matches(key(0), memoryview(value))
    except StoreError:
        noticed = True
    assert noticed


def test_damaged_entries_can_be_removed_and_written_again(path: Path) -> None:
    with FeatureStore(path, readonly=False) as store:
        assert store.remove([key(3), key(99)]) == 1
        assert store.missing([key(3)]) == [key(3)]
        store.put({key(3): make(3)})
        assert same(store.get(key(3)), make(3))


# ---- superseded entries


def test_prune_removes_only_entries_that_a_kept_fingerprint_supersedes(path: Path) -> None:
    new, other = "a" * 64, "b" * 64
    with FeatureStore(path, readonly=False) as store:
        store.put({key(0, new): make(0), key(1, new): make(1), key(5, other, "face"): make(5)})
        assert store.prune({new}) == 2
        assert store.missing([key(0), key(1)]) == [key(0), key(1)]
        assert store.missing([key(0, new), key(1, new), key(2), key(5, other, "face")]) == []


def test_the_space_of_pruned_entries_is_used_again(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, readonly=False) as store:
        sizes = []
        for generation in range(8):
            fingerprint = f"{generation:064d}"
            store.put({key(index, fingerprint): make(index) for index in range(10)})
            store.prune({fingerprint})
            sizes.append(store.size_bytes)
        assert len(list(store.all_keys())) == 10
    assert sizes[-1] <= 3 * sizes[0]


# ---- growth


def test_a_store_grows_from_a_tiny_map(tmp_path: Path) -> None:
    with FeatureStore(tmp_path, readonly=False, map_size_bytes=TINY) as store:
        for start in range(0, 100, 10):
            store.put({key(index): make(index) for index in range(start, start + 10)})
        assert store.size_bytes > 30 * TINY
    with FeatureStore(tmp_path, readonly=True, map_size_bytes=TINY) as store:
        assert all(same(store.get(key(index)), make(index)) for index in range(100))


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
        store.put({key(40): make(40)})
        assert store.has(key(40))


def test_waiting_ends_when_the_holder_is_done(path: Path) -> None:
    process = hold(path, 0.5)
    start = time.monotonic()
    FeatureStore(path, readonly=False, wait=True).close()
    assert time.monotonic() - start > 0.1
    process.communicate()


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


def test_hashes_of_sources_are_remembered_by_path(path: Path, tmp_path: Path) -> None:
    item = SourceHash(size_bytes=3, mtime_ns=12, sha256="ab")
    with FeatureStore(path, readonly=False) as store:
        store.put({}, {tmp_path / "a.mat": item})
        assert store.source_hash(tmp_path / "a.mat") == item
        assert store.source_hash(tmp_path / "b.mat") is None


def test_the_file_always_covers_the_pages_that_the_database_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with FeatureStore(tmp_path, readonly=False, map_size_bytes=TINY) as store:
        keys: list[StoreKey] = []
        for step in range(60):
            store.put({key(1000 * step + index): make(index, int(rng.integers(1, 60))) for index in range(8)})
            keys = list(store.all_keys())
            store.remove([keys[int(index)] for index in rng.integers(0, len(keys), 6)])
            assert (tmp_path / "data.mdb").stat().st_size >= store.size_bytes - 4096 * 4
