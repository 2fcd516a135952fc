"""One transformer over the tokens of all streams, each with an embedding that says whose it is.

Axes: B batch, K tokens, D width, S streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from mersuite.errors import ConfigError
from mersuite.models.attention import RelativeBias, TransformerBlock, index_code
from mersuite.models.base import BuildContext, Encoded, Fused, Fusion, masked_mean
from mersuite.models.layers import any_mask, join_tokens, mean_over_streams, pool_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class TransformerConfig:
    """Knobs of the transformer.

    Attributes:
        width: D of the result; num_heads divides it.
        num_heads: Heads of each attention.
        num_layers: Blocks.
        dropout: Share of values and attention weights dropped in training.
        scope: With a token rate, `all` lets every token see all tokens of the window, `step` only the streams of its
            own time step; without one, all is the only scope. Why all: modalities lag behind one another by seconds.
        max_distance: Tokens beyond which all distances in time count alike.
    """

    width: int = 32
    num_heads: int = 4
    num_layers: int = 2
    dropout: float = 0.1
    scope: Literal["all", "step"] = "all"
    max_distance: int = 16


class TransformerFusion(Fusion):
    """Attention among all tokens that are there; the result is the mean over the streams."""

    Config = TransformerConfig
    config: TransformerConfig

    def __init__(self, config: TransformerConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        if config.num_layers < 1 or config.max_distance < 1:
            raise ConfigError(
                f"need num_layers and max_distance of 1 or more, got {config.num_layers} and {config.max_distance}"
            )
        self.width = config.width
        self.inputs = nn.ModuleList(nn.Linear(width, config.width) for width in widths.values())
        self.modality = nn.Parameter(torch.randn(len(widths), config.width) * 0.02)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.num_heads, config.dropout) for _ in range(config.num_layers)
        )
        in_time = context.token_rate_hz is not None and config.scope == "all"
        self.bias = RelativeBias(config.num_heads, config.max_distance) if in_time else None
        self.output = nn.LayerNorm(config.width)

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [self._embed(i, encoded[name]) for i, name in enumerate(self.stream_names)]
        if self.context.token_rate_hz is None:
            joined = join_tokens(streams)
            tokens = self._attend(joined.tokens, joined.mask)
            parts = self._part(Encoded(tokens, joined.mask), [stream.mask.shape[1] for stream in streams])
            pooled = mean_over_streams([pool_stream(part) for part in parts]).squeeze(1)
            return Fused(tokens=tokens, mask=joined.mask, pooled=pooled)
        mask = any_mask(streams)
        num_tokens = mask.shape[1]
        if self.config.scope == "step":
            # (B, K, S, D): a time step is a row, its streams are the tokens.
            stacked = torch.stack([stream.tokens for stream in streams], dim=2)
            there = torch.stack([stream.mask for stream in streams], dim=2)
            found = self._attend(stacked.flatten(0, 1), there.flatten(0, 1)).unflatten(0, mask.shape)
            parts = [Encoded(found[:, :, i], stream.mask) for i, stream in enumerate(streams)]
        else:
            joined = join_tokens(streams)
            times = torch.arange(num_tokens, device=mask.device).repeat(len(streams))
            found = self._attend(joined.tokens, joined.mask, times)
            parts = self._part(Encoded(found, joined.mask), [num_tokens] * len(streams))
        tokens = mean_over_streams(parts)
        return Fused(tokens=tokens, mask=mask, pooled=masked_mean(tokens, mask))

    def _embed(self, index: int, stream: Encoded) -> Encoded:
        tokens = self.inputs[index](stream.tokens) + self.modality[index]
        if self.context.token_rate_hz is None:
            tokens = tokens + index_code(tokens.shape[1], self.width, device=tokens.device, dtype=tokens.dtype)
        return Encoded(tokens * stream.mask.unsqueeze(-1), stream.mask)

    def _attend(self, tokens: torch.Tensor, mask: torch.Tensor, times: torch.Tensor | None = None) -> torch.Tensor:
        bias = self.bias(times, times) if self.bias is not None else None
        for block in self.blocks:
            tokens = block(tokens, mask, bias)
        return self.output(tokens) * mask.unsqueeze(-1)

    def _part(self, joined: Encoded, lengths: Sequence[int]) -> list[Encoded]:
        """Undoes join_tokens."""
        tokens, masks = joined.tokens.split(list(lengths), dim=1), joined.mask.split(list(lengths), dim=1)
        return [Encoded(token, mask) for token, mask in zip(tokens, masks, strict=True)]
