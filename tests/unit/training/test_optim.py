from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mersuite.config import OptimConfig
from mersuite.training.optim import build_optimizer, parameter_groups, schedule_factor


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv1d(4, 2, 3))


def test_weights_decay_and_vectors_do_not():
    model = network()
    decayed, free = parameter_groups(model, 0.5)
    assert (decayed["weight_decay"], free["weight_decay"]) == (0.5, 0.0)
    assert {id(item) for item in decayed["params"]} == {id(model[0].weight), id(model[2].weight)}
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


def test_frozen_parameters_are_left_out():
    model = network()
    model[0].requires_grad_(False)
    given = {id(item) for group in parameter_groups(model, 0.5) for item in group["params"]}
    assert given == {id(item) for item in model.parameters() if item.requires_grad}


@pytest.mark.parametrize(
    ("name", "kind"), [("adamw", torch.optim.AdamW), ("adam", torch.optim.Adam), ("sgd", torch.optim.SGD)]
)
def test_optimiser_is_the_configured_one_and_learns(name: str, kind: type):
    model = nn.Linear(3, 1)
    optimizer = build_optimizer(model, OptimConfig(name=name, lr=0.05, weight_decay=0.0))
    assert type(optimizer) is kind and all(group["lr"] == 0.05 for group in optimizer.param_groups)
    inputs = torch.randn(32, 3)
    target = inputs.sum(1, keepdim=True) + 1
    losses = []
    for _ in range(150):
        loss = (model(inputs) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0]


def test_decay_shrinks_weights_by_its_share_of_the_rate():
    model = nn.Linear(2, 2)
    before = [item.detach().clone() for item in model.parameters()]
    optimizer = build_optimizer(model, OptimConfig(name="adamw", lr=0.1, weight_decay=0.5))
    for item in model.parameters():
        item.grad = torch.zeros_like(item)
    optimizer.step()
    torch.testing.assert_close(model.weight.data, before[0] * (1 - 0.1 * 0.5))
    torch.testing.assert_close(model.bias.data, before[1])


def test_network_of_vectors_alone_can_be_optimised():
    assert len(build_optimizer(nn.LayerNorm(4), OptimConfig()).param_groups) == 2


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
@pytest.mark.parametrize("num_steps", [1, 2, 7, 100])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 0.5, 0.99])
def test_schedule_rises_to_the_peak_then_never_rises_again(schedule: str, num_steps: int, warmup: float):
    config = OptimConfig(schedule=schedule, warmup_fraction=warmup)
    factor = schedule_factor(config, num_steps)
    values = [factor(step) for step in range(num_steps)]
    num_warmup = int(warmup * num_steps)
    assert all(0 < value <= 1 for value in values)
    assert values[:num_warmup] == [pytest.approx((step + 1) / num_warmup) for step in range(num_warmup)]
    assert values[num_warmup] == 1.0
    assert values[num_warmup:] == sorted(values[num_warmup:], reverse=True)
    assert factor(num_steps) == factor(10 * num_steps) == {"constant": 1.0, "cosine": 0.01, "linear": 0.0}[schedule]


def test_cosine_agrees_with_pytorch():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=40, eta_min=0.01)
    factor = schedule_factor(OptimConfig(schedule="cosine", warmup_fraction=0.0), 40)
    for step in range(40):
        assert factor(step) == pytest.approx(reference.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        reference.step()
    assert factor(20) == pytest.approx(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi / 2)))
