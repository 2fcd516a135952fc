"""Self-supervised pretraining of encoders: hide stretches and channels of a stream, and rebuild them from its tokens.

Source: He et al. 2022, "Masked autoencoders are scalable vision learners", for rebuilding what is hidden; here the
encoder sees the whole stream, with its hidden entries set to their mean.
Axes: B batch, T rows, C channels, K tokens, R rows of a token, D width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn

from mersuite.clip import Batch
from mersuite.config import PretrainConfig
from mersuite.errors import ConfigError, DataError
from mersuite.models.backbone import Backbone, module_key, stream_name
from mersuite.models.base import Encoded, Encoder, StreamInfo
from mersuite.models.layers import RunningNorm, keep_in_graph
from mersuite.models.weights import load_strictly, read_weights
from mersuite.models.window_encoder import WindowEncoder
from mersuite.schema import build, plain

_PREFIX = "encoders."
_SEEN = "seen_recordings"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRecordings:
    """What a file of pretrained encoders says of its making.

    Attributes:
        group: Name of the groups in `members`, such as subject.
        members: Whose recordings were used, to train or to choose the best epoch.
        streams: Stream name to what its encoder was built for.
    """

    group: str
    members: tuple[str, ...]
    streams: Mapping[str, StreamInfo]


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

        1 is what knowing nothing gives. A stream that no row of the batch has is left out. Randomness comes from
        PyTorch's global generator.

        Raises:
            DataError: If the batch has none of the streams.
        """
        names = [name for name in self.backbone.stream_names if name in batch.streams]
        if not names:
            raise DataError(
                f"a batch holds the streams {sorted(batch.streams)}, none of which is configured: "
                f"model.encoders has {list(self.backbone.stream_names)}"
            )
        names = [name for name in names if batch.masks[name].any()] or names[:1]
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


def save_encoders(path: Path, backbone: Backbone, seen: SeenRecordings | None = None) -> None:
    """Writes the weights and statistics of all encoders of a backbone to a .safetensors file, whole or not at all.

    Args:
        path: The file.
        backbone: Whose encoders.
        seen: What they were trained on; kept in the file, so that it can be said wherever the weights go.
    """
    from safetensors.torch import save_file

    state = {f"{_PREFIX}{key}": value for key, value in backbone.encoders.state_dict().items()}
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    partial = path.with_name(f".{path.name}.partial")
    save_file(tensors, partial, metadata=None if seen is None else {_SEEN: json.dumps(plain(seen))})
    partial.replace(path)


def seen_recordings(path: Path) -> SeenRecordings | None:
    """Gives what a file of encoders says of its making; None where it says nothing.

    Raises:
        ConfigError: If there is no such file, or it is damaged.
    """
    if path.suffix != ".safetensors" or not path.is_file():
        read_weights(path)
        return None
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        return build(SeenRecordings, json.loads(metadata[_SEEN])) if _SEEN in metadata else None
    except (SafetensorError, ValueError) as error:
        raise ConfigError(f"weights: {path} is no readable safetensors file: {error}") from error


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
    seen = seen_recordings(path)
    for name in common:
        load_strictly(backbone.encoder(name), parts[name], source=f"stream {name!r} in {path}")
        if seen is not None and name in seen.streams:
            _check_same_channels(path, name, seen.streams[name], backbone.encoder(name).info)
    return common


def _check_same_channels(path: Path, name: str, made_for: StreamInfo, found: StreamInfo) -> None:
    """Refuses weights of the right shape for the wrong data."""
    if made_for.rate_hz != found.rate_hz:
        raise ConfigError(
            f"model.pretrained: stream {name!r} in {path} was pretrained at {made_for.rate_hz:g} Hz, the data have "
            f"{found.rate_hz:g} Hz; bring both to one rate (features.*.rate_hz) or pretrain again"
        )
    pairs = zip(made_for.ch_names, found.ch_names, strict=False)
    differ = next(((before, now) for before, now in pairs if before.casefold() != now.casefold()), None)
    if differ is not None:
        raise ConfigError(
            f"model.pretrained: stream {name!r} in {path} was pretrained with channel {differ[0]!r} where the data "
            f"have {differ[1]!r}; name and order the channels alike, or pretrain again"
        )
