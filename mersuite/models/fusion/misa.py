"""MISA: what a stream shares with the others and what is its own, told apart by loss terms, then joined by attention.

Source: Hazarika et al. 2020, "MISA: modality-invariant and -specific representations for multimodal sentiment
analysis".
Axes: B batch, K tokens, D width, S streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import torch
from torch import nn

from mersuite.models.attention import TransformerBlock
from mersuite.models.base import BuildContext, Encoded, Fused, Fusion, masked_mean
from mersuite.models.batch_losses import moment_discrepancy, squared_error, subspace_overlap
from mersuite.models.layers import any_mask, join_tokens, pool_stream
from mersuite.schema import require

NUM_MOMENTS = 5
"""Moments that the similarity term compares, as in the paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MisaConfig:
    """Knobs of MISA.

    Attributes:
        width: D of the shared and the own vectors and of the result; num_heads divides it.
        num_heads: Heads of the attention over the 2 S vectors.
        dropout: Share of values and attention weights dropped in training.
        similarity_weight: Weight of the term that draws the streams' shared vectors to one distribution.
        difference_weight: Weight of the term that keeps own vectors apart from shared ones, and from one another.
        reconstruction_weight: Weight of the term by which both together must hold the whole stream. Why 0.1 for all
            three: the middle of the published search space 0, 0.1, 0.2.
    """

    width: int = 32
    num_heads: int = 2
    dropout: float = 0.1
    similarity_weight: float = 0.1
    difference_weight: float = 0.1
    reconstruction_weight: float = 0.1

    def __post_init__(self) -> None:
        weights = (self.similarity_weight, self.difference_weight, self.reconstruction_weight)
        require(min(weights) >= 0, f"need weights of the losses of 0 or more, got {weights}")


class _Parts(NamedTuple):
    """A stream's (B K, D) vectors: at the common width, shared and own; (B K,) which are there."""

    whole: torch.Tensor
    shared: torch.Tensor
    own: torch.Tensor
    there: torch.Tensor


class MisaFusion(Fusion):
    """Shared and own vectors of every stream; a transformer over all of them; one layer over its results.

    With a token rate every time step is a sample of its own. Without, the streams' averages are, and each token passes
    alone, as if the other streams were missing. A missing stream is seen neither by the attention nor by the losses.
    """

    Config = MisaConfig
    config: MisaConfig

    def __init__(self, config: MisaConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        width = config.width
        self.width = width
        self.inputs = nn.ModuleList(
            nn.Sequential(nn.Linear(size, width), nn.ReLU(), nn.LayerNorm(width)) for size in widths.values()
        )
        # Sigmoids: the moments are compared on an interval of length 1.
        self.shared = nn.Sequential(nn.Linear(width, width), nn.Sigmoid())
        self.own = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.Sigmoid()) for _ in widths)
        rebuilds = len(widths) if config.reconstruction_weight > 0 else 0
        self.rebuild = nn.ModuleList(nn.Linear(width, width) for _ in range(rebuilds))
        self.block = TransformerBlock(width, config.num_heads, config.dropout)
        self.output = nn.Sequential(
            nn.Linear(2 * len(widths) * width, width), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(width, width)
        )

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [encoded[name] for name in self.stream_names]
        in_time = self.context.token_rate_hz is not None
        samples = streams if in_time else [pool_stream(stream) for stream in streams]
        parts = [self._split(i, stream) for i, stream in enumerate(samples)]
        losses = self._losses(parts)
        tokens, mask = self._join(dict(enumerate(parts)), samples)
        if in_time:
            return Fused(tokens=tokens, mask=mask, pooled=masked_mean(tokens, mask), losses=losses)
        each = join_tokens([self._join({i: self._split(i, stream)}, [stream]) for i, stream in enumerate(streams)])
        return Fused(tokens=each.tokens, mask=each.mask, pooled=tokens.squeeze(1), losses=losses)

    def _split(self, index: int, stream: Encoded) -> _Parts:
        whole = self.inputs[index]((stream.tokens * stream.mask.unsqueeze(-1)).flatten(0, 1))
        return _Parts(whole, self.shared(whole), self.own[index](whole), stream.mask.flatten())

    def _join(self, parts: Mapping[int, _Parts], streams: Sequence[Encoded]) -> Encoded:
        """Joins the streams that are given, by their places; the others count as missing."""
        there = torch.stack([part.there for part in parts.values()], dim=1).repeat(1, 2).unsqueeze(-1)
        vectors = torch.stack([item.shared for item in parts.values()] + [item.own for item in parts.values()], dim=1)
        joined = self.block(vectors * there, there.squeeze(-1)) * there
        count = len(self.stream_names)
        slots = joined.new_zeros((len(joined), 2 * count, self.width))
        slots[:, [*parts, *(count + place for place in parts)]] = joined
        mask = any_mask(streams)
        return Encoded(self.output(slots.flatten(1)).unflatten(0, mask.shape) * mask.unsqueeze(-1), mask)

    def _losses(self, parts: Sequence[_Parts]) -> dict[str, torch.Tensor]:
        """Gives the weighted terms."""
        config = self.config
        pairs = [(one, other, one.there & other.there) for one, other in combinations(parts, 2)]
        losses = {}
        if config.similarity_weight > 0 and pairs:
            terms = [moment_discrepancy(one.shared, other.shared, both, NUM_MOMENTS) for one, other, both in pairs]
            losses["similarity"] = config.similarity_weight * torch.stack(terms).mean()
        if config.difference_weight > 0:
            terms = [subspace_overlap(part.shared, part.own, part.there) for part in parts]
            terms += [subspace_overlap(one.own, other.own, both) for one, other, both in pairs]
            losses["difference"] = config.difference_weight * torch.stack(terms).sum()
        if config.reconstruction_weight > 0:
            terms = [
                squared_error(layer(part.shared + part.own), part.whole, part.there)
                for layer, part in zip(self.rebuild, parts, strict=True)
            ]
            losses["reconstruction"] = config.reconstruction_weight * torch.stack(terms).mean()
        return losses
