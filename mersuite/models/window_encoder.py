"""What the encoders of raw recordings share: scale, cut a window a token, run a network on each, put tokens back.

Axes: B batch, T samples, C channels, K tokens, N real tokens of a batch, S samples of a window, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Encoder, StreamInfo
from mersuite.models.layers import RunningNorm, TokenWindows, keep_in_graph, scatter_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowConfig:
    """Knobs of every encoder of recordings.

    Attributes:
        width: D of the tokens. Why 32: enough for two outputs a second, and small beside 24 people.
        context_s: Seconds a token's window reaches beyond the token on either side. Why 0.5: temporal kernels of half
            a second would otherwise see zeros in half of a one-second window.
        token_s: Seconds of a token where the track sets no token rate.
        input_norm: Divide by one deviation learned from training data. Why: recordings in volts are 1e-5, where the
            small constants of normalisation layers drown them; ratios between channels stay.
    """

    width: int = 32
    context_s: float = 0.5
    token_s: float = 1.0
    input_norm: bool = True


class WindowEncoder(Encoder):
    """An encoder that runs one network on the window of each token.

    Why a window a token, and not one pass over the whole stretch: a token then holds no trace of padding, of the length
    of the recording or of its place in it.
    """

    accepts = "signal"
    config: WindowConfig

    def __init__(self, config: WindowConfig, info: StreamInfo, context: BuildContext) -> None:
        super().__init__(config, info, context)
        if info.rate_hz <= 0:
            raise ConfigError(f"this encoder reads recordings, the stream has {info.rate_hz} rows per second; use mlp")
        if config.width < 1 or config.context_s < 0 or config.token_s <= 0:
            raise ConfigError(
                "need width >= 1, context_s >= 0 and token_s > 0, "
                f"got width={config.width}, context_s={config.context_s}, token_s={config.token_s}"
            )
        self.width = config.width
        self.norm = RunningNorm(info.num_channels, shared_scale=True, limit=20.0) if config.input_norm else None
        self.windows = TokenWindows(info.rate_hz, context.token_rate_hz or 1.0 / config.token_s, config.context_s)

    @abstractmethod
    def encode_windows(self, windows: torch.Tensor) -> torch.Tensor:
        """Gives (N, D) tokens for (N, C, S) windows, N at least 1."""

    def forward(self, stream: torch.Tensor, mask: torch.Tensor) -> Encoded:
        """Encodes (B, T, C) samples with their (B, T) mask into (B, K, D) tokens."""
        if self.norm is not None:
            stream = self.norm(stream, mask)
        else:
            stream = torch.where(mask.unsqueeze(-1), stream, torch.zeros((), dtype=stream.dtype, device=stream.device))
        windows, token_mask = self.windows(stream, mask)
        if windows.shape[0] == 0:
            empty = stream.new_zeros((*token_mask.shape, self.width))
            return Encoded(keep_in_graph(empty, self.parameters()), token_mask)
        return scatter_tokens(self.encode_windows(windows.transpose(1, 2)), token_mask)
