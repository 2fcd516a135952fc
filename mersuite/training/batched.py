"""Trains many networks of one shape as one: folds, seeds and hyper-parameters side by side.

Each network ends as it would if it were trained alone on the same batches with the same seeds, but for dropout, whose
numbers come from another generator. Rows lie in memory, one tensor a stream; batches are picked out of them by index.

Axes: M networks, B rows of a batch, R rows in memory, S streams, C channels, L classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from mersuite.config import OptimConfig, TrainerConfig
from mersuite.models.network import Network
from mersuite.track import ClassLoss
from mersuite.training.optim import make_optimizer, schedule_factor
from mersuite.training.row_table import FoldRows, RowTable
from mersuite.training.stacked import DropoutNoise, StackedNetwork

VAL_ROWS = 256
"""Validation rows of a network that are answered at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One of the networks that are trained together.

    Attributes:
        network: Untrained; it is left as it is.
        rows: Its rows.
        loss: What it minimises.
        optim: Its optimiser; the name must be the same for all members.
        seed: Decides, with the epoch, the order of rows and what dropout drops.
    """

    network: Network
    rows: FoldRows
    loss: ClassLoss
    optim: OptimConfig
    seed: int

    def num_batches(self, batch_size: int) -> int:
        """Steps of an epoch; the last may have fewer rows."""
        return -(-len(self.rows.train) // batch_size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What became of a member.

    Attributes:
        epoch: The best epoch, counted from 0; the first of equal ones.
        value: What it scored.
        state: state_dict of the network after it, on the CPU.
        answers: (v,) int64, what it answered.
        losses: Mean training loss of every epoch.
        values: What every epoch scored.
        num_steps: Optimiser steps of an epoch.
    """

    epoch: int
    value: float
    state: Mapping[str, torch.Tensor]
    answers: np.ndarray
    losses: Sequence[float]
    values: Sequence[float]
    num_steps: int


def train_together(
    members: Sequence[Member],
    table: RowTable,
    trainer: TrainerConfig,
    *,
    mode: str,
    device: torch.device,
    after_epoch: Callable[[int], None] | None = None,
) -> list[Trained]:
    """Trains networks of one shape as one and keeps, for each, what it was after its best epoch.

    Args:
        members: Of one shape (mersuite.training.stacked.shape_of).
        table: Their rows.
        trainer: max_epochs, patience, batch_size and gradient_clip are read.
        mode: "max" or "min": which of two scores is better.
        device: Where to compute.
        after_epoch: Called with the number of epochs that are done.

    Returns:
        One a member, in order.
    """
    order = sorted(range(len(members)), key=lambda place: _kind(members[place], trainer.batch_size))
    training = _Training([members[place] for place in order], table.to(device), trainer, mode, device)
    for epoch in range(trainer.max_epochs):
        training.run_epoch(epoch)
        if after_epoch is not None:
            after_epoch(epoch + 1)
        if training.is_over:
            break
    found = training.results()
    return [found[order.index(place)] for place in range(len(members))]


def _kind(member: Member, batch_size: int) -> tuple[float, float, str, float, int]:
    """Members of one kind share every step of their optimiser."""
    optim = member.optim
    return optim.lr, optim.weight_decay, optim.schedule, optim.warmup_fraction, member.num_batches(batch_size)


@dataclass(slots=True, kw_only=True)
class _Best:
    """The best epoch of one member so far."""

    epoch: int = -1
    value: float = math.nan
    answers: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    is_stopped: bool = False


