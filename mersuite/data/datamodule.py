"""DataLoaders for training, validation and prediction.

What a batch holds depends on (seed, epoch) only: not on the global generators, the number of workers, or what ran
before. Trainer(use_distributed_sampler=False) is assumed, because the samplers here know their rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Sampler

from mersuite.clip import Sample, WindowKey
from mersuite.config import RunConfig
from mersuite.data.collate import as_is
from mersuite.data.dataset import SignalReader, TargetOf, WindowDataset
from mersuite.data.windows import last_start_s, plan_windows
from mersuite.models.base import StreamInfo


class ShuffledWindows(Sampler[WindowKey]):
    """Windows in an order of their own in each epoch, the same number for each rank.

    The last few places that make the ranks equal repeat windows of the same epoch.

    Args:
        windows: All windows.
        seed: With the epoch, decides order and shifts.
        jitter_s: Largest shift of a window's start in seconds, to either side; 0 for none.
        last_starts_s: Sample id to the last start at which a window fits.
        rank: This process's place among world_size.
        world_size: Processes that share an epoch.
    """

    def __init__(
        self,
        windows: Sequence[WindowKey],
        *,
        seed: int,
        jitter_s: int,
        last_starts_s: Mapping[str, int],
        rank: int,
        world_size: int,
    ) -> None:
        self._windows = list(windows)
        self._seed = seed
        self._jitter_s = jitter_s
        self._last_starts_s = last_starts_s
        self._rank = rank
        self._world_size = world_size
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch; Lightning calls it, also when it resumes."""
        self._epoch = epoch

    def __len__(self) -> int:
        return -(-len(self._windows) // self._world_size)

    def __iter__(self) -> Iterator[WindowKey]:
        generator = np.random.default_rng([self._seed, self._epoch])
        order = generator.permutation(len(self._windows))
        shifts = generator.integers(-self._jitter_s, self._jitter_s, size=len(order), endpoint=True)
        places = np.resize(order, len(self) * self._world_size)
        for index in places[self._rank :: self._world_size]:
            yield self._shifted(self._windows[index], int(shifts[index]))

    def _shifted(self, window: WindowKey, shift_s: int) -> WindowKey:
        if not self._jitter_s:
            return window
        start_s = min(max(window.start_s + shift_s, 0.0), float(self._last_starts_s[window.sample_id]))
        return window._replace(start_s=start_s)


class RankShare(Sampler[int]):
    """This rank's part of the positions 0 to length - 1, in order: every one in exactly one rank.

    With fewer rows than ranks those left over take row 0 again, because Lightning's loops hang where one rank has none;
    merging windows counts a window once.
    """

    def __init__(self, length: int, *, rank: int, world_size: int) -> None:
        self._positions = range(rank, length, world_size) or range(1)

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[int]:
        return iter(self._positions)


def train_loader(
    config: RunConfig,
    samples: Sequence[Sample],
    reader: SignalReader,
    target_of: TargetOf | None,
    *,
    seed: int,
    rank: int,
    world_size: int,
) -> DataLoader:
    """Gives shuffled training batches, with window starts shifted by up to half a stride where data.jitter is set.

    Why half a stride: the shifted windows of a sample then still cover all of its seconds about evenly.
    """
    dataset = WindowDataset(samples, _plan(config, samples), reader, config.model.encoders, target_of)
    window_s, stride_s = config.data.window_s, config.data.stride_s or config.data.window_s
    jitter_s = int(stride_s // 2) if config.data.jitter and window_s is not None and stride_s is not None else 0
    last_starts_s = {item.sample_id: last_start_s(item, window_s) for item in samples} if window_s is not None else {}
    sampler = ShuffledWindows(
        dataset.windows, seed=seed, jitter_s=jitter_s, last_starts_s=last_starts_s, rank=rank, world_size=world_size
    )
    return _loader(config, dataset, sampler, seed)


def eval_loader(
    config: RunConfig,
    samples: Sequence[Sample],
    reader: SignalReader,
    target_of: TargetOf | None,
    *,
    rank: int,
    world_size: int,
    known: Mapping[str, StreamInfo] | None = None,
) -> DataLoader:
    """Gives every window of the samples once, spread over the ranks; known: as of WindowDataset."""
    dataset = WindowDataset(samples, _plan(config, samples), reader, config.model.encoders, target_of, known=known)
    return _loader(config, dataset, RankShare(len(dataset), rank=rank, world_size=world_size), config.seed)


def predict_loader(
    config: RunConfig,
    samples: Sequence[Sample],
    reader: SignalReader,
    *,
    rank: int,
    world_size: int,
    known: Mapping[str, StreamInfo] | None = None,
) -> DataLoader:
    """Gives every window of the samples once, without targets; known: as of WindowDataset."""
    return eval_loader(config, samples, reader, None, rank=rank, world_size=world_size, known=known)


def _plan(config: RunConfig, samples: Sequence[Sample]) -> list[WindowKey]:
    return plan_windows(samples, config.data.window_s, config.data.stride_s)


def _loader(config: RunConfig, dataset: WindowDataset, sampler: Sampler, seed: int) -> DataLoader:
    return DataLoader(
        dataset,
        batch_size=config.trainer.batch_size,
        sampler=sampler,
        num_workers=config.runtime.num_workers,
        collate_fn=as_is,
        persistent_workers=config.runtime.num_workers > 0,
        pin_memory=config.runtime.accelerator != "cpu" and torch.cuda.is_available(),
        # Without its own generator a DataLoader draws from the global one, which then depends on the epochs loaded.
        generator=torch.Generator().manual_seed(seed),
    )


class WindowDataModule(pl.LightningDataModule):
    """Training and validation batches of one fold.

    Args:
        config: data.*, trainer.batch_size, runtime.* and the streams of model.encoders are read.
        train: Training samples.
        val: Validation samples.
        reader: Gives stored streams.
        target_of: What the network is trained towards; None for batches without targets.
        seed: With the epoch, decides the order and the shifts of training windows.
        known: As of WindowDataset, for validation samples that are asked without a stream.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        train: Sequence[Sample],
        val: Sequence[Sample],
        reader: SignalReader,
        target_of: TargetOf | None,
        seed: int,
        known: Mapping[str, StreamInfo] | None = None,
    ) -> None:
        super().__init__()
        self._config = config
        self._train = train
        self._val = val
        self._reader = reader
        self._target_of = target_of
        self._seed = seed
        self._known = known

    def _place(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)

    def train_dataloader(self) -> DataLoader:
        """Gives this rank's training batches."""
        rank, world_size = self._place()
        return train_loader(
            self._config,
            self._train,
            self._reader,
            self._target_of,
            seed=self._seed,
            rank=rank,
            world_size=world_size,
        )

    def val_dataloader(self) -> DataLoader:
        """Gives this rank's validation batches."""
        rank, world_size = self._place()
        return eval_loader(
            self._config,
            self._val,
            self._reader,
            self._target_of,
            rank=rank,
            world_size=world_size,
            known=self._known,
        )
