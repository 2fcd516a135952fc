"""Two-way cross-attention: every stream looks into every other one, for any number of streams.

Source: two-way attention between modalities is an idea of Tsai et al. 2019, "Multimodal transformer for unaligned
multimodal language sequences"; the contrastive term is that of Radford et al. 2021, "Learning transferable visual
models from natural language supervision", section 2.3.
Axes: B batch, K tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from mersuite.errors import ConfigError
from mersuite.models.attention import Attention, RelativeBias, index_code
from mersuite.models.base import BuildContext, Encoded, Fused, Fusion, masked_mean
from mersuite.models.layers import any_mask, join_tokens, mean_over_streams, pool_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossAttentionConfig:
    """Knobs of cross-attention.

    Attributes:
        width: D of the result; num_heads divides it.
        num_heads: Heads of each attention.
        dropout: Share of values and attention weights dropped in training.
        max_distance: Tokens beyond which all distances in time count alike. Why 16: blood flow and raters lag behind
            the brain by some 5 s, so that distances up to a few of these must be told apart.
        contrastive_weight: Weight of the loss that draws streams of one row together and those of other rows apart.
            Why 0: rows of one film clip are much alike, and it calls them different.
        temperature: Of that loss.
    """

    width: int = 32
    num_heads: int = 4
    dropout: float = 0.1
    max_distance: int = 16
    contrastive_weight: float = 0.0
    temperature: float = 0.1


class CrossAttentionFusion(Fusion):
    """Each stream adds what it finds in the others; the result is the mean over the streams that are there.

    With a token rate, logits depend on the distance in time; without, streams have no common clock and tokens carry a
    code of their index.
    """

    Config = CrossAttentionConfig
    config: CrossAttentionConfig

    def __init__(self, config: CrossAttentionConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        if config.contrastive_weight < 0 or config.temperature <= 0 or config.max_distance < 1:
            raise ConfigError(
                "need contrastive_weight >= 0, temperature > 0 and max_distance >= 1, got "
                f"{config.contrastive_weight}, {config.temperature} and {config.max_distance}"
            )
        self.width = config.width
        self.inputs = nn.ModuleList(nn.Linear(width, config.width) for width in widths.values())
        self.norms = nn.ModuleList(nn.LayerNorm(config.width) for _ in widths)
        self.pairs = tuple(permutations(range(len(widths)), 2))
        self.looks = nn.ModuleList(Attention(config.width, config.num_heads, config.dropout) for _ in self.pairs)
        in_time = context.token_rate_hz is not None and len(widths) > 1
        self.bias = RelativeBias(config.num_heads, config.max_distance) if in_time else None
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Sequential(nn.LayerNorm(config.width), nn.Linear(config.width, config.width))

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [self._project(i, encoded[name]) for i, name in enumerate(self.stream_names)]
        joined = self._look(streams)
        losses = {}
        if self.config.contrastive_weight > 0 and len(streams) > 1:
            losses["contrastive"] = self.config.contrastive_weight * self._contrast(streams)
        if self.context.token_rate_hz is not None:
            mask = any_mask(joined)
            tokens = self.output(mean_over_streams(joined)) * mask.unsqueeze(-1)
            return Fused(tokens=tokens, mask=mask, pooled=masked_mean(tokens, mask), losses=losses)
        averages = [pool_stream(stream) for stream in joined]
        pooled = self.output(mean_over_streams(averages)) * any_mask(averages).unsqueeze(-1)
        every = join_tokens(joined)
        tokens = self.output(every.tokens) * every.mask.unsqueeze(-1)
        return Fused(tokens=tokens, mask=every.mask, pooled=pooled.squeeze(1), losses=losses)

    def _project(self, index: int, stream: Encoded) -> Encoded:
        tokens = self.inputs[index](stream.tokens)
        if self.context.token_rate_hz is None:
            tokens = tokens + index_code(tokens.shape[1], self.width, device=tokens.device, dtype=tokens.dtype)
        return Encoded(tokens * stream.mask.unsqueeze(-1), stream.mask)

    def _look(self, streams: Sequence[Encoded]) -> list[Encoded]:
        """Adds to every stream what it finds in each other one that its row has."""
        normed = [norm(stream.tokens) for norm, stream in zip(self.norms, streams, strict=True)]
        bias = None
        if self.bias is not None:
            times = torch.arange(streams[0].mask.shape[1], device=streams[0].mask.device)
            bias = self.bias(times, times)
        tokens = [stream.tokens for stream in streams]
        for look, (to, source) in zip(self.looks, self.pairs, strict=True):
            there = streams[source].mask.any(1)[:, None, None]
            found = cast(Attention, look)(normed[to], normed[source], streams[source].mask, bias)
            tokens[to] = tokens[to] + self.dropout(found) * there
        return [
            Encoded(item * stream.mask.unsqueeze(-1), stream.mask) for item, stream in zip(tokens, streams, strict=True)
        ]

    def _contrast(self, streams: Sequence[Encoded]) -> torch.Tensor:
        """Mean over pairs of streams of the cross entropy of finding one's own row, both ways."""
        pooled = [functional.normalize(masked_mean(stream.tokens, stream.mask), dim=-1) for stream in streams]
        there = [stream.mask.any(1) for stream in streams]
        losses = []
        for one, other in combinations(range(len(streams)), 2):
            both = there[one] & there[other]
            logits = pooled[one][both] @ pooled[other][both].T / self.config.temperature
            own = torch.arange(len(logits), device=logits.device)
            if len(logits) > 1:
                losses.append(functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own))
        return torch.stack(losses).mean() / 2 if losses else pooled[0].sum() * 0.0
