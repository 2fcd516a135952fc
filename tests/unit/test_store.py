from __future__ import annotations

import gc
import os
from pathlib import Path

import lmdb
import numpy as np
import pytest

from mersuite import store_environment
from mersuite.clip import Signal
from mersuite.errors import StoreError
from mersuite.store import FeatureStore, SourceHash, open_if_made
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


def test_a_file_in_place_of_the_folder_above_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot make a feature store here"):
        FeatureStore(tmp_path / "file" / "store", readonly=False)


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


def test_hashes_of_sources_are_remembered_by_path(path: Path, tmp_path: Path) -> None:
    item = SourceHash(size_bytes=3, mtime_ns=12, sha256="ab")
    with FeatureStore(path, readonly=False) as store:
        store.put({}, {tmp_path / "a.mat": item})
        assert store.source_hash(tmp_path / "a.mat") == item
        assert store.source_hash(tmp_path / "b.mat") is None


@pytest.mark.parametrize("readonly", [True, False])
def test_path_of_a_file_is_refused(tmp_path: Path, readonly: bool) -> None:
    (tmp_path / "store").write_text("mine")
    with pytest.raises(StoreError, match=r"store\.path: .*store is a file, need a folder"):
        FeatureStore(tmp_path / "store", readonly=readonly)
    with pytest.raises(StoreError, match="is a file, need a folder"):
        open_if_made(tmp_path / "store")
    assert (tmp_path / "store").read_text() == "mine"
