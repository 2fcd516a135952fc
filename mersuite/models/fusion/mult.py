"""MulT: every stream is read anew through the eyes of each other one, then with a memory of its own.

Source: Tsai et al. 2019, "Multimodal transformer for unaligned multimodal language sequences", sections 3.1 and 3.2.
Axes: B batch, K tokens, D width, S streams.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, cast

import torch
from torch import nn

from mersuite.models.attention import Attention, RelativeBias, TransformerBlock, index_code
from mersuite.models.base import BuildContext, Encoded, Fused, Fusion, masked_mean
from mersuite.models.layers import any_mask, join_tokens
from mersuite.models.sequence_layers import last_real
from mersuite.schema import require_all


@dataclass(frozen=True, slots=True, kw_only=True)
class MultConfig:
    """Knobs of MulT.

    Attributes:
        width: D of every stream and of the result; num_heads divides it.
        num_layers: Blocks of each cross-modal transformer.
        num_memory_layers: Blocks of each stream's self-attention over what it found. Why 1 where the published code has
            3 or more: each is (S - 1) D wide.
        num_heads: Heads of each attention.
        kernel: Tokens that the convolution before all else looks at; 1 looks at each alone.
        dropout: Share of values and attention weights dropped in training.
        pool: The result's vector comes from the `last` real token of every stream, as in the paper, or their `mean`.
        max_distance: Tokens beyond which all distances in time count alike.
    """

    width: int = 32
    num_layers: int = 2
    num_memory_layers: int = 1
    num_heads: int = 4
    kernel: Literal[1, 3] = 3
    dropout: float = 0.1
    pool: Literal["last", "mean"] = "last"
    max_distance: int = 16

    def __post_init__(self) -> None:
        require_all(
            (self.num_layers >= 1, f"num_layers: need 1 or more, got {self.num_layers}"),
            (self.num_memory_layers >= 1, f"num_memory_layers: need 1 or more, got {self.num_memory_layers}"),
            (self.max_distance >= 1, f"max_distance: need 1 or more, got {self.max_distance}"),
        )


class CrossModalBlock(nn.Module):
    """Tokens of one stream look at another one, then pass a perceptron, each added to what comes in."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(width)
        self.source_norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, dropout)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(4 * width, width)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: torch.Tensor, source: Encoded, bias: torch.Tensor | None = None) -> torch.Tensor:
        """Gives (B, Q, D) for (B, Q, D); a source that is missing from a row adds nothing to it."""
        found = self.attention(self.query_norm(tokens), self.source_norm(source.tokens), source.mask, bias)
        tokens = tokens + self.dropout(found) * source.mask.any(1)[:, None, None]
        return tokens + self.dropout(self.feed(self.feed_norm(tokens)))


class MultFusion(Fusion):
    """For each stream: a cross-modal transformer from every other one, side by side, and self-attention over them.

    Blocks of a cross-modal transformer all look at the source as it stood before the first one. The streams' results
    stand side by side in one layer, zero where one is missing, and pass a residual perceptron. With one stream its
    self-attention alone is left.

    With a token rate, logits depend on the distance in time and each time step gives a token. Without, tokens carry a
    code of their index, as in the paper; `pooled` joins the streams' pooled tokens, and every token passes the last
    layers alone.
    """

    Config = MultConfig
    config: MultConfig

    def __init__(self, config: MultConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        width, count = config.width, len(widths)
        self.width = width
        self.inputs = nn.ModuleList(
            nn.Conv1d(size, width, config.kernel, padding=config.kernel // 2, bias=False) for size in widths.values()
        )
        self.pairs = tuple(permutations(range(count), 2))
        self.looks = nn.ModuleList(
            nn.ModuleList(CrossModalBlock(width, config.num_heads, config.dropout) for _ in range(config.num_layers))
            for _ in self.pairs
        )
        inner = max(1, count - 1) * width
        self.memories = nn.ModuleList(
            nn.ModuleList(
                TransformerBlock(inner, config.num_heads, config.dropout) for _ in range(config.num_memory_layers)
            )
            for _ in widths
        )
        self.norms = nn.ModuleList(nn.LayerNorm(inner) for _ in widths)
        in_time = context.token_rate_hz is not None
        self.bias = RelativeBias(config.num_heads, config.max_distance) if in_time else None
        self.dropout = nn.Dropout(config.dropout)
        self.project = nn.ModuleList(nn.Linear(inner, width) for _ in widths)
        self.output = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Dropout(config.dropout), nn.Linear(width, width)
        )

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [self._enter(i, encoded[name]) for i, name in enumerate(self.stream_names)]
        bias = None
        if self.bias is not None:
            times = torch.arange(streams[0].mask.shape[1], device=streams[0].mask.device)
            bias = self.bias(times, times)
        read = [self._remember(i, part, bias) for i, part in enumerate(self._look(streams, bias))]
        if self.context.token_rate_hz is not None:
            mask = any_mask(read)
            tokens = self._leave(torch.stack([part.tokens for part in read]).sum(0)) * mask.unsqueeze(-1)
            return Fused(tokens=tokens, mask=mask, pooled=self._pool(Encoded(tokens, mask)))
        there = torch.stack([part.mask.any(1) for part in read]).any(0).unsqueeze(-1)
        pooled = self._leave(torch.stack([self._pool(part) for part in read]).sum(0)) * there
        joined = join_tokens(read)
        tokens = self._leave(joined.tokens) * joined.mask.unsqueeze(-1)
        return Fused(tokens=tokens, mask=joined.mask, pooled=pooled)

    def _enter(self, index: int, stream: Encoded) -> Encoded:
        """Brings a stream to the common width."""
        mask = stream.mask.unsqueeze(-1)
        tokens = self.inputs[index]((stream.tokens * mask).transpose(1, 2)).transpose(1, 2)
        if self.context.token_rate_hz is None:
            tokens = tokens + index_code(tokens.shape[1], self.width, device=tokens.device, dtype=tokens.dtype)
        return Encoded(self.dropout(tokens) * mask, stream.mask)

    def _look(self, streams: Sequence[Encoded], bias: torch.Tensor | None) -> list[Encoded]:
        """Gives each stream as it reads the others, side by side: (B, K, (S - 1) D)."""
        found: list[list[torch.Tensor]] = [[] for _ in streams]
        for blocks, (to, source) in zip(self.looks, self.pairs, strict=True):
            tokens = streams[to].tokens
            for block in cast(nn.ModuleList, blocks):
                tokens = block(tokens, streams[source], bias)
            found[to].append(tokens)
        return [
            Encoded(torch.cat(parts or [stream.tokens], dim=-1) * stream.mask.unsqueeze(-1), stream.mask)
            for parts, stream in zip(found, streams, strict=True)
        ]

    def _remember(self, index: int, stream: Encoded, bias: torch.Tensor | None) -> Encoded:
        """Lets a stream's tokens look at one another; gives them D wide."""
        tokens = stream.tokens
        for block in cast(nn.ModuleList, self.memories[index]):
            tokens = block(tokens, stream.mask, bias)
        return Encoded(self.project[index](self.norms[index](tokens)) * stream.mask.unsqueeze(-1), stream.mask)

    def _pool(self, stream: Encoded) -> torch.Tensor:
        return last_real(stream) if self.config.pool == "last" else masked_mean(stream.tokens, stream.mask)

    def _leave(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens + self.output(tokens)
