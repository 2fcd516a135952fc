"""Time of an epoch's data loading: stored windows read in batches, against .npy window files read item by item.

    python scripts/bench_data_loading.py [--json] [--repeats 5] [--num-workers 0]

Both sides load the same windows (10 s, every 5 s) of 24 people x 15 clips of 60 to 170 s in random order, in batches of
32, through a DataLoader, and give the same tensors, which is checked. Both are read once before, so that both come from
the page cache, and take turns. Two cases: the default model's features (1 Hz) and raw recordings (64 channels at
200 Hz, 51 x 2 at 1000/21 Hz; fewer people, because they take 100 times the space).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, RandomSampler

from mersuite.clip import Sample, Signal, WindowKey
from mersuite.config import DataConfig, ModelConfig, RunConfig, RuntimeConfig, TrainerConfig
from mersuite.data.datamodule import train_loader
from mersuite.data.windows import plan_windows
from mersuite.prepare import FeatureReader
from mersuite.schema import Named
from mersuite.store import FeatureStore
from mersuite.store_entry import StoreKey

CLIP_S = (135, 137, 90, 79, 135, 93, 122, 107, 70, 60, 61, 63, 111, 103, 170)
WINDOW_S, STRIDE_S, BATCH_SIZE = 10, 5, 32
CASES: Mapping[str, tuple[int, Mapping[str, tuple[float, int]]]] = {
    "features": (24, {"eeg_bands": (1.0, 320), "fnirs_stats": (1.0, 459)}),
    "recordings": (4, {"eeg": (200.0, 64), "fnirs": (1000 / 21, 102)}),
}


def main() -> None:
    """Runs all cases and prints a table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--repeats", type=int, default=5, help="epochs of each side")
    parser.add_argument("--num-workers", type=int, default=0, help="loading processes of both sides")
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            results[name] = measure(name, Path(folder), options.repeats, options.num_workers)
    if options.json:
        print(json.dumps(results))
        return
    for name, item in results.items():
        print(
            f"{name}: {item['num_windows']} windows, {item['mib']:.0f} MiB an epoch: store {item['store_s']:.3f} s, "
            f".npy files {item['npy_s']:.3f} s, ratio {item['ratio']:.1f}"
        )


def measure(case: str, folder: Path, repeats: int, num_workers: int) -> dict[str, float]:
    """Writes both forms and times both loaders in turn."""
    num_subjects, streams = CASES[case]
    samples = [
        Sample(sample_id=f"s{subject}/v{clip}", clip_id=f"s{subject}/v{clip}", groups={}, duration_s=float(length))
        for subject in range(num_subjects)
        for clip, length in enumerate(CLIP_S)
    ]
    targets = {item.sample_id: np.zeros((int(item.duration_s or 0), 2), np.float32) for item in samples}
    windows = plan_windows(samples, WINDOW_S, STRIDE_S)
    reader = write_store(folder / "store", samples, streams)
    write_files(folder / "npy", windows, reader, streams, targets)
    config = RunConfig(
        track="ps",
        options=None,
        data=DataConfig(window_s=WINDOW_S, stride_s=STRIDE_S, jitter=False),
        model=ModelConfig(encoders={name: Named(name="mlp", config=None) for name in streams}),
        trainer=TrainerConfig(batch_size=BATCH_SIZE),
        runtime=RuntimeConfig(num_workers=num_workers, accelerator="cpu"),
    )
    ours = train_loader(
        config, samples, reader, lambda item: {"course": targets[item.sample_id]}, seed=0, rank=0, world_size=1
    )
    dataset = NpyWindows(folder / "npy", len(windows), (*streams, "course"))
    theirs = DataLoader(
        dataset,
        BATCH_SIZE,
        sampler=RandomSampler(dataset, generator=torch.Generator().manual_seed(0)),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    check_same(windows, ours, theirs, streams)
    store_s, npy_s = [], []
    for _ in range(repeats):
        npy_s.append(seconds(lambda: sum(len(item["course"]) for item in theirs)))
        store_s.append(seconds(lambda: sum(len(item) for item in ours)))
    return {
        "num_windows": len(windows),
        "mib": sum(round(rate * WINDOW_S) * width * 4 for rate, width in streams.values()) * len(windows) / 2**20,
        "store_s": statistics.median(store_s),
        "npy_s": statistics.median(npy_s),
        "ratio": statistics.median(npy_s) / statistics.median(store_s),
    }


def write_store(path: Path, samples: list[Sample], streams: Mapping[str, tuple[float, int]]) -> FeatureReader:
    """Stores random continuous trials."""
    rng = np.random.default_rng(0)
    keys = {(item.clip_id, name): StoreKey("bench", item.clip_id, name, "f") for item in samples for name in streams}
    with FeatureStore(path, readonly=False) as store:
        for item in samples:
            entries: dict[StoreKey, Signal | None] = {}
            for name, (rate_hz, width) in streams.items():
                rows = round((item.duration_s or 0) * rate_hz)
                data = rng.standard_normal((rows, width), dtype=np.float32)
                names = tuple(f"{name} {index}" for index in range(width))
                entries[keys[item.clip_id, name]] = Signal(data=data, rate_hz=rate_hz, ch_names=names)
            store.put(entries)
    return FeatureReader(path, clip_ids=[item.clip_id for item in samples], streams=tuple(streams), keys=keys)


def write_files(
    folder: Path,
    windows: list[WindowKey],
    reader: FeatureReader,
    streams: Mapping[str, tuple[float, int]],
    targets: Mapping[str, np.ndarray],
) -> None:
    """Writes one .npy file a window and stream, and one for its target."""
    folder.mkdir()
    for index, window in enumerate(windows):
        for name, (rate_hz, _) in streams.items():
            signal = reader.get(window.sample_id, name)
            if signal is None:
                raise RuntimeError(f"{window.sample_id} was not stored")
            first = round(window.start_s * rate_hz)
            np.save(folder / f"{index}.{name}.npy", signal.data[first : first + round(WINDOW_S * rate_hz)])
        start = int(window.start_s)
        np.save(folder / f"{index}.course.npy", targets[window.sample_id][start : start + WINDOW_S])


class NpyWindows(Dataset):
    """The usual way: a file a window and stream, read item by item."""

    def __init__(self, folder: Path, length: int, names: tuple[str, ...]) -> None:
        self.folder, self.length, self.names = folder, length, names

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {name: torch.from_numpy(np.load(self.folder / f"{index}.{name}.npy")) for name in self.names}


def check_same(windows: list[WindowKey], ours: DataLoader, theirs: DataLoader, streams: Mapping[str, object]) -> None:
    """Makes sure that both sides give the same windows; also brings both into the page cache."""
    place = {window: index for index, window in enumerate(windows)}
    sums = {name: np.zeros(len(windows)) for name in streams}
    for batch in ours:
        index = [place[key] for key in batch.keys]
        for name in streams:
            sums[name][index] = batch.streams[name].double().sum((1, 2)).numpy()
    order = list(theirs.sampler)
    for item in theirs:
        if len(item["course"]) == 0:
            raise RuntimeError("an empty batch")
    for index in order[:200]:
        for name in streams:
            if not np.isclose(theirs.dataset[index][name].double().sum().item(), sums[name][index]):
                raise RuntimeError(f"window {index} differs between the store and the files")


def seconds(run: Callable[[], int]) -> float:
    """Times one epoch."""
    start = time.perf_counter()
    if run() == 0:
        raise RuntimeError("nothing was loaded")
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
