"""Many networks as one: the same as each alone, and what is kept of each."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))

from batched_setup import (
    OPTIM,
    TRAINER,
    batch_of,
    largest_gap,
    make_member,
    make_network,
    make_rows,
    make_table,
    train_alone,
)

from mersuite.models.layers import RunningNorm
from mersuite.track import ClassLoss
from mersuite.training.batched import Trained, train_together
from mersuite.training.stacked import DropoutNoise, StackedNetwork, shape_of, why_not_stacked

CPU = torch.device("cpu")


def together(members, table, trainer=TRAINER, **options) -> list[Trained]:
    return train_together(members, table, trainer, mode="max", device=CPU, **options)


def last_states(members, table, trainer=TRAINER):
    """States after the last epoch: every epoch is better than the one before."""
    improving = []
    for member in members:
        epochs = iter(range(1000))
        rows = replace(member.rows, score=lambda answers, epochs=epochs: float(next(epochs)))
        improving.append(replace(member, rows=rows))
    return [item.state for item in together(improving, table, trainer)]


@pytest.mark.parametrize("widths", [(6, 6), (4, 6)], ids=["one width", "projected"])
@pytest.mark.parametrize("input_norm", [False, True], ids=["raw", "standardised"])
def test_stacked_logits_are_those_of_each_network(widths, input_norm):
    networks = [make_network(seed, widths=widths, input_norm=input_norm).eval() for seed in (1, 2, 3)]
    table = make_table(20, share_missing=0.3)
    places = torch.arange(20)
    for network in networks:
        for module in network.modules():
            if isinstance(module, RunningNorm):
                module.mean += 0.5
                module.variance *= 2.0
    stack = StackedNetwork(networks, CPU)
    found = stack.forward([item.expand(3, -1, -1) for item in table.vectors], table.there.expand(3, -1, -1))
    for place, network in enumerate(networks):
        wanted = network(batch_of(table, places))[0]["logits"]
        torch.testing.assert_close(found[place], wanted, atol=1e-6, rtol=1e-5)
        assert largest_gap(stack.unstacked(stack.state, place), network.state_dict()) == 0


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"network": {"input_norm": True}},
        {"network": {"activation": "gelu", "widths": (4, 6)}},
        {"share_missing": 0.3, "network": {"input_norm": True}},
        {"is_weighted": True, "loss": {"class_weights": np.array([0.5, 1.0, 2.0], dtype=np.float32)}},
        {"loss": {"label_smoothing": 0.2}},
        {"loss": {"label_smoothing": 0.2, "class_weights": np.array([0.5, 1.0, 2.0], dtype=np.float32)}},
        {"optim": {"name": "adamw", "schedule": "cosine", "warmup_fraction": 0.2}},
        {"optim": {"name": "sgd"}},
        {"trainer": {"gradient_clip": 0.05}},
    ],
    ids=lambda case: ", ".join(case) or "plain",
)
def test_networks_trained_together_end_as_if_trained_alone(case):
    table = make_table(40, share_missing=case.get("share_missing", 0.0))
    trainer = replace(TRAINER, **case.get("trainer", {}))
    members = []
    for place, (num_train, lr) in enumerate([(24, 1e-2), (25, 1e-2), (29, 1e-3)]):  # the last batches differ in size
        members.append(
            make_member(
                make_network(place, **case.get("network", {})),
                make_rows(table, num_train, shift=place, is_weighted=case.get("is_weighted", False)),
                seed=place,
                optim=replace(OPTIM, **{"lr": lr, **case.get("optim", {})}),
                loss=ClassLoss(target="emotion", **case.get("loss", {})),
            )
        )
    found = last_states(members, table, trainer)
    for member, state in zip(members, found, strict=True):
        before = {name: tensor.clone() for name, tensor in member.network.state_dict().items()}
        wanted = train_alone(member, table, trainer).state_dict()
        assert largest_gap(state, wanted) < 1e-5
        assert largest_gap(state, before) > 1e-3


class _Replayed(nn.Module):
    """Drops what it is told to drop."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.kept: torch.Tensor | None = None

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows * self.kept[: len(rows)].view(-1, *[1] * (rows.dim() - 2), rows.shape[-1]) / (1 - self.rate)


def test_dropout_drops_what_the_noise_says_and_scales_the_rest():
    table = make_table(40, share_missing=0.2)
    rates = (0.5, 0.2)
    members = [
        make_member(make_network(place, dropout=rate), make_rows(table, 29, shift=place), seed=place)
        for place, rate in enumerate(rates)
    ]
    found = last_states(members, table)
    for place, (member, rate) in enumerate(zip(members, rates, strict=True)):
        network = member.network
        sites = StackedNetwork([network], CPU).noise_sizes
        noise = DropoutNoise(1, sites, TRAINER.batch_size, CPU)
        for site in sites:
            parent, _, name = site.rpartition(".")
            setattr(network.get_submodule(parent), name, _Replayed(rate))

        def replay(network, epoch, step, noise=noise, rate=rate, place=place):
            if step == 0:
                noise.start_epoch([int(np.random.SeedSequence([place, epoch, 0]).generate_state(1)[0])])
            for site, numbers in noise.draw().items():
                network.get_submodule(site).kept = (numbers[0].long() + 2**15 >= rate * 2**16).float()

        wanted = train_alone(member, table, TRAINER, before_step=replay).state_dict()
        assert largest_gap(found[place], wanted) < 1e-5


