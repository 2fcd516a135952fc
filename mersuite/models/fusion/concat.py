"""Concatenation: all streams side by side with a flag for each that is missing, then one layer.

Axes: B batch, K tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from mersuite.models.base import BuildContext, Encoded, Fused, Fusion, masked_mean
from mersuite.models.layers import any_mask, join_tokens, pool_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class ConcatConfig:
    """Knobs of the concatenation.

    Attributes:
        width: D of the result. Why 32: the width of the encoders' tokens.
        dropout: Share of values dropped in training.
    """

    width: int = 32
    dropout: float = 0.1


class ConcatFusion(Fusion):
    """One linear layer over all streams; where a stream is missing it holds zeros and its flag says so.

    Without a token rate the streams differ in length: each is averaged, the averages are joined into `pooled`, and
    every token passes the same layer alone, with the other streams flagged as missing.
    """

    Config = ConcatConfig
    config: ConcatConfig

    def __init__(self, config: ConcatConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        self.width = config.width
        self.widths = dict(widths)
        self.layer = nn.Sequential(
            nn.Linear(sum(widths.values()) + len(widths), config.width),
            nn.LayerNorm(config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
        )

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        if self.context.token_rate_hz is not None:
            tokens, mask = self._join(encoded)
            return Fused(tokens=tokens, mask=mask, pooled=masked_mean(tokens, mask))
        pooled, _ = self._join({name: pool_stream(encoded[name]) for name in self.stream_names})
        joined = join_tokens([self._join({name: encoded[name]}) for name in self.stream_names])
        return Fused(tokens=joined.tokens, mask=joined.mask, pooled=pooled.squeeze(1))

    def _join(self, encoded: Mapping[str, Encoded]) -> Encoded:
        """Joins streams of equal length; a stream that is not given counts as missing."""
        like = next(iter(encoded.values()))
        parts, flags = [], []
        for name, width in self.widths.items():
            if name in encoded:
                parts.append(encoded[name].tokens * encoded[name].mask.unsqueeze(-1))
                flags.append(encoded[name].mask)
            else:
                parts.append(like.tokens.new_zeros((*like.mask.shape, width)))
                flags.append(torch.zeros_like(like.mask))
        missing = ~torch.stack(flags, dim=-1)
        mask = any_mask(encoded.values())
        return Encoded(self.layer(torch.cat([*parts, missing.to(parts[0].dtype)], dim=-1)) * mask.unsqueeze(-1), mask)