class _Training:
    def __init__(
        self, members: Sequence[Member], table: RowTable, trainer: TrainerConfig, mode: str, device: torch.device
    ) -> None:
        self._members, self._table, self._trainer, self._device = members, table, trainer, device
        self._sign = 1.0 if mode == "max" else -1.0
        self._stack = StackedNetwork([member.network for member in members], device)
        self._noise = DropoutNoise(len(members), self._stack.noise_sizes, trainer.batch_size, device)
        self._steppers = _steppers(self._stack, members, trainer)
        self._losses = _LossTensors(members, device)
        self._all_there = bool(table.there.all())
        num_rows = len(members) * trainer.batch_size
        self._memory = [torch.empty((num_rows, rows.shape[1]), device=device) for rows in self._table.vectors]
        self._best = [_Best() for _ in members]
        self._kept = {name: tensor.detach().clone() for name, tensor in self._stack.state.items()}
        self._curves: list[list[tuple[float, float]]] = [[] for _ in members]

    @property
    def is_over(self) -> bool:
        return all(best.is_stopped for best in self._best)

    def run_epoch(self, epoch: int) -> None:
        losses = self._train(epoch)
        self._validate(epoch, losses)

    def results(self) -> list[Trained]:
        return [
            Trained(
                epoch=best.epoch,
                value=best.value,
                state=self._stack.unstacked(self._kept, place),
                answers=best.answers,
                losses=[loss for loss, _ in curve],
                values=[value for _, value in curve],
                num_steps=member.num_batches(self._trainer.batch_size),
            )
            for place, (member, best, curve) in enumerate(zip(self._members, self._best, self._curves, strict=True))
        ]

    def _train(self, epoch: int) -> np.ndarray:
        """Gives the mean loss of each member, (M,)."""
        size = self._trainer.batch_size
        plan = _EpochPlan(self._members, epoch, size, self._device)
        self._noise.start_epoch([_epoch_seed(member.seed, epoch) for member in self._members])
        totals = torch.zeros(len(self._members), device=self._device)
        for step in range(plan.num_steps):
            places, target, weight, real, num_rows = plan.batch(step)
            there = None
            if not self._all_there or min(num_rows) < places.shape[1]:
                there = self._table.there[places] & real.unsqueeze(-1)
            logits = self._stack.forward(self._picked(places), there, self._noise.draw())
            losses = self._losses.of(logits, target, weight)
            losses.sum().backward()
            if self._trainer.gradient_clip is not None:
                _clip(list(self._stack.gradients.values()), self._trainer.gradient_clip)
            for stepper in self._steppers:
                if step < stepper.num_batches:
                    stepper.step()
            totals += losses.detach() * torch.tensor(num_rows, dtype=torch.float32, device=self._device)
        return totals.cpu().numpy() / [len(member.rows.train) for member in self._members]

    def _picked(self, places: torch.Tensor) -> list[torch.Tensor]:
        """Gives (M, B, C) rows of each stream, in memory that every step uses again: fresh memory costs more."""
        flat = places.flatten()
        return [
            torch.index_select(rows, 0, flat, out=memory[: len(flat)]).view(*places.shape, -1)
            for rows, memory in zip(self._table.vectors, self._memory, strict=True)
        ]

    @torch.no_grad()
    def _validate(self, epoch: int, losses: np.ndarray) -> None:
        answers = self._answers()
        better = []
        for place, (member, best) in enumerate(zip(self._members, self._best, strict=True)):
            found = answers[place, : len(member.rows.val)]
            value = member.rows.score(found)
            if best.is_stopped:
                continue
            self._curves[place].append((float(losses[place]), value))
            if best.epoch < 0 or self._sign * value > self._sign * best.value:
                best.epoch, best.value, best.answers = epoch, value, found
                better.append(place)
            elif self._trainer.patience is not None and epoch - best.epoch >= self._trainer.patience:
                best.is_stopped = True
        where = torch.tensor(better, device=self._device)
        for name, tensor in self._stack.state.items() if better else ():
            self._kept[name].index_copy_(0, where, tensor.detach().index_select(0, where))

    def _answers(self) -> np.ndarray:
        """Gives (M, most validation rows) int64; what stands behind a member's own rows means nothing."""
        places = torch.nn.utils.rnn.pad_sequence([member.rows.val for member in self._members], batch_first=True)
        found = []
        for part in places.to(self._device).split(VAL_ROWS, dim=1):
            vectors = [rows.index_select(0, part.flatten()).view(*part.shape, -1) for rows in self._table.vectors]
            there = None if self._all_there else self._table.there[part]
            found.append(self._stack.forward(vectors, there).cpu().numpy().argmax(-1))
        return np.concatenate(found, axis=1)


def _epoch_seed(seed: int, epoch: int) -> int:
    """The seed of an epoch's dropout, as mersuite.training.callbacks.SeedEachEpoch gives it to one process."""
    return int(np.random.SeedSequence([seed, epoch, 0]).generate_state(1)[0])


