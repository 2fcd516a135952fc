"""The contracts of encoders and fusions, and what they are told about the data.

Axes: B batch, T time rows of a stream, C channels, K tokens, D width.
The files under models/ travel in the ps code submission: they use torch, numpy and the standard library only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import torch
from torch import nn


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """What the data tells about one stream.

    Attributes:
        num_channels: Channels, features or vector width.
        rate_hz: Rows per second; 0.0 for one vector a clip.
        ch_names: One a channel; () where channels have no names.
        dtype: "float32", or "int64" for token ids.
    """

    num_channels: int
    rate_hz: float
    ch_names: tuple[str, ...] = ()
    dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildContext:
    """Everything about the data that a model may be shaped by. It is saved in checkpoints, never written in config.

    Attributes:
        streams: Stream name to its facts.
        window_s: Length of a window in seconds; None where whole clips are batched.
        token_rate_hz: Tokens per second that every encoder must give; None where a track needs one answer a clip.
        classes: Class names of the track's target; () for regression.
    """

    streams: Mapping[str, StreamInfo]
    window_s: float | None = None
    token_rate_hz: float | None = None
    classes: tuple[str, ...] = ()

    @property
    def num_tokens(self) -> int | None:
        """Tokens of a window, or None where whole clips are batched."""
        if self.window_s is None or self.token_rate_hz is None:
            return None
        return round(self.window_s * self.token_rate_hz)


class Encoded(NamedTuple):
    """One stream after its encoder.

    Attributes:
        tokens: (B, K, D) float. Tokens that the mask rules out are zero.
        mask: (B, K) bool, True = real. A row of False means that the stream is missing from that sample.
    """

    tokens: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """All streams after fusion.

    Attributes:
        tokens: (B, K, D) float; zero where the mask is False.
        mask: (B, K) bool.
        pooled: (B, D) float, one vector a row of the batch.
        losses: Extra terms a fusion needs, by name, already weighted; the trainer adds them.
    """

    tokens: torch.Tensor
    mask: torch.Tensor
    pooled: torch.Tensor
    losses: Mapping[str, torch.Tensor] = field(default_factory=dict)


class Encoder(nn.Module, ABC):
    """Turns one stream into tokens.

    A file of models/encoders/ that defines one subclass is an encoder, found by its file name.

    Attributes:
        Config: Frozen, keyword-only dataclass of the knobs.
        accepts: "signal" for recordings (tens of Hz and more), "feature" for rows of features at the token rate
            or one vector a clip.
        width: D of the tokens it gives; set by the constructor.
    """

    Config: ClassVar[type]
    accepts: ClassVar[str]
    width: int

    def __init__(self, config: Any, info: StreamInfo, context: BuildContext) -> None:
        super().__init__()
        self.config = config
        self.info = info
        self.context = context

    def load_pretrained(self) -> None:
        """Reads the ready-made weights that the configuration names, if it names any.

        Why apart from the constructor: a model that is rebuilt for a checkpoint has no need of the file.
        """

    @abstractmethod
    def forward(self, stream: torch.Tensor, mask: torch.Tensor) -> Encoded:
        """Encodes a stream.

        Args:
            stream: (B, T, C) float32.
            mask: (B, T) bool, True = real.

        Returns:
            (B, K, D) tokens. Where context.token_rate_hz is set, K is T / info.rate_hz * token_rate_hz.
            Padding never changes the tokens of real rows.
        """


class Fusion(nn.Module, ABC):
    """Joins the encoded streams.

    A file of models/fusion/ that defines one subclass is a fusion, found by its file name.

    Attributes:
        Config: Frozen, keyword-only dataclass of the knobs.
        width: D of what it gives; set by the constructor.
        teachers: Streams that are only compared with, in a loss: no answer depends on them, and no gradient reaches
            their encoders.
    """

    Config: ClassVar[type]
    width: int
    teachers: tuple[str, ...] = ()

    def __init__(self, config: Any, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__()
        self.config = config
        self.stream_names = tuple(widths)
        self.context = context

    @abstractmethod
    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams; one whose mask is all False for a row does not change that row's result.

        Where context.token_rate_hz is set all streams have the same K, and so has the result.
        """


def masked_mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over real tokens: (B, K, D), (B, K) -> (B, D); zeros where a row has no real token."""
    weights = mask.to(tokens.dtype).unsqueeze(-1)
    return (tokens * weights).sum(1) / weights.sum(1).clamp(min=1.0)
