"""Small networks, rows and a plain loop that trains one network alone, for tests of training many as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from mersuite.clip import Batch, WindowKey
from mersuite.config import OptimConfig, TrainerConfig
from mersuite.losses import cross_entropy
from mersuite.models.backbone import Backbone
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.encoders.mlp import MlpConfig, MlpEncoder
from mersuite.models.fusion.attention import AttentionConfig, AttentionFusion
from mersuite.models.network import Network
from mersuite.track import ClassLoss
from mersuite.training.batched import Member
from mersuite.training.optim import build_optimizer, schedule_factor
from mersuite.training.row_table import FoldRows, RowTable

NUM_CLASSES = 3
SIZES = {"face": 5, "voice.speaker": 7}
TRAINER = TrainerConfig(max_epochs=2, patience=None, batch_size=8, gradient_clip=None)
OPTIM = OptimConfig(name="adam", lr=1e-2, weight_decay=1e-3, schedule="constant", warmup_fraction=0.0)


class Head(nn.Module):
    """Dropout and one linear layer."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, NUM_CLASSES)

    def forward(self, fused: Any, batch: Batch) -> dict[str, torch.Tensor]:
        return {"logits": self.linear(self.dropout(fused.pooled))}


def make_network(
    seed: int,
    *,
    dropout: float = 0.0,
    input_norm: bool = False,
    widths: Sequence[int] = (6, 6),
    activation: Any = "relu",
) -> Network:
    torch.manual_seed(seed)
    context = BuildContext(streams={name: StreamInfo(num_channels=size, rate_hz=0.0) for name, size in SIZES.items()})
    encoders = {
        name: MlpEncoder(
            MlpConfig(
                width=width,
                hidden=6,
                num_layers=3,
                dropout=dropout,
                activation=activation,
                activate_output=activation == "relu",
                input_norm=input_norm,
                input_dropout=dropout,
            ),
            context.streams[name],
            context,
        )
        for name, width in zip(SIZES, widths, strict=True)
    }
    fusion = AttentionFusion(AttentionConfig(dropout=dropout), dict(zip(SIZES, widths, strict=True)), context)
    return Network(Backbone(encoders, fusion, 0.0), Head(fusion.width, dropout))


def make_table(num_rows: int, *, share_missing: float = 0.0) -> RowTable:
    rng = np.random.default_rng(1)
    there = rng.random((num_rows, len(SIZES))) >= share_missing
    there[~there.any(1), 0] = True
    vectors = [
        rng.normal(size=(num_rows, size)) * there[:, [place]] * 3 + there[:, [place]]
        for place, size in enumerate(SIZES.values())
    ]
    return RowTable(
        vectors=tuple(torch.from_numpy(item.astype(np.float32)) for item in vectors), there=torch.from_numpy(there)
    )


def make_rows(table: RowTable, num_train: int, *, is_weighted: bool = False, shift: int = 0) -> FoldRows:
    rows = torch.roll(torch.arange(len(table.there)), shift)
    target = (table.vectors[0].sum(1) > 1).long() + (table.vectors[1].sum(1) > 1).long()
    val = rows[num_train:]
    truth = target[val].numpy()
    return FoldRows(
        train=rows[:num_train],
        target=target[rows[:num_train]],
        weight=1.0 + (rows[:num_train] % 3).float() if is_weighted else None,
        val=val,
        score=lambda answers: float((answers == truth).mean()),
    )


def make_member(network: Network, rows: FoldRows, **changes: Any) -> Member:
    values = {"loss": ClassLoss(target="emotion"), "optim": OPTIM, "seed": 0, **changes}
    return Member(network=network, rows=rows, **values)


def batch_of(table: RowTable, places: torch.Tensor, member: Member | None = None, order: Any = None) -> Batch:
    return Batch(
        keys=[WindowKey(str(int(place)), 0.0, 0.0) for place in places],
        streams={name: item[places].unsqueeze(1) for name, item in zip(SIZES, table.vectors, strict=True)},
        masks={name: table.there[places][:, [place]] for place, name in enumerate(SIZES)},
        target={} if member is None else {"emotion": member.rows.target[order]},
        weight=None if member is None or member.rows.weight is None else member.rows.weight[order],
    )


def train_alone(member: Member, table: RowTable, trainer: TrainerConfig, *, before_step: Any = None) -> Network:
    """A plain loop over the batches of one member, with the shared network, loss and optimiser; changes the network."""
    network, rows = member.network.train(), member.rows
    optimizer = build_optimizer(network, member.optim)
    num_batches = -(-len(rows.train) // trainer.batch_size)
    factor = schedule_factor(member.optim, trainer.max_epochs * num_batches)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    weights = member.loss.class_weights
    for epoch in range(trainer.max_epochs):
        order = torch.from_numpy(np.random.default_rng([member.seed, epoch]).permutation(len(rows.train)))
        for step, part in enumerate(order.split(trainer.batch_size)):
            if before_step is not None:
                before_step(network, epoch, step)
            batch = batch_of(table, rows.train[part], member, part)
            output, _ = network(batch)
            loss = cross_entropy(
                output["logits"],
                batch.target["emotion"],
                weight=batch.weight,
                class_weights=None if weights is None else torch.from_numpy(weights),
                label_smoothing=member.loss.label_smoothing,
            )
            optimizer.zero_grad()
            loss.backward()
            if trainer.gradient_clip is not None:
                torch.nn.utils.clip_grad_norm_(network.parameters(), trainer.gradient_clip)
            optimizer.step()
            schedule.step()
    return network


def largest_gap(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> float:
    if one.keys() != other.keys():
        raise KeyError(f"{sorted(one.keys() ^ other.keys())} are in one state only")
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)