class _EpochPlan:
    """The batches of an epoch: for each member those of mersuite.data.datamodule.ShuffledWindows."""

    def __init__(self, members: Sequence[Member], epoch: int, batch_size: int, device: torch.device) -> None:
        self.num_steps = max(member.num_batches(batch_size) for member in members)
        self._batch_size = batch_size
        self._sizes = [len(member.rows.train) for member in members]
        shape = (len(members), self.num_steps * batch_size)
        places, target = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape, dtype=torch.int64)
        weight = torch.zeros(shape)
        for place, member in enumerate(members):
            rows, count = member.rows, len(member.rows.train)
            order = torch.from_numpy(np.random.default_rng([member.seed, epoch]).permutation(count))
            places[place, :count], target[place, :count] = rows.train[order], rows.target[order]
            weight[place, :count] = 1.0 if rows.weight is None else rows.weight[order]
        real = torch.arange(shape[1]) < torch.tensor(self._sizes).unsqueeze(1)
        self._places, self._target = places.to(device), target.to(device)
        self._weight, self._real = weight.to(device), real.to(device)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, list[int]]:
        """Gives places, targets, weights and which rows are real, (M, B) each, and each member's number of rows."""
        start = step * self._batch_size
        num_rows = [min(max(size - start, 0), self._batch_size) for size in self._sizes]
        part = slice(start, start + max(num_rows))
        return self._places[:, part], self._target[:, part], self._weight[:, part], self._real[:, part], num_rows


class _LossTensors:
    """The members' losses with what differs between them as tensors."""

    def __init__(self, members: Sequence[Member], device: torch.device) -> None:
        losses = [member.loss for member in members]
        smoothing = [loss.label_smoothing for loss in losses]
        self._smoothing = torch.tensor(smoothing, device=device).unsqueeze(1) if any(smoothing) else None
        self._class_weights = None
        if any(loss.class_weights is not None for loss in losses):
            weights = [loss.class_weights for loss in losses]
            found = [None if item is None else torch.as_tensor(item) for item in weights]
            size = next(len(item) for item in found if item is not None)
            self._class_weights = torch.stack([torch.ones(size) if item is None else item for item in found]).to(device)

    def of(self, logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Gives (M,) losses, as mersuite.losses.cross_entropy gives them, of (M, B, L), (M, B) and (M, B)."""
        scores = torch.log_softmax(logits, dim=-1)
        losses = -scores.gather(-1, target.unsqueeze(-1)).squeeze(-1)
        if self._class_weights is not None:
            own = self._class_weights.gather(1, target)
            losses = losses * own
        if self._smoothing is not None:
            spread = scores if self._class_weights is None else scores * self._class_weights.unsqueeze(1)
            losses = (1.0 - self._smoothing) * losses - self._smoothing * spread.mean(-1)
        total = (weight if self._class_weights is None else weight * own).sum(1)
        return (losses * weight).sum(1) / torch.where(total > 0, total, 1.0)


class _Stepper:
    """The optimiser of members of one kind, which stand side by side in the stack.

    Why a part of the stack and not one optimiser for all: PyTorch's own fused step then has the exact arithmetic of a
    network that is trained alone, its own rate, and a member without a batch left takes no step.
    """

    def __init__(
        self, stack: StackedNetwork, part: slice, optim: OptimConfig, *, num_epochs: int, num_batches: int
    ) -> None:
        self.num_batches = num_batches
        groups: dict[bool, list[torch.nn.Parameter]] = {True: [], False: []}
        for name, tensor in stack.parameters.items():
            view = torch.nn.Parameter(tensor.detach()[part])
            view.grad = stack.gradients[name][part]
            groups[stack.is_decayed(name)].append(view)
        settings = [
            {"params": found, "weight_decay": optim.weight_decay if is_decayed else 0.0}
            for is_decayed, found in groups.items()
        ]
        self._optimizer = make_optimizer(settings, optim, fused=True)
        factor = schedule_factor(optim, num_epochs * num_batches)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._optimizer, factor)

    def step(self) -> None:
        """Moves the members' parameters by the stack's gradients."""
        self._optimizer.step()
        self._schedule.step()


def _steppers(stack: StackedNetwork, members: Sequence[Member], trainer: TrainerConfig) -> list[_Stepper]:
    found, start = [], 0
    kinds = [_kind(member, trainer.batch_size) for member in members]
    while start < len(members):
        end = start + kinds.count(kinds[start])
        found.append(
            _Stepper(
                stack,
                slice(start, end),
                members[start].optim,
                num_epochs=trainer.max_epochs,
                num_batches=members[start].num_batches(trainer.batch_size),
            )
        )
        start = end
    return found


def _clip(gradients: Sequence[torch.Tensor], limit: float) -> None:
    """Scales each member's gradient down to a norm, as torch.nn.utils.clip_grad_norm_ does for one network."""
    norms = torch.stack([gradient.flatten(1).norm(dim=1) for gradient in gradients]).norm(dim=0)
    factor = (limit / (norms + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor.view(-1, *[1] * (gradient.ndim - 1)))
