from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from mersuite.clip import Batch, Sample, Signal, WindowKey
from mersuite.config import DataConfig, ModelConfig, RunConfig, RuntimeConfig, TrainerConfig
from mersuite.data.collate import as_is
from mersuite.data.datamodule import (
    RankShare,
    ShuffledWindows,
    WindowDataModule,
    eval_loader,
    predict_loader,
    train_loader,
)
from mersuite.data.dataset import WindowDataset
from mersuite.data.windows import plan_windows
from mersuite.prepare import FeatureReader
from mersuite.schema import Named
from mersuite.store import FeatureStore
from mersuite.store_entry import StoreKey

DURATIONS = {f"s{index}": 20.0 + 3 * index for index in range(7)}


def make_samples() -> list[Sample]:
    return [Sample(sample_id=name, clip_id=name, groups={}, duration_s=value) for name, value in DURATIONS.items()]


def target_of(sample: Sample) -> dict[str, np.ndarray]:
    assert sample.duration_s is not None
    return {"course": np.arange(2 * int(sample.duration_s), dtype=np.float32).reshape(-1, 2)}


def make_config(num_workers: int = 0, jitter: bool = True, batch_size: int = 4) -> RunConfig:
    return RunConfig(
        track="probe",
        options=None,
        data=DataConfig(window_s=10, stride_s=5, jitter=jitter),
        model=ModelConfig(encoders={"eeg": Named(name="mlp", config=None), "extra": Named(name="mlp", config=None)}),
        trainer=TrainerConfig(batch_size=batch_size),
        runtime=RuntimeConfig(num_workers=num_workers, accelerator="cpu"),
    )


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> FeatureReader:
    path = tmp_path_factory.mktemp("store")
    rng = np.random.default_rng(0)
    keys = {(name, stream): StoreKey("probe", name, stream, "f") for name in DURATIONS for stream in ("eeg", "extra")}
    entries: dict[StoreKey, Signal | None] = {}
    for (name, stream), key in keys.items():
        data = rng.normal(size=(round(DURATIONS[name] * 1000 / 21), 3)).astype(np.float32)
        entries[key] = None if (name, stream) == ("s2", "extra") else Signal(data=data, rate_hz=1000 / 21, ch_names=())
    with FeatureStore(path, readonly=False) as store:
        store.put(entries)
    return FeatureReader(path, clip_ids=list(DURATIONS), streams=("eeg", "extra"), keys=keys)


def loader(
    config: RunConfig, reader: FeatureReader, *, seed: int = 0, rank: int = 0, world_size: int = 1
) -> DataLoader:
    return train_loader(config, make_samples(), reader, target_of, seed=seed, rank=rank, world_size=world_size)


def epoch(batches: DataLoader, number: int) -> list[Batch]:
    batches.sampler.set_epoch(number)  # type: ignore[attr-defined]
    return list(batches)


def same(first: Sequence[Batch], second: Sequence[Batch]) -> bool:
    def tensors(batch: Batch) -> list[torch.Tensor]:
        return [*batch.streams.values(), *batch.masks.values(), *batch.target.values()]

    return len(first) == len(second) and all(
        one.keys == two.keys and all(map(torch.equal, tensors(one), tensors(two)))
        for one, two in zip(first, second, strict=True)
    )


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_two_workers_give_the_batches_that_no_worker_gives(reader: FeatureReader, method: str) -> None:
    dataset = WindowDataset(make_samples(), plan_windows(make_samples(), 10, 5), reader, ["eeg", "extra"], target_of)
    held = reader.get("s0", "eeg")  # inherited by forked workers
    context = multiprocessing.get_context(method)
    loaded = [
        list(DataLoader(dataset, 4, num_workers=workers, collate_fn=as_is, multiprocessing_context=using))
        for workers, using in ((0, None), (2, context))
    ]
    assert held is not None
    assert len(loaded[0]) > 4
    assert same(*loaded)


def test_two_workers_follow_the_epochs_also_when_they_persist(reader: FeatureReader) -> None:
    alone, two = loader(make_config(0), reader), loader(make_config(2), reader)
    for number in (0, 1, 5):
        assert same(epoch(alone, number), epoch(two, number))


def test_an_epoch_depends_on_seed_and_number_only(reader: FeatureReader) -> None:
    first = loader(make_config(), reader)
    torch.manual_seed(1)
    for number in range(3):
        epoch(first, number)
    fresh = loader(make_config(), reader)
    torch.manual_seed(2)
    assert same(epoch(first, 3), epoch(fresh, 3))
    assert not same(epoch(first, 3), epoch(first, 4))
    assert not same(epoch(fresh, 3), epoch(loader(make_config(), reader, seed=1), 3))