def test_noise_is_even_and_a_networks_own():
    noise = DropoutNoise(2, {"a": 300, "b": 7}, 64, CPU)
    noise.start_epoch([5, 6])
    first = {name: numbers.clone() for name, numbers in noise.draw().items()}
    assert {name: tuple(numbers.shape) for name, numbers in first.items()} == {"a": (2, 64, 300), "b": (2, 64, 7)}
    values = first["a"].double()
    assert float(values.mean()) == pytest.approx(-0.5, abs=400)
    for lane in range(4):
        assert float((values.flatten(1)[:, lane::4] < 0).double().mean()) == pytest.approx(0.5, abs=0.02)
    assert not torch.equal(first["a"][0], first["a"][1])
    alone = DropoutNoise(1, {"a": 300, "b": 7}, 64, CPU)
    alone.start_epoch([6])
    assert torch.equal(alone.draw()["b"][0], first["b"][1])
    assert not torch.equal(noise.draw()["a"], first["a"])


def test_a_network_ends_alike_whatever_it_is_stacked_with():
    table = make_table(40, share_missing=0.2)
    members = [
        make_member(
            make_network(place, dropout=0.3),
            make_rows(table, 24 + place, shift=place),
            seed=place,
            optim=replace(OPTIM, lr=[1e-2, 1e-3, 1e-2][place]),
        )
        for place in range(3)
    ]
    all_together = together(members, table)
    for place, member in enumerate(members):
        alone = together([member], table)[0]
        assert largest_gap(alone.state, all_together[place].state) < 1e-5
        assert alone.epoch == all_together[place].epoch


def test_the_first_best_epoch_is_kept_and_patience_ends_the_choice():
    table = make_table(30)
    trainer = replace(TRAINER, max_epochs=6)
    scores = {0: [1, 3, 3, 2, 9, 9], 1: [1, 0, 0, 5, 0, 0]}
    members = []
    for place, values in scores.items():
        rows = make_rows(table, 20)
        told = iter(values)
        rows = replace(rows, score=lambda answers, told=told: float(next(told)))
        members.append(make_member(make_network(place), rows, seed=place))
    first, second = together(members, table, replace(trainer, patience=3))
    assert (first.epoch, first.value) == (4, 9.0)
    assert (second.epoch, second.value) == (3, 5.0)


def test_patience_stops_a_member_as_early_stopping_does():
    table = make_table(30)
    told = iter([2.0, 1.0, 1.0, 7.0, 8.0])
    rows = replace(make_rows(table, 20), score=lambda answers: next(told))
    done: list[int] = []
    trainer = replace(TRAINER, max_epochs=5, patience=2)
    (found,) = together([make_member(make_network(0), rows)], table, trainer, after_epoch=done.append)
    assert (found.epoch, found.value, list(found.values)) == (0, 2.0, [2.0, 1.0, 1.0])
    assert done == [1, 2, 3]


def test_the_kept_state_gives_the_kept_answers():
    table = make_table(60)
    member = make_member(make_network(0, dropout=0.2), make_rows(table, 40))
    (found,) = together([member], table, replace(TRAINER, max_epochs=12))
    network = make_network(1)
    network.load_state_dict(found.state)
    logits = network.eval()(batch_of(table, member.rows.val))[0]["logits"]
    assert np.array_equal(logits.argmax(-1).numpy(), found.answers)
    assert found.value == member.rows.score(found.answers) == max(found.values)
    assert found.value > 0.6, "a sum above a bound is easily learned"
    assert found.losses[-1] < found.losses[0]


def test_networks_of_one_shape_may_differ_in_dropout_only():
    assert shape_of(make_network(0, dropout=0.1)) == shape_of(make_network(1, dropout=0.4))
    assert shape_of(make_network(0)) != shape_of(make_network(0, widths=(4, 6)))
    assert shape_of(make_network(0)) != shape_of(make_network(0, activation="gelu"))
    assert why_not_stacked(make_network(0)) == ""


def test_other_parts_are_said_to_keep_a_network_from_being_stacked():
    network = make_network(0)
    network.backbone.modality_dropout = 0.1
    assert why_not_stacked(network) == "model.modality_dropout is above 0"
    network = make_network(0)
    network.head = nn.Sequential(nn.Linear(6, 3), nn.ReLU())
    assert why_not_stacked(network) == "its head is more than one linear layer"
    network = make_network(0)
    network.backbone.fusion = nn.Identity()
    assert why_not_stacked(network) == "its fusion is no attention but Identity"


def test_a_zero_rate_drops_nothing():
    stack = StackedNetwork([make_network(0), make_network(1)], CPU)
    assert stack.noise_sizes == {}
    mixed = StackedNetwork([make_network(0), make_network(1, dropout=0.5)], CPU)
    noise = DropoutNoise(2, mixed.noise_sizes, 8, CPU)
    noise.start_epoch([1, 2])
    table = make_table(8)
    rows = [item.expand(2, -1, -1) for item in table.vectors]
    plain = mixed.forward(rows, None)
    dropped = mixed.forward([item.clone() for item in rows], None, noise.draw())
    torch.testing.assert_close(dropped[0], plain[0])
    assert not torch.allclose(dropped[1], plain[1])
