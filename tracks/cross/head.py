"""The cross head: one value for each label."""

from __future__ import annotations

import torch
from torch import nn

from mersuite.clip import Batch
from mersuite.models.base import Fused

LOGITS = "logits"
TARGET = "emotion"


class CrossHead(nn.Module):
    """Linear map from the fused vector to one logit a label.

    Args:
        width: Width of the fused vector.
        num_labels: How many labels there are.
        dropout: Dropout on the fused vector.
    """

    def __init__(self, width: int, num_labels: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, num_labels)

    def forward(self, fused: Fused, batch: Batch) -> dict[str, torch.Tensor]:
        """Gives {"logits": (batch, label)}."""
        return {LOGITS: self.linear(self.dropout(fused.pooled))}
