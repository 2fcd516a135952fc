"""One transformer over the tokens of all streams, each with embeddings of its modality and of whose it is.

Axes: B batch, K tokens, D width, S streams.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from mersuite.errors import ConfigError, did_you_mean
from mersuite.models.attention import RelativeBias, TransformerBlock, index_code
from mersuite.models.base import BuildContext, Encoded, Fused, Fusion, masked_mean
from mersuite.models.layers import any_mask, join_tokens, mean_over_streams, pool_stream

ROLES = ("speaker", "listener", "partner")
"""Words in a stream's name that say whose it is."""


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
        role_embedding: Give streams of one modality, but of different people, one modality embedding and each a role
            embedding. False gives every stream an embedding of its own. Why true: what is learned of the speaker's face
            then holds for the listener's. Without a role in any stream's name there is no difference.
        roles: Stream to (modality, role), where its name does not say so; "" is no role.
    """

    width: int = 32
    num_heads: int = 4
    num_layers: int = 2
    dropout: float = 0.1
    scope: Literal["all", "step"] = "all"
    max_distance: int = 16
    role_embedding: bool = True
    roles: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def split_role(stream: str) -> tuple[str, str]:
    """Gives a stream's modality and the role in its name; "" where there is none.

    A role is a whole word of the name, behind its first one.

    >>> split_role("face.listener"), split_role("ngrams_speaker_zh"), split_role("eeg")
    (('face', 'listener'), ('ngrams_zh', 'speaker'), ('eeg', ''))
    """
    found = re.search(rf"[._]({'|'.join(ROLES)})(?=[._]|$)", stream)
    return (stream[: found.start()] + stream[found.end() :], found[1]) if found else (stream, "")


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
        unknown = [name for name in config.roles if name not in widths]
        if unknown:
            raise ConfigError(
                f"roles: there is no encoder for the stream {unknown[0]!r}; {did_you_mean(unknown[0], widths)}"
            )
        self.width = config.width
        self.inputs = nn.ModuleList(nn.Linear(width, config.width) for width in widths.values())
        places = [self._place(name) for name in self.stream_names]
        modalities, roles = (list(dict.fromkeys(item)) for item in zip(*places, strict=True))
        roles = [role for role in roles if role]
        self.places = [(modalities.index(item), roles.index(role) if role else None) for item, role in places]
        self.modality = nn.Parameter(torch.randn(len(modalities), config.width) * 0.02)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.width, config.num_heads, config.dropout) for _ in range(config.num_layers)
        )
        in_time = context.token_rate_hz is not None and config.scope == "all"
        self.bias = RelativeBias(config.num_heads, config.max_distance) if in_time else None
        self.output = nn.LayerNorm(config.width)
        # Last, so that models without roles begin with the values that they always had.
        self.role = nn.Parameter(torch.randn(len(roles), config.width) * 0.02) if roles else None

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

    def _place(self, stream: str) -> tuple[str, str]:
        """Gives a stream's modality and role."""
        if not self.config.role_embedding:
            return stream, ""
        return self.config.roles.get(stream) or split_role(stream)

    def _embed(self, index: int, stream: Encoded) -> Encoded:
        modality, role = self.places[index]
        tokens = self.inputs[index](stream.tokens) + self.modality[modality]
        if self.role is not None and role is not None:
            tokens = tokens + self.role[role]
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
