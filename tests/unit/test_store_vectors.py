"""Vectors of many clips at once: equal to reading one by one, and refused where something else is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mersuite.clip import Sample, Signal
from mersuite.data.dataset import WindowDataset
from mersuite.data.windows import plan_windows
from mersuite.prepare import FeatureReader
from mersuite.store import FeatureStore
from mersuite.store_entry import StoreKey

WIDTH = 37
NAMES = tuple(f"v {index}" for index in range(WIDTH))


def key_of(name: str, stream: str = "voice") -> StoreKey:
    return StoreKey("d", name, stream, "f")


def vector(value: np.ndarray | float, **fields: object) -> Signal:
    data = np.broadcast_to(np.asarray(value, np.float32), (1, WIDTH)).copy()
    return Signal(**{"data": data, "rate_hz": 0.0, "ch_names": NAMES, **fields})


@pytest.fixture
def vectors(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {f"c{i}": rng.standard_normal(WIDTH).astype(np.float32) for i in range(1200)}


@pytest.fixture
def store_path(tmp_path: Path, vectors: dict[str, np.ndarray]) -> Path:
    with FeatureStore(tmp_path / "store", readonly=False) as store:
        store.put({key_of(name): vector(values) for name, values in vectors.items()})
        store.put(
            {
                key_of("gone"): None,
                key_of("wide"): Signal(data=np.ones((1, WIDTH + 1), np.float32), rate_hz=0.0, ch_names=()),
            }
        )
        store.put({key_of("long"): Signal(data=np.ones((2, WIDTH), np.float32), rate_hz=1.0, ch_names=NAMES)})
        store.put({key_of("other"): vector(1.0, unit="dB")})
    return tmp_path / "store"


def reader_of(path: Path, names: list[str]) -> FeatureReader:
    keys = {(name, "voice"): key_of(name) for name in names}
    return FeatureReader(path, clip_ids=[*names, "left out"], streams=("voice",), keys=keys)


def test_vectors_of_many_clips_equal_those_read_one_by_one(store_path: Path, vectors: dict[str, np.ndarray]) -> None:
    order = list(vectors)[::-1]
    with FeatureStore(store_path, readonly=True) as store:
        found = store.get_vectors([key_of(name) for name in order])
    assert found is not None and found.dtype == np.float32
    assert np.array_equal(found, np.stack([vectors[name] for name in order]))


@pytest.mark.parametrize("odd", ["gone", "wide", "long", "other", "absent"])
@pytest.mark.parametrize("place", [0, 700])
def test_anything_but_alike_vectors_is_left_to_reading_one_by_one(
    store_path: Path, vectors: dict[str, np.ndarray], odd: str, place: int
) -> None:
    names = list(vectors)
    names.insert(place, odd)
    with FeatureStore(store_path, readonly=True) as store:
        assert store.get_vectors([key_of(name) for name in names]) is None


def test_one_vector_asked_for_twice_is_left_to_reading_one_by_one(store_path: Path) -> None:
    with FeatureStore(store_path, readonly=True) as store:
        assert store.get_vectors([key_of("c1"), key_of("c1")]) is None
        assert store.get_vectors([]) is None


def test_damaged_header_is_never_taken_for_numbers(store_path: Path, vectors: dict[str, np.ndarray]) -> None:
    path = store_path / "data.mdb"
    raw = bytearray(path.read_bytes())
    place = raw.find(vectors["c5"].tobytes())
    raw[place - 40] ^= 1
    path.write_bytes(raw)
    with FeatureStore(store_path, readonly=True) as store:
        assert store.get_vectors([key_of(f"c{i}") for i in range(10)]) is None


def test_reader_leaves_out_clips_without_the_stream(store_path: Path, vectors: dict[str, np.ndarray]) -> None:
    reader = reader_of(store_path, ["c1", "c2"])
    found = reader.vectors(["c2", "left out", "c1"], "voice")
    assert found is not None and list(found) == ["c2", "c1"]
    assert np.array_equal(found["c1"], vectors["c1"])
    assert reader.vectors(["left out"], "voice") is None


@pytest.mark.parametrize("extra", [[], ["gone"]])
def test_batches_are_the_same_whether_vectors_are_read_together_or_not(
    store_path: Path, vectors: dict[str, np.ndarray], extra: list[str]
) -> None:
    names = ["c3", "c1", "c2", *extra]
    samples = [Sample(sample_id=f"{name} {turn}", clip_id=name, groups={}) for name in names for turn in range(2)]
    samples += [Sample(sample_id="silent", clip_id="c1", groups={}, streams={"voice": None})]
    samples += [Sample(sample_id="lacks it", clip_id="left out", groups={})]
    dataset = WindowDataset(samples, plan_windows(samples, None, None), reader_of(store_path, names), ["voice"], None)
    batch = dataset.__getitems__(list(range(len(samples))))
    assert (dataset._tables["voice"] is None) == bool(extra)
    for row, sample in enumerate(samples):
        there = sample.clip_id in vectors and sample.stored("voice") is not None
        assert batch.masks["voice"][row].tolist() == [there]
        expected = torch.from_numpy(vectors[sample.clip_id]) if there else torch.zeros(WIDTH)
        assert torch.equal(batch.streams["voice"][row, 0], expected)
