"""The head of dialogues: the asked turn's emotion, and in training those of the earlier turns, too."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from mersuite.clip import Batch
from mersuite.data.collate import IGNORED_CLASS
from mersuite.errors import ConfigError
from mersuite.models.base import Encoded, Fused
from mersuite.models.sequence_layers import last_real
from tracks.cross.dialogue import EARLIER
from tracks.cross.head import LOGITS
from tracks.cross.options import DialogueConfig


class DialogueHead(nn.Module):
    """One linear map from the last turn's token to the asked emotion, another from each turn's token to its own.

    The second one is there in training alone. Why: what words tell of an emotion is then learned from every turn, and
    not only through the turn after it.

    Args:
        width: Width of the tokens.
        num_labels: How many labels there are.
        dropout: Dropout on the tokens.
        teaches_earlier: Whether to give the emotions of earlier turns in training.
    """

    def __init__(self, width: int, num_labels: int, *, dropout: float, teaches_earlier: bool) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, num_labels)
        self.earlier = nn.Linear(width, num_labels) if teaches_earlier else None

    def forward(self, fused: Fused, batch: Batch) -> dict[str, torch.Tensor]:
        """Gives {"logits": (batch, label)}, and in training {"earlier": (batch, turn, label)}."""
        asked = last_real(Encoded(fused.tokens, fused.mask))
        output = {LOGITS: self.linear(self.dropout(asked))}
        if self.training and self.earlier is not None:
            output[EARLIER] = self.earlier(self.dropout(fused.tokens))
        return output


def earlier_losses(config: DialogueConfig, output: Mapping[str, torch.Tensor], batch: Batch) -> dict[str, torch.Tensor]:
    """Gives {"earlier": weighted mean cross entropy over earlier turns whose emotion is known}; {} outside training.

    Args:
        config: earlier_weight is read.
        output: "earlier", (batch, turn, label), where the head gave it.
        batch: Its target "earlier" is (batch, turn) int64: IGNORED_CLASS for the asked turn and where nothing is known.

    Raises:
        ConfigError: If there is not one token a turn.
    """
    if EARLIER not in output:
        return {}
    logits, target = output[EARLIER], batch.target[EARLIER]
    if logits.shape[:2] != target.shape:
        raise ConfigError(
            f"cross.dialogue.earlier_weight: the fusion gives {logits.shape[1]} tokens for {target.shape[1]} turns; "
            "use one encoder and a fusion that keeps its tokens, such as concat or transformer, or earlier_weight=0"
        )
    total = functional.cross_entropy(
        logits.flatten(0, 1), target.flatten(), ignore_index=IGNORED_CLASS, reduction="sum"
    )
    return {EARLIER: config.earlier_weight * total / (target != IGNORED_CLASS).sum().clamp(min=1)}
