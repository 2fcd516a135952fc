"""Feature alignment between roles: fused vectors of those who listen are to look like those of the labelled ones.

Two ways: equal covariances (CORAL), or vectors from which a classifier cannot tell the role (domain-adversarial).
Source of the equations: see each function. Axes: N rows, D width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from mersuite.clip import Batch
from mersuite.config import RunConfig
from mersuite.models.base import Fused
from tracks.cross.roles import hidden_of_listener

ROLE_TARGET = "role"
"""Name of the target that says who is labelled: 0 somebody who speaks, 1 somebody who listens."""
ROLE_LOGIT = "role"
"""Name of the head's answer to it, in training only."""


def covariance(vectors: torch.Tensor) -> torch.Tensor:
    """Gives the unbiased covariance (D, D) of (N, D) vectors; zeros of one row or none."""
    centred = vectors - vectors.mean(0, keepdim=True) if len(vectors) else vectors
    return centred.T @ centred / max(1, len(vectors) - 1)


def coral_loss(vectors: torch.Tensor, is_own: torch.Tensor, is_other: torch.Tensor) -> torch.Tensor:
    """Squared distance of the covariances of two sets of rows: |C_own - C_other|_F^2 / (4 D^2).

    Zero where a set has fewer than two rows, which have no covariance. Only second moments are compared: a shift of the
    mean stays as it is. Computed in float32 or better whatever autocast says.

    Source: Sun and Saenko 2016, "Deep CORAL: correlation alignment for deep domain adaptation", equations 1 to 3.

    Args:
        vectors: (N, D) float.
        is_own: (N,) bool, rows of the one set.
        is_other: (N,) bool, rows of the other.
    """
    with torch.autocast(vectors.device.type, enabled=False):
        wide = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
        if min(int(is_own.sum()), int(is_other.sum())) < 2:
            return 0.0 * wide.sum()
        gap = covariance(wide[is_own]) - covariance(wide[is_other])
        return gap.square().sum() / (4 * wide.shape[1] ** 2)


def adversary_strength(progress: float) -> float:
    """How strongly the reversed gradient acts: 2 / (1 + exp(-10 p)) - 1, from 0 to 1.

    Source: Ganin et al. 2016, "Domain-adversarial training of neural networks", section 5.2.2.

    Args:
        progress: p, the share of the training that is done.

    >>> [round(adversary_strength(p), 3) for p in (0.0, 0.1, 0.5, 1.0)]
    [0.0, 0.462, 0.987, 1.0]
    """
    return 2.0 / (1.0 + math.exp(-10.0 * progress)) - 1.0


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor, strength: float) -> torch.Tensor:
        ctx.strength = strength
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return -ctx.strength * gradients[0], None


def reverse_gradient(values: torch.Tensor, strength: float) -> torch.Tensor:
    """Gives the values as they are; their gradient is turned round and multiplied by the strength.

    Source: Ganin et al. 2016, equations 14 and 15.
    """
    reversed_values: torch.Tensor = _Reversal.apply(values, strength)
    return reversed_values


class RoleClassifier(nn.Module):
    """Tells from a fused vector whether the labelled person listens; what comes before it learns to hide that.

    Args:
        width: D of the fused vector.
        hidden: Width of the hidden layer.
    """

    def __init__(self, width: int, hidden: int = 64) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 1))

    def forward(self, vectors: torch.Tensor, progress: float) -> torch.Tensor:
        """Gives (N,) logits of listening.

        Args:
            vectors: (N, D) float.
            progress: Share of the training that is done.
        """
        logits: torch.Tensor = self.layers(reverse_gradient(vectors, adversary_strength(progress)))
        return logits.squeeze(1)


def role_loss(logits: torch.Tensor, is_own: torch.Tensor, is_other: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy of the role, both roles of equal weight; zero where a role has no row.

    Why of equal weight: the classifier could else be right about most rows by their number alone.

    Args:
        logits: (N,) of listening.
        is_own: (N,) bool, rows of those who speak.
        is_other: (N,) bool, rows of those who listen.
    """
    if not (is_own.any() and is_other.any()):
        return 0.0 * logits.sum()
    own, other = functional.softplus(logits[is_own]).mean(), functional.softplus(-logits[is_other]).mean()
    return 0.5 * (own + other)


def compared_rows(config: RunConfig, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Gives which rows of a batch are aligned: (N,) bool of those who speak, and of those who listen.

    Where training rows are silenced, only those that are count among those who speak. Why: vectors of the others differ
    from a listener's by what voice and words say, which is not to be unlearned.

    Args:
        config: cross.* and the streams of model.encoders are read.
        batch: After Track.augment.
    """
    role, options = batch.target[ROLE_TARGET], config.options
    is_own = role == 0
    hidden = [stream for stream in hidden_of_listener(config) if stream in batch.masks]
    if options.system == "listener" and options.silence > 0 and hidden:
        is_own = is_own & ~torch.stack([batch.masks[stream].any(1) for stream in hidden]).any(0)
    return is_own, role == 1


def alignment(config: RunConfig, output: Mapping[str, torch.Tensor], fused: Fused, batch: Batch) -> torch.Tensor:
    """Gives the loss term of cross.align, not weighted."""
    is_own, is_other = compared_rows(config, batch)
    if config.options.align == "coral":
        return coral_loss(fused.pooled, is_own, is_other)
    return role_loss(output[ROLE_LOGIT], is_own, is_other)
