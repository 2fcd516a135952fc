"""Time to read the utterance features of many clips: from the store in batches, against one .npy file a clip.

    python scripts/bench_feature_reads.py [--json] [--num-clips 20000] [--width 1024] [--repeats 5]

Both sides read the same float32 vectors in the same random order into batches of 32, and give the same numbers, which
is checked first, so that both come from the page cache; then they take turns. `first` is a first epoch, which reads the
store; `later` is one of the epochs after it, which find the vectors in memory. Two ways to read files, which cost the
same each epoch: `bare` loads each with numpy and stacks them, `loader` is a Dataset read item by item through a
DataLoader, as users have it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from mersuite.clip import Sample, Signal
from mersuite.data.dataset import WindowDataset
from mersuite.data.windows import plan_windows
from mersuite.prepare import FeatureReader
from mersuite.store import FeatureStore
from mersuite.store_entry import StoreKey

STREAM = "hubert-UTT"
BATCH_SIZE = 32
CHUNK = 2_000
FILES = ("bare", "loader")
EPOCHS = ("first", "later")


def main() -> None:
    """Measures and prints a line a way, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--num-clips", type=int, default=20_000)
    parser.add_argument("--width", type=int, default=1024, help="of a vector")
    parser.add_argument("--repeats", type=int, default=5, help="passes of each side")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder), options.num_clips, options.width, options.repeats)
    if options.json:
        print(json.dumps(result))
        return
    print(f"{options.num_clips} vectors of {options.width}")
    for epoch in EPOCHS:
        print(f"  {epoch} epoch from the store: {result[f'{epoch}_s']:.3f} s")
        for way in FILES:
            print(f"    .npy files, {way}: {result[f'{way}_s']:.3f} s, ratio {result[f'{way}_to_{epoch}']:.1f}")


def measure(folder: Path, num_clips: int, width: int, repeats: int) -> dict[str, float]:
    """Writes both forms and times all ways in turn; ratios are medians over turns."""
    samples = [Sample(sample_id=f"sample_{i:08d}", clip_id=f"sample_{i:08d}", groups={}) for i in range(num_clips)]
    reader = write_both(folder, samples, width)
    order = np.random.default_rng(1).permutation(num_clips)
    files = [folder / "npy" / f"{samples[i].clip_id}.npy" for i in order]

    def opened() -> WindowDataset:
        return WindowDataset(samples, plan_windows(samples, None, None), reader, [STREAM], None)

    def epoch_of(dataset: WindowDataset) -> Iterator[torch.Tensor]:
        for start in range(0, num_clips, BATCH_SIZE):
            yield dataset.__getitems__(order[start : start + BATCH_SIZE].tolist()).streams[STREAM][:, 0]

    def bare() -> Iterator[torch.Tensor]:
        for start in range(0, num_clips, BATCH_SIZE):
            yield torch.from_numpy(np.stack([np.load(path) for path in files[start : start + BATCH_SIZE]]))

    def loader() -> Iterator[torch.Tensor]:
        yield from DataLoader(NpyFiles(files), BATCH_SIZE)

    kept = opened()
    for ours, *theirs in zip(epoch_of(kept), bare(), loader(), strict=True):
        if not all(torch.equal(ours, other) for other in theirs):
            raise RuntimeError("store and files differ")
    ways = {"first": lambda: epoch_of(opened()), "later": lambda: epoch_of(kept), "bare": bare, "loader": loader}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            times[name].append(seconds(way))
    result = {f"{name}_s": statistics.median(values) for name, values in times.items()}
    for way in FILES:
        for epoch in EPOCHS:
            ratios = [other / own for other, own in zip(times[way], times[epoch], strict=True)]
            result[f"{way}_to_{epoch}"] = statistics.median(ratios)
    return result


def write_both(folder: Path, samples: list[Sample], width: int) -> FeatureReader:
    """Stores random vectors, and writes each as a file."""
    rng = np.random.default_rng(0)
    (folder / "npy").mkdir()
    keys = {(item.clip_id, STREAM): StoreKey("bench", item.clip_id, STREAM, "f" * 64) for item in samples}
    names = tuple(f"{STREAM} {index}" for index in range(width))
    with FeatureStore(folder / "store", readonly=False) as store:
        for start in range(0, len(samples), CHUNK):
            entries: dict[StoreKey, Signal | None] = {}
            for item in samples[start : start + CHUNK]:
                vector = rng.standard_normal(width, dtype=np.float32)
                np.save(folder / "npy" / f"{item.clip_id}.npy", vector)
                entries[keys[item.clip_id, STREAM]] = Signal(data=vector[None], rate_hz=0.0, ch_names=names)
            store.put(entries)
    clip_ids = [item.clip_id for item in samples]
    return FeatureReader(folder / "store", clip_ids=clip_ids, streams=(STREAM,), keys=keys)


class NpyFiles(Dataset):
    """The usual way: a file a clip, read item by item."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(np.load(self.files[index]))


def seconds(way: Callable[[], Iterator[torch.Tensor]]) -> float:
    """Times one pass."""
    start = time.perf_counter()
    if sum(len(batch) for batch in way()) == 0:
        raise RuntimeError("nothing was read")
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
