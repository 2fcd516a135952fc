"""Gates: every stream says what it has, and a gate that sees all of them says how much each counts.

Source: Arevalo et al. 2017, "Gated multimodal units for information fusion", for any number of streams.
Axes: B batch, K tokens, D width, S streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from mersuite.models.base import BuildContext, Encoded, Fused, Fusion, masked_mean
from mersuite.models.layers import any_mask, join_tokens, pool_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedConfig:
    """Knobs of the gates.

    Attributes:
        width: D of the result. Why 32: the width of the encoders' tokens.
        gate: softmax lets the streams that are there share a weight of 1; sigmoid opens each by itself. Why softmax:
            the result keeps its size when a stream is missing.
        dropout: Share of values dropped in training.
    """

    width: int = 32
    gate: Literal["softmax", "sigmoid"] = "softmax"
    dropout: float = 0.1


class GatedFusion(Fusion):
    """A weighted sum over the streams that are there.

    Without a token rate the gates come from the streams' averages, and each token carries its stream's gate.
    """

    Config = GatedConfig
    config: GatedConfig

    def __init__(self, config: GatedConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        self.width = config.width
        self.values = nn.ModuleList(nn.Linear(width, config.width) for width in widths.values())
        self.gates = nn.Linear(sum(widths.values()) + len(widths), len(widths))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [encoded[name] for name in self.stream_names]
        if self.context.token_rate_hz is not None:
            tokens = torch.stack(self._values(streams, self._open(streams))).sum(0)
            mask = any_mask(streams)
            return Fused(tokens=tokens, mask=mask, pooled=masked_mean(tokens, mask))
        averages = [pool_stream(stream) for stream in streams]
        gates = self._open(averages)
        pooled = torch.stack(self._values(averages, gates)).sum(0)
        parts = zip(self._values(streams, gates), streams, strict=True)
        joined = join_tokens(Encoded(tokens, stream.mask) for tokens, stream in parts)
        return Fused(tokens=joined.tokens, mask=joined.mask, pooled=pooled.squeeze(1))

    def _open(self, streams: list[Encoded]) -> torch.Tensor:
        """Gives (B, K, S) gates, zero where a stream is missing."""
        there = torch.stack([stream.mask for stream in streams], dim=-1)
        seen = [stream.tokens * stream.mask.unsqueeze(-1) for stream in streams]
        logits = self.gates(torch.cat([*seen, (~there).to(seen[0].dtype)], dim=-1))
        if self.config.gate == "sigmoid":
            return logits.sigmoid() * there
        # A finite floor: a row without any stream would be 0/0 with -inf.
        return logits.masked_fill(~there, -1e4).softmax(-1) * there

    def _values(self, streams: list[Encoded], gates: torch.Tensor) -> list[torch.Tensor]:
        """Gives each stream's (B, K, D) share of the result."""
        return [
            self.dropout(torch.tanh(layer(stream.tokens))) * gates[..., [i]] * stream.mask.unsqueeze(-1)
            for i, (layer, stream) in enumerate(zip(self.values, streams, strict=True))
        ]
