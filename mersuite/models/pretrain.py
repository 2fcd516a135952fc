"""Self-supervised pretraining of encoders: hide stretches and channels of a stream, and rebuild them from its tokens.

Source: He et al. 2022, "Masked autoencoders are scalable vision learners", for rebuilding what is hidden; here the
encoder sees the whole stream, with its hidden entries set to their mean.
Axes: B batch, T rows, C channels, K tokens, R rows of a token, D width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from mersuite.clip import Batch
from mersuite.errors import ConfigError, DataError
from mersuite.models.backbone import Backbone, module_key, stream_name
from mersuite.models.base import Encoded, Encoder
from mersuite.models.layers import RunningNorm, keep_in_graph
from mersuite.models.weights import load_strictly, read_weights
from mersuite.models.window_encoder import WindowEncoder

_PREFIX = "encoders."


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainConfig:
    """Knobs of masked reconstruction.

    Attributes:
        time_rate: Share of the time of a stream that is hidden.
        signal_span_s: Length of a hidden stretch of a recording. Why 0.1: shorter than a token, so that what is around
            it can tell it.
        feature_span_s: Length of a hidden stretch of features.
        channel_rate: Share of channels hidden over the whole window, to be told from the others.
        hidden: Width of the decoder, which is thrown away afterwards.
        num_sources: Waveforms that the decoder mixes into the channels of a recording.
        reach: Tokens that the decoder sees at once, an odd number.
    """

    time_rate: float = 0.4
    signal_span_s: float = 0.1
    feature_span_s: float = 2.0
    channel_rate: float = 0.25
    hidden: int = 64
    num_sources: int = 8
    reach: int = 5

    def __post_init__(self) -> None:
        rates = (self.time_rate, self.channel_rate)
        if not all(0.0 <= rate < 1.0 for rate in rates) or sum(rates) == 0.0:
            raise ConfigError(f"need 0 <= time_rate, channel_rate < 1 and not both 0, got {rates}")
        if self.signal_span_s <= 0 or self.feature_span_s <= 0 or self.reach < 1 or self.reach % 2 == 0:
            raise ConfigError(
                "need spans above 0 s and an odd reach, got "
                f"signal_span_s={self.signal_span_s}, feature_span_s={self.feature_span_s}, reach={self.reach}"
            )


class RowDecoder(nn.Module):
    """Tokens back to rows: (B, K, D) -> (B, T, C)."""

    def __init__(self, encoder: Encoder, config: PretrainConfig) -> None:
        super().__init__()
        info, token_rate_hz = encoder.info, encoder.context.token_rate_hz
        self.num_channels = info.num_channels
        if isinstance(encoder, WindowEncoder):
            token_rate_hz = encoder.windows.token_rate_hz
        # Rows a token; below 1 where rows are fewer than tokens.
        self.rows_per_token = info.rate_hz / token_rate_hz if token_rate_hz and info.rate_hz else 1.0
        self.num_rows = math.ceil(self.rows_per_token)
        self.mix = nn.Conv1d(encoder.width, config.hidden, config.reach, padding=config.reach // 2)
        num_values = config.num_sources if self.num_rows > 1 else self.num_channels
        self.rows = nn.Linear(config.hidden, self.num_rows * num_values)
        self.channels = nn.Linear(num_values, self.num_channels) if self.num_rows > 1 else nn.Identity()

    def forward(self, encoded: Encoded, num_rows: int) -> torch.Tensor:
        """Gives (B, num_rows, C)."""
        hidden = nn.functional.gelu(self.mix(encoded.tokens.transpose(1, 2))).transpose(1, 2)
        blocks = self.rows(hidden).unflatten(-1, (self.num_rows, -1))  # (B, K, R, sources)
        row = torch.arange(num_rows, device=hidden.device)
        token = ((row + 0.5) / self.rows_per_token).floor().long().clamp(max=encoded.mask.shape[1] - 1)
        place = (row - (token * self.rows_per_token).floor().long()).clamp(0, self.num_rows - 1)
        return self.channels(blocks[:, token, place])


class MaskedReconstruction(nn.Module):
    """The pretraining loss of a backbone's encoders; the fusion takes no part.

    Args:
        backbone: Its encoders are trained.
        config: Knobs.
    """

    def __init__(self, backbone: Backbone, config: PretrainConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone
        encoders = {name: backbone.encoder(name) for name in backbone.stream_names}
        self.norms = nn.ModuleDict(
            {module_key(name): RunningNorm(encoder.info.num_channels) for name, encoder in encoders.items()}
        )
        self.decoders = nn.ModuleDict({module_key(name): RowDecoder(item, config) for name, item in encoders.items()})

    def forward(self, batch: Batch) -> torch.Tensor:
        """Gives the mean of the streams' losses, a scalar."""
        return torch.stack(list(self.stream_losses(batch).values())).mean()

    def stream_losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Gives each stream's mean squared error over hidden real entries, in units of each channel's variance.

        1 is what knowing nothing gives. Randomness comes from PyTorch's global generator.

        Raises:
            DataError: If the batch has none of the streams.
        """
        names = [name for name in self.backbone.stream_names if name in batch.streams]
        if not names:
            raise DataError(
                f"a batch holds the streams {sorted(batch.streams)}, none of which is configured: "
                f"model.encoders has {list(self.backbone.stream_names)}"
            )
        losses = {name: self._loss(name, batch.streams[name], batch.masks[name]) for name in names}
        first = names[0]
        for name in self.backbone.stream_names:
            if name not in losses:
                unused = [*self.backbone.encoder(name).parameters(), *self.decoders[module_key(name)].parameters()]
                losses[first] = keep_in_graph(losses[first], unused)
        return losses

    def _loss(self, name: str, stream: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        encoder, key = self.backbone.encoder(name), module_key(name)
        norm = cast(RunningNorm, self.norms[key])
        target = norm(stream, mask)
        hidden = self._hide(encoder, stream.shape, stream.device) & mask.unsqueeze(-1)
        encoded = encoder(torch.where(hidden, norm.mean, stream), mask)
        rebuilt = self.decoders[key](encoded, stream.shape[1])
        error = (rebuilt - target).square() * hidden
        return error.sum() / hidden.sum().clamp(min=1)

    def _hide(self, encoder: Encoder, shape: torch.Size, device: torch.device) -> torch.Tensor:
        """Draws what is hidden, (B, T, C) bool: stretches of all channels, and channels over all time."""
        num_batch, num_rows, num_channels = shape
        channels = torch.rand(num_batch, 1, num_channels, device=device) < self.config.channel_rate
        if num_rows == 1:
            return channels
        span_s = self.config.signal_span_s if encoder.accepts == "signal" else self.config.feature_span_s
        span = max(1, round(span_s * encoder.info.rate_hz))
        # Stretches of one length from a random start, each hidden or not as a whole.
        start = torch.randint(span, (num_batch, 1), device=device)
        stretch = (torch.arange(num_rows, device=device) + start) // span
        hidden = torch.rand(num_batch, num_rows // span + 2, device=device) < self.config.time_rate
        return channels | hidden.gather(1, stretch).unsqueeze(-1)


def save_encoders(path: Path, backbone: Backbone) -> None:
    """Writes the weights and statistics of all encoders of a backbone to a .safetensors file."""
    from safetensors.torch import save_file

    state = {f"{_PREFIX}{key}": value for key, value in backbone.encoders.state_dict().items()}
    save_file({key: value.detach().cpu().contiguous().clone() for key, value in state.items()}, path)


def load_encoders(path: Path, backbone: Backbone) -> tuple[str, ...]:
    """Loads the encoders that a file and a backbone have in common, each of them whole.

    Args:
        path: Written by save_encoders, or a checkpoint that holds a backbone at any depth.
        backbone: Its encoders are changed in place.

    Returns:
        The streams whose encoders were loaded.

    Raises:
        ConfigError: If the file is unreadable, has no encoder of this backbone, or one that does not fit.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in read_weights(path).items():
        _, found, rest = key.partition(_PREFIX + module_key(""))
        if found:
            name, _, tensor_name = rest.partition(".")
            parts.setdefault(stream_name(module_key("") + name), {})[tensor_name] = value
    common = tuple(name for name in backbone.stream_names if name in parts)
    if not common:
        raise ConfigError(
            f"model.pretrained: {path} has encoders for {sorted(parts) or 'no stream'}, "
            f"this model for {sorted(backbone.stream_names)}"
        )
    for name in common:
        load_strictly(backbone.encoder(name), parts[name], source=f"stream {name!r} in {path}")
    return common
