"""Attention over any number of features a modality: first among the features of each, then among the modalities.

Source: the top-n variant of the attention of the MER baselines, Lian et al. 2024, "MERBench: a unified evaluation
benchmark for multimodal emotion recognition", which weighs all features at once (no groups here); the level of the
modalities is ours.
Axes: B batch, K tokens, D width, S streams, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import cast

import torch
from torch import nn

from mersuite.errors import ConfigError, did_you_mean
from mersuite.models.base import BuildContext, Encoded, Fused, Fusion
from mersuite.models.fusion.attention import StreamWeights, common_width, project, projections, weighted_sum
from mersuite.models.layers import any_mask


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionTopConfig:
    """Knobs of the attention over features and modalities.

    Attributes:
        groups: Modality to the streams that are its features, by name or pattern: {voice: [hubert_*, wavlm_speaker]}.
            A stream in no group is a modality of its own; without groups all features are weighed at once.
        width: D of the result; streams of another width are projected to it. None takes the width that the streams
            have, and the largest where they differ.
        hidden: Width of the perceptrons that give the weights; None takes D.
        num_layers: Their layers before the one that gives the weights.
        dropout: Share of the perceptrons' inputs dropped in training.
    """

    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    width: int | None = None
    hidden: int | None = None
    num_layers: int = 3
    dropout: float = 0.3


class AttentionTopFusion(Fusion):
    """Two levels of weighted sums without softmax; a group of one feature hands it on as it is.

    Why levels: with six features of the face and one of the voice, a flat sum has six voices for the face.
    """

    Config = AttentionTopConfig
    config: AttentionTopConfig

    def __init__(self, config: AttentionTopConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        self.width = common_width(config.width, widths)
        self.inputs = projections(widths, self.width)
        self.groups = group_streams(self.stream_names, config.groups)
        hidden = self.width if config.hidden is None else config.hidden
        self.within = nn.ModuleList(
            StreamWeights(len(group), self.width, hidden, config.num_layers, config.dropout)
            for group in self.groups
            if len(group) > 1
        )
        self.among = StreamWeights(len(self.groups), self.width, hidden, config.num_layers, config.dropout)

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [project(layer, encoded[name]) for layer, name in zip(self.inputs, self.stream_names, strict=True)]
        return weighted_sum(streams, self.weigh, in_time=self.context.token_rate_hz is not None)

    def weigh(self, streams: Sequence[Encoded]) -> torch.Tensor:
        """Gives each stream the product of its weight in its modality and that of the modality, (B, K, S)."""
        levels = iter(self.within)
        modalities: list[Encoded] = []
        inner: list[torch.Tensor] = []
        for group in self.groups:
            members = [streams[s] for s in group]
            if len(group) > 1:
                inner.append(cast(StreamWeights, next(levels))(members))
            else:
                inner.append(members[0].mask.to(members[0].tokens.dtype).unsqueeze(-1))
            stacked = torch.stack([member.tokens for member in members], dim=-2)
            modalities.append(Encoded((stacked * inner[-1].unsqueeze(-1)).sum(-2), any_mask(members)))
        outer = self.among(modalities)
        weights = torch.cat([part * outer[..., [g]] for g, part in enumerate(inner)], dim=-1)
        order = [s for group in self.groups for s in group]
        return weights[..., [order.index(s) for s in range(len(order))]]


def group_streams(names: Sequence[str], groups: Mapping[str, Sequence[str]]) -> tuple[tuple[int, ...], ...]:
    """Gives the places of each modality's streams; streams in no group follow, each alone.

    >>> group_streams(["hubert_speaker", "clip_listener", "wavlm_speaker"], {"voice": ["hubert_*", "wavlm_*"]})
    ((0, 2), (1,))

    Raises:
        ConfigError: If a name or pattern fits no stream, or a stream is in two groups.
    """
    owner: dict[int, str] = {}
    for modality, patterns in groups.items():
        for pattern in patterns:
            found = [place for place, name in enumerate(names) if fnmatchcase(name, pattern)]
            if not found:
                raise ConfigError(f"groups.{modality}: {pattern!r} fits no stream; {did_you_mean(pattern, names)}")
            for place in found:
                if owner.setdefault(place, modality) != modality:
                    raise ConfigError(
                        f"groups.{modality}: {pattern!r} takes {names[place]!r}, which is in {owner[place]} already; "
                        "a stream belongs to one modality"
                    )
    together = (tuple(place for place in sorted(owner) if owner[place] == modality) for modality in groups)
    alone = ((place,) for place in range(len(names)) if place not in owner)
    return (*(group for group in together if group), *alone)
