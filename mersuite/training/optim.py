"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from mersuite.config import OptimConfig


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Gives two parameter groups: matrices with weight decay; biases, norms and other vectors without.

    Why: decay would pull scales and offsets away from what normalisation needs; it is meant for weights (Loshchilov &
    Hutter 2019).
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [item for item in trained if item.ndim >= 2], "weight_decay": weight_decay},
        {"params": [item for item in trained if item.ndim < 2], "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Gives the configured optimiser over all trained parameters."""
    return make_optimizer(parameter_groups(model, config.weight_decay), config)


def make_optimizer(
    groups: Sequence[dict[str, Any]], config: OptimConfig, *, fused: bool | None = None
) -> torch.optim.Optimizer:
    """Gives the configured optimiser over groups of parameters, each with its weight decay.

    Args:
        groups: As torch.optim takes them.
        config: Names optimiser and learning rate.
        fused: One pass over the parameters a step; None leaves PyTorch's choice.
    """
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True, fused=fused)
    classes = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
    return classes[config.name](groups, lr=config.lr, fused=fused)


def schedule_factor(config: OptimConfig, num_steps: int) -> Callable[[int], float]:
    """Gives the factor on the peak learning rate at a step: linear warm-up, then the configured decay.

    Args:
        config: Names the schedule.
        num_steps: Optimiser steps of the whole run.

    >>> factor = schedule_factor(OptimConfig(schedule="linear", warmup_fraction=0.5), 4)
    >>> [factor(step) for step in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    num_warmup = int(config.warmup_fraction * num_steps)

    def factor(step: int) -> float:
        if step < num_warmup:
            return (step + 1) / num_warmup
        done = min(1.0, (step - num_warmup) / max(1, num_steps - num_warmup))
        if config.schedule == "cosine":
            return 0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * done))
        return 1.0 - done if config.schedule == "linear" else 1.0

    return factor
