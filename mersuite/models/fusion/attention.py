"""Attention of the MER baseline: one free weight a stream, seen from all of them, and the weighted sum.

Source: the model "attention" of the baselines of the MER challenges, Lian et al. 2024, "MERBench: a unified evaluation
benchmark for multimodal emotion recognition": a = W MLP([h_1; ...; h_S]) without softmax, z = sum over s of a_s h_s.
Axes: B batch, K tokens, D width, S streams.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Fused, Fusion, masked_mean
from mersuite.models.layers import any_mask, join_tokens, pool_stream
from mersuite.models.sequence_layers import sub_network


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionConfig:
    """Knobs of the attention.

    Attributes:
        width: D of the result; streams of another width are projected to it. None takes the width that the streams
            have, and the largest where they differ.
        hidden: Width of the perceptron that gives the weights; None takes D, as the organisers do.
        num_layers: Its layers before the one that gives the weights. Why 3: the organisers'.
        dropout: Share of the perceptron's inputs dropped in training.
    """

    width: int | None = None
    hidden: int | None = None
    num_layers: int = 3
    dropout: float = 0.3


class AttentionFusion(Fusion):
    """A weighted sum of the streams; weights may be of any size and sign.

    Three `mlp` encoders with num_layers=3, hidden and width alike, input_norm=false, dropout=0, activation=relu,
    activate_output=true and input_dropout the same as dropout here are the organisers' model: streams of one width are
    used as they are.

    A stream that is missing has neither vector nor weight. Without a token rate the weights come from the streams'
    averages, and each token carries its stream's weight.
    """

    Config = AttentionConfig
    config: AttentionConfig

    def __init__(self, config: AttentionConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        self.width = common_width(config.width, widths)
        self.inputs = projections(widths, self.width)
        self.weigh = StreamWeights(
            len(widths),
            self.width,
            self.width if config.hidden is None else config.hidden,
            config.num_layers,
            config.dropout,
        )

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [project(layer, encoded[name]) for layer, name in zip(self.inputs, self.stream_names, strict=True)]
        return weighted_sum(streams, self.weigh, in_time=self.context.token_rate_hz is not None)


class StreamWeights(nn.Module):
    """Gives each stream a weight that depends on all of them.

    Args:
        num_streams: S.
        width: D of each stream.
        hidden: Width of the layers.
        num_layers: Layers before the one that gives the weights.
        dropout: Share of inputs dropped in training.
    """

    def __init__(self, num_streams: int, width: int, hidden: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.layers = sub_network(num_streams * width, hidden, num_layers, dropout)
        self.output = nn.Linear(hidden, num_streams)

    def forward(self, streams: Sequence[Encoded]) -> torch.Tensor:
        """Gives (B, K, S) weights for streams that are zero where they are missing; zero there, too."""
        there = torch.stack([stream.mask for stream in streams], dim=-1)
        return self.output(self.layers(torch.cat([stream.tokens for stream in streams], dim=-1))) * there


def weighted_sum(
    streams: Sequence[Encoded], weigh: Callable[[Sequence[Encoded]], torch.Tensor], *, in_time: bool
) -> Fused:
    """Sums streams of one width, (B, K, D), with the weights that a function gives, (B, K, S).

    Args:
        streams: Of equal length where in_time is set; zero where they are missing.
        weigh: Streams of equal length to their weights.
        in_time: Weigh each step by itself; else the averages of the streams.
    """
    if in_time:
        tokens, mask = _sum(streams, weigh(streams)), any_mask(streams)
        return Fused(tokens=tokens, mask=mask, pooled=masked_mean(tokens, mask))
    averages = [pool_stream(stream) for stream in streams]
    weights = weigh(averages)
    joined = join_tokens(Encoded(part.tokens * weights[..., [s]], part.mask) for s, part in enumerate(streams))
    return Fused(tokens=joined.tokens, mask=joined.mask, pooled=_sum(averages, weights).squeeze(1))


def _sum(streams: Sequence[Encoded], weights: torch.Tensor) -> torch.Tensor:
    stacked = torch.stack([stream.tokens for stream in streams], dim=-2)  # (B, K, S, D)
    return (stacked * weights.unsqueeze(-1)).sum(-2)


def common_width(width: int | None, widths: Mapping[str, int]) -> int:
    """Gives D for the knob `width`.

    Raises:
        ConfigError: If it is below 1.
    """
    if width is not None and width < 1:
        raise ConfigError(f"width: need 1 or more, or null for the width of the streams, got {width}")
    return max(widths.values()) if width is None else width


def projections(widths: Mapping[str, int], width: int) -> nn.ModuleList:
    """Gives each stream a linear layer to a common width, and those that have it none."""
    return nn.ModuleList(nn.Identity() if item == width else nn.Linear(item, width) for item in widths.values())


def project(layer: nn.Module, stream: Encoded) -> Encoded:
    """Applies a layer to a stream's tokens and keeps missing ones zero."""
    return Encoded(layer(stream.tokens) * stream.mask.unsqueeze(-1), stream.mask)
