"""The cross head: one value for each label."""

from __future__ import annotations

import torch
from torch import nn

from mersuite.clip import Batch
from mersuite.models.base import Fused
from tracks.cross.transfer import ROLE_LOGIT, RoleClassifier

LOGITS = "logits"
TARGET = "emotion"


class CrossHead(nn.Module):
    """Linear map from the fused vector to one logit a label.

    Args:
        width: Width of the fused vector.
        num_labels: How many labels there are.
        dropout: Dropout on the fused vector.
        tells_roles: Have a classifier of roles, from which the network learns to hide them.
    """

    def __init__(self, width: int, num_labels: int, *, dropout: float, tells_roles: bool = False) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, num_labels)
        self.role_classifier = RoleClassifier(width) if tells_roles else None

    def forward(self, fused: Fused, batch: Batch) -> dict[str, torch.Tensor]:
        """Gives {"logits": (batch, label)}; in training, where roles are told, "role" (batch,), logits of listening."""
        output = {LOGITS: self.linear(self.dropout(fused.pooled))}
        if self.role_classifier is not None and self.training:
            output[ROLE_LOGIT] = self.role_classifier(fused.pooled, batch.progress)
        return output
