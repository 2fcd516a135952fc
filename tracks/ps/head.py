"""The ps head: valence and arousal each second, as a correction that starts at zero."""

from __future__ import annotations

import torch
from torch import nn

from mersuite.clip import Batch
from mersuite.models.base import Fused

TARGET = "valence_arousal"


class PsHead(nn.Module):
    """Linear map from fused tokens to valence and arousal.

    The last layer starts at zero, so an untrained network adds nothing to what it corrects (the training median or the
    prior). Why: residual heads that start at zero were among the few things that helped participants.

    Args:
        width: Width of the fused tokens.
        scale: Label points that an output of 1 stands for. Why: the optimiser then sees values near 1, while labels run
            from 1 to 255.
        dropout: Dropout on the fused tokens.
        valence_only: Correct valence alone; the arousal column is zero and takes no part in the loss.
    """

    def __init__(self, width: int, *, scale: float, dropout: float, valence_only: bool) -> None:
        super().__init__()
        self.scale = scale
        self.valence_only = valence_only
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, 1 if valence_only else 2)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, fused: Fused, batch: Batch) -> dict[str, torch.Tensor]:
        """Gives {"valence_arousal": (batch, second, 2)}, corrections in label points."""
        correction = self.linear(self.dropout(fused.tokens)) * self.scale
        if self.valence_only:
            correction = torch.cat([correction, torch.zeros_like(correction)], dim=-1)
        return {TARGET: correction}
