"""Attention, as encoders and fusions use it.

Source: Vaswani et al. 2017, "Attention is all you need", with the norm before each block.
Axes: B batch, Q queries, K keys, H heads, D width.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from mersuite.errors import ConfigError

_FORBIDDEN = -1e4
"""Added to the logit of a key that may not be seen: exp gives 0.0 exactly, and a row without any key stays finite."""


class Attention(nn.Module):
    """Attention with several heads and a mask of keys.

    Args:
        width: D; a multiple of num_heads.
        num_heads: H.
        dropout: Share of attention weights dropped in training.
        key_bias: Give the keys a bias. It changes no result (it shifts all logits of a query alike); published networks
            that have one are rebuilt with it.
    """

    def __init__(self, width: int, num_heads: int, dropout: float, *, key_bias: bool = False) -> None:
        super().__init__()
        if width < 1 or num_heads < 1 or width % num_heads:
            raise ConfigError(
                f"attention needs a width that num_heads divides, got width={width}, num_heads={num_heads}"
            )
        self.num_heads = num_heads
        self.queries = nn.Linear(width, width)
        self.keys = nn.Linear(width, width, bias=key_bias)
        self.values = nn.Linear(width, width)
        self.project = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        tokens: torch.Tensor,
        context: torch.Tensor,
        mask: torch.Tensor | None = None,
        bias: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Lets tokens look at a context.

        Args:
            tokens: (B, Q, D).
            context: (B, K, D).
            mask: (B, K) bool, True = may be seen; None lets all be seen.
            bias: (H, Q, K), added to the logits.

        Returns:
            (B, Q, D).
        """
        extra = None if bias is None else bias.unsqueeze(0)
        if mask is not None:
            closed = (~mask).to(tokens.dtype)[:, None, None, :] * _FORBIDDEN
            extra = closed if extra is None else extra + closed
        found = functional.scaled_dot_product_attention(
            self._split(self.queries(tokens)),
            self._split(self.keys(context)),
            self._split(self.values(context)),
            attn_mask=extra,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        return self.project(found.transpose(1, 2).flatten(2))

    def _split(self, values: torch.Tensor) -> torch.Tensor:
        return values.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)


class TransformerBlock(nn.Module):
    """Attention of tokens among themselves and a two-layer perceptron, each added to what comes in."""

    def __init__(
        self, width: int, num_heads: int, dropout: float, *, expansion: int = 4, key_bias: bool = False
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, dropout, key_bias=key_bias)
        self.feed_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, expansion * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(expansion * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: torch.Tensor, mask: torch.Tensor | None = None, bias: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Gives (B, Q, D) for (B, Q, D); arguments as in Attention."""
        normed = self.attention_norm(tokens)
        tokens = tokens + self.dropout(self.attention(normed, normed, mask, bias))
        return tokens + self.dropout(self.feed(self.feed_norm(tokens)))


class RelativeBias(nn.Module):
    """A learned logit for each distance in time between query and key.

    Why: what a token sees then depends on how long ago something was and not on where in the window it is, so that no
    absolute time can be learned. Starts at zero.
    Source: Raffel et al. 2020, "Exploring the limits of transfer learning", section 2.1, without its buckets.

    Args:
        num_heads: H.
        max_distance: Distances beyond count as this one, in tokens.
    """

    def __init__(self, num_heads: int, max_distance: int) -> None:
        super().__init__()
        self.max_distance = max_distance
        self.logits = nn.Parameter(torch.zeros(num_heads, 2 * max_distance + 1))

    def forward(self, query_times: torch.Tensor, key_times: torch.Tensor) -> torch.Tensor:
        """Gives (H, Q, K) for integer times (Q,) and (K,)."""
        distance = (key_times.unsqueeze(0) - query_times.unsqueeze(1)).clamp(-self.max_distance, self.max_distance)
        return self.logits[:, distance + self.max_distance]


def index_code(num_tokens: int, width: int, *, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Sines and cosines of a token's index, (num_tokens, width), for tokens that have no common clock.

    Source: Vaswani et al. 2017, section 3.5.
    """
    index = torch.arange(num_tokens, device=device, dtype=torch.float32).unsqueeze(1)
    rates = 10000.0 ** (-torch.arange(0, width, 2, device=device, dtype=torch.float32) / width)
    angles = index * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)[:, :width].to(dtype)
