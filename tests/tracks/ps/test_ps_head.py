from __future__ import annotations

import pytest
import torch

from mersuite.clip import Batch, WindowKey
from mersuite.models.base import Fused
from tracks.ps.head import TARGET, PsHead


def fused_of(batch: int = 2, time: int = 5, width: int = 8) -> tuple[Fused, Batch]:
    tokens = torch.randn(batch, time, width)
    mask = torch.ones(batch, time, dtype=torch.bool)
    keys = [WindowKey(str(i), 0.0, float(time)) for i in range(batch)]
    return Fused(tokens=tokens, mask=mask, pooled=tokens.mean(1)), Batch(keys=keys, streams={}, masks={})


@pytest.mark.parametrize("valence_only", [False, True])
def test_untrained_head_corrects_nothing(valence_only: bool):
    head = PsHead(8, scale=32.0, dropout=0.1, valence_only=valence_only)
    found = head(*fused_of())[TARGET]
    assert found.shape == (2, 5, 2) and found.dtype == torch.float32
    assert torch.count_nonzero(found) == 0


def test_output_is_in_label_points():
    heads = [PsHead(8, scale=scale, dropout=0.0, valence_only=False) for scale in (1.0, 32.0)]
    torch.nn.init.normal_(heads[0].linear.weight)
    heads[1].load_state_dict(heads[0].state_dict())
    fused, batch = fused_of()
    torch.testing.assert_close(heads[1](fused, batch)[TARGET], 32.0 * heads[0](fused, batch)[TARGET])


def test_valence_only_leaves_arousal_at_zero_when_trained():
    head = PsHead(8, scale=32.0, dropout=0.0, valence_only=True)
    torch.nn.init.normal_(head.linear.weight)
    torch.nn.init.normal_(head.linear.bias)
    found = head(*fused_of())[TARGET]
    assert torch.count_nonzero(found[..., 1]) == 0 and torch.count_nonzero(found[..., 0]) == 10


def test_dropout_acts_in_training_only():
    head = PsHead(8, scale=1.0, dropout=0.5, valence_only=False)
    torch.nn.init.normal_(head.linear.weight)
    fused, batch = fused_of()
    assert not torch.equal(head(fused, batch)[TARGET], head(fused, batch)[TARGET])
    head.eval()
    torch.testing.assert_close(head(fused, batch)[TARGET], head(fused, batch)[TARGET])


@pytest.mark.parametrize("valence_only", [False, True])
def test_gradient_reaches_every_parameter(valence_only: bool):
    head = PsHead(8, scale=32.0, dropout=0.0, valence_only=valence_only)
    fused, batch = fused_of()
    (head(fused, batch)[TARGET][..., 0] - 1.0).square().mean().backward()
    for parameter in head.parameters():
        assert parameter.grad is not None and torch.count_nonzero(parameter.grad) > 0
