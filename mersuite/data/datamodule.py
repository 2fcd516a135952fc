"""DataLoaders for training, validation and prediction.

What a batch holds depends on (seed, epoch) only: not on the global generators, the number of workers, or what ran
before. Trainer(use_distributed_sampler=False) is assumed, because the samplers here know their rank.
"""

from __future__ import annotations

import itertools
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


class MixedBatches(Sampler[list[WindowKey]]):
    """Batches of labelled windows with unlabelled ones behind them.

    Labelled windows stand in the batches in which they would stand alone. Unlabelled ones are spread evenly over an
    epoch, in the given share of all rows, and none comes a second time before all have come once, over all epochs.
    What an epoch holds depends on the seeds and the epoch only.

    Args:
        labelled: Their order.
        unlabelled: Theirs; one of its epochs is a pass over all of them.
        batch_size: Labelled windows of a batch.
        share: Share of unlabelled rows, between 0 and 1.
    """

    def __init__(
        self, labelled: ShuffledWindows, unlabelled: ShuffledWindows, *, batch_size: int, share: float
    ) -> None:
        self._labelled = labelled
        self._unlabelled = unlabelled
        self._batch_size = batch_size
        self._ratio = share / (1.0 - share)
        self._epoch = 0

    @property
    def sampler(self) -> MixedBatches:
        """Itself: Lightning sets the epoch of a batch sampler's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch."""
        self._epoch = epoch
        self._labelled.set_epoch(epoch)

    def __len__(self) -> int:
        return -(-len(self._labelled) // self._batch_size)

    def __iter__(self) -> Iterator[list[WindowKey]]:
        others = self._others(self._epoch * self._num_others(len(self._labelled)))
        keys = iter(self._labelled)
        for first in range(0, len(self._labelled), self._batch_size):
            batch = list(itertools.islice(keys, self._batch_size))
            count = self._num_others(first + len(batch)) - self._num_others(first)
            yield batch + list(itertools.islice(others, count))

    def _num_others(self, num_labelled: int) -> int:
        """Unlabelled windows that come along with the first so many labelled ones of an epoch."""
        return round(self._ratio * num_labelled)

    def _others(self, start: int) -> Iterator[WindowKey]:
        """Gives unlabelled windows without end, from a place in the sequence of all passes."""
        number, skipped = divmod(start, len(self._unlabelled))
        while True:
            self._unlabelled.set_epoch(number)
            yield from itertools.islice(self._unlabelled, skipped, None)
            number, skipped = number + 1, 0


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
    unlabelled: Sequence[Sample] = (),
    share: float = 0.0,
) -> DataLoader:
    """Gives shuffled training batches, with window starts shifted by up to half a stride where data.jitter is set.

    Why half a stride: the shifted windows of a sample then still cover all of its seconds about evenly.

    Args:
        config: data.*, trainer.batch_size, runtime.* and the streams of model.encoders are read.
        samples: Training samples.
        reader: Gives stored streams.
        target_of: What the network is trained towards, for unlabelled samples too.
        seed: With the epoch, decides order and shifts.
        rank: This process's place among world_size.
        world_size: Processes that share an epoch.
        unlabelled: Samples without a truth that come along, behind trainer.batch_size labelled rows of a batch.
        share: Their share of all rows; 0 leaves them out.
    """
    is_mixed = bool(unlabelled) and share > 0
    mixed = [*samples, *unlabelled] if is_mixed else list(samples)
    dataset = WindowDataset(mixed, _plan(config, mixed), reader, config.model.encoders, target_of)
    labelled = _shuffled(config, samples, seed=seed, rank=rank, world_size=world_size)
    if not is_mixed:
        return _loader(config, dataset, labelled, seed)
    other_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
    others = _shuffled(config, unlabelled, seed=other_seed, rank=rank, world_size=world_size)
    batches = MixedBatches(labelled, others, batch_size=config.trainer.batch_size, share=share)
    return _loader(config, dataset, batches, seed)


def _shuffled(
    config: RunConfig, samples: Sequence[Sample], *, seed: int, rank: int, world_size: int
) -> ShuffledWindows:
    window_s, stride_s = config.data.window_s, config.data.stride_s or config.data.window_s
    jitter_s = int(stride_s // 2) if config.data.jitter and window_s is not None and stride_s is not None else 0
    last_starts_s = {item.sample_id: last_start_s(item, window_s) for item in samples} if window_s is not None else {}
    return ShuffledWindows(
        _plan(config, samples),
        seed=seed,
        jitter_s=jitter_s,
        last_starts_s=last_starts_s,
        rank=rank,
        world_size=world_size,
    )


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
    is_mixed = isinstance(sampler, MixedBatches)
    return DataLoader(
        dataset,
        batch_size=1 if is_mixed else config.trainer.batch_size,  # 1 is what PyTorch wants beside a batch sampler
        sampler=None if is_mixed else sampler,
        batch_sampler=sampler if is_mixed else None,
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
        unlabelled: Samples without a truth that come along in training batches.
        share: Their share of a training batch.
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
        unlabelled: Sequence[Sample] = (),
        share: float = 0.0,
    ) -> None:
        super().__init__()
        self._config = config
        self._train = train
        self._val = val
        self._reader = reader
        self._target_of = target_of
        self._seed = seed
        self._known = known
        self._unlabelled = unlabelled
        self._share = share

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
            unlabelled=self._unlabelled,
            share=self._share,
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
