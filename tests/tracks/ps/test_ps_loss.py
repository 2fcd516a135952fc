"""The ps loss: its options are in label points, whatever an output of 1 stands for."""

from __future__ import annotations

import pytest
import torch

from mersuite import api, registry
from mersuite.clip import Batch, WindowKey
from mersuite.models.base import Fused
from tracks.ps.head import TARGET


def loss_of(preds: torch.Tensor, target: torch.Tensor, *overrides: str) -> float:
    track, config = registry.load("ps"), api.config("ps", overrides=["ps.loss.name=huber", *overrides])
    mask = torch.ones(preds.shape[:2], dtype=torch.bool)
    fused = Fused(tokens=torch.zeros(*preds.shape[:2], 1), mask=mask, pooled=torch.zeros(len(preds), 1))
    batch = Batch(keys=[WindowKey("a", 0.0, 5.0)], streams={}, masks={}, target={TARGET: target})
    (value,) = track.loss(config, {TARGET: preds}, fused, batch, track.fitted(config)).values()
    return float(value)


@pytest.mark.parametrize("scale", [1.0, 16.0, 32.0])
def test_huber_delta_is_in_label_points(scale: float) -> None:
    torch.manual_seed(0)
    preds, target = 30 * torch.randn(1, 5, 2), 128 + 30 * torch.randn(1, 5, 2)
    found = loss_of(preds, target, "ps.loss.huber_delta=20", f"ps.head_scale={scale}")
    expected = float(torch.nn.functional.huber_loss(preds, target, delta=20.0))
    assert found * scale**2 == pytest.approx(expected, rel=1e-5)