def test_loading_leaves_the_global_generators_alone(reader: FeatureReader) -> None:
    before = torch.get_rng_state()
    epoch(loader(make_config(2), reader), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_jitter_every_window_comes_once_an_epoch(reader: FeatureReader) -> None:
    windows = plan_windows(make_samples(), 10, 5)
    keys = [key for batch in epoch(loader(make_config(jitter=False), reader), 0) for key in batch.keys]
    assert sorted(keys) == sorted(windows)
    assert keys != windows


def test_jitter_shifts_windows_by_whole_seconds_inside_their_sample(reader: FeatureReader) -> None:
    planned = {(window.sample_id, window.start_s) for window in plan_windows(make_samples(), 10, 5)}
    batches = loader(make_config(), reader)
    keys = [key for number in range(20) for batch in epoch(batches, number) for key in batch.keys]
    assert all(key.start_s == int(key.start_s) and 0 <= key.start_s <= DURATIONS[key.sample_id] - 10 for key in keys)
    assert any((key.sample_id, key.start_s) not in planned for key in keys)
    seconds = Counter((key.sample_id, int(key.start_s) + second) for key in keys for second in range(10))
    assert set(seconds) == {(name, second) for name, length in DURATIONS.items() for second in range(int(length))}


def test_shifted_targets_move_with_their_windows(reader: FeatureReader) -> None:
    for batch in epoch(loader(make_config(), reader), 2):
        starts = torch.tensor([key.start_s for key in batch.keys])
        assert torch.equal(batch.target["course"][:, 0, 0], 2 * starts)


@pytest.mark.parametrize("world_size", [1, 2, 3, 5])
def test_ranks_share_the_evaluation_rows_without_loss_or_double(reader: FeatureReader, world_size: int) -> None:
    keys = []
    for rank in range(world_size):
        part = eval_loader(make_config(), make_samples(), reader, target_of, rank=rank, world_size=world_size)
        keys += [key for batch in part for key in batch.keys]
    assert sorted(keys) == sorted(plan_windows(make_samples(), 10, 5))


def test_more_ranks_than_rows_give_every_rank_a_row() -> None:
    shares = [list(RankShare(2, rank=rank, world_size=4)) for rank in range(4)]
    assert shares == [[0], [1], [0], [0]]


@pytest.mark.parametrize("world_size", [2, 3, 4])
def test_training_ranks_have_equal_lengths_and_cover_all_windows(world_size: int) -> None:
    windows = [WindowKey("a", float(index), 10.0) for index in range(11)]
    ranks = [
        ShuffledWindows(windows, seed=0, jitter_s=0, last_starts_s={}, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    drawn = [list(rank) for rank in ranks]
    assert len({len(rank) for rank in ranks}) == 1
    assert all(len(items) == len(rank) for items, rank in zip(drawn, ranks, strict=True))
    counts = Counter(key for items in drawn for key in items)
    assert set(counts) == set(windows)
    assert sum(counts.values()) - len(windows) < world_size


def test_ranks_together_train_on_what_one_process_trains_on(reader: FeatureReader) -> None:
    whole = Counter(key for batch in epoch(loader(make_config(), reader), 1) for key in batch.keys)
    parts = Counter(
        key
        for rank in range(2)
        for batch in epoch(loader(make_config(), reader, rank=rank, world_size=2), 1)
        for key in batch.keys
    )
    assert sum((whole - parts).values()) == 0
    assert sum((parts - whole).values()) < 2


def test_prediction_batches_hold_no_target_and_keep_the_order(reader: FeatureReader) -> None:
    batches = list(predict_loader(make_config(), make_samples(), reader, rank=0, world_size=1))
    assert all(batch.target == {} for batch in batches)
    assert [key for batch in batches for key in batch.keys] == plan_windows(make_samples(), 10, 5)


class Recorder(pl.LightningModule):
    """Learns nothing and notes which windows it saw in which epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: dict[int, list[WindowKey]] = {}

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.seen.setdefault(self.current_epoch, []).extend(batch.keys)
        return (self.weight * batch.streams["eeg"].mean()).sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(reader: FeatureReader, folder: Path, max_epochs: int, ckpt: Path | None = None) -> tuple[Recorder, pl.Trainer]:
    module = Recorder()
    data = WindowDataModule(
        make_config(), train=make_samples(), val=make_samples(), reader=reader, target_of=target_of, seed=4
    )
    trainer = pl.Trainer(
        max_epochs=max_epochs,
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    )
    trainer.fit(module, datamodule=data, ckpt_path=ckpt)
    return module, trainer


def test_a_run_resumed_at_an_epoch_sees_what_the_uninterrupted_one_saw(reader: FeatureReader, tmp_path: Path) -> None:
    whole, _ = fit(reader, tmp_path, 4)
    first, trainer = fit(reader, tmp_path, 2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    second, _ = fit(reader, tmp_path, 4, tmp_path / "last.ckpt")
    assert sorted(whole.seen) == [0, 1, 2, 3]
    assert first.seen == {number: whole.seen[number] for number in (0, 1)}
    assert second.seen == {number: whole.seen[number] for number in (2, 3)}
    assert whole.seen[0] != whole.seen[1]


def test_the_module_gives_every_validation_window(reader: FeatureReader) -> None:
    data = WindowDataModule(
        make_config(), train=make_samples()[:3], val=make_samples()[3:], reader=reader, target_of=target_of, seed=4
    )
    keys = [key for batch in data.val_dataloader() for key in batch.keys]
    assert keys == plan_windows(make_samples()[3:], 10, 5)
    assert {key.sample_id for batch in data.train_dataloader() for key in batch.keys} == {"s0", "s1", "s2"}
