"""The backbone of every track: an encoder for each stream, then fusion.

Axes: B batch, K tokens, D width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import torch
from torch import nn

from mersuite import catalog
from mersuite.clip import Batch
from mersuite.errors import ConfigError, DataError, did_you_mean
from mersuite.models.base import BuildContext, Encoded, Encoder, Fused, Fusion, StreamInfo
from mersuite.models.layers import keep_in_graph
from mersuite.schema import Named

LOWEST_SIGNAL_HZ = 10.0
"""Streams below this rate are features; an encoder of recordings refuses them."""


class BackboneConfig(Protocol):
    """What build_backbone reads; mersuite.config.ModelConfig is one."""

    @property
    def encoders(self) -> Mapping[str, Named]:
        """Stream name to its encoder."""

    @property
    def fusion(self) -> Named:
        """How the streams are joined."""

    @property
    def modality_dropout(self) -> float:
        """Chance that a stream is hidden from a training sample."""


def module_key(stream: str) -> str:
    """Gives a stream's name inside the modules, whose names may hold no dot and may not be a method's.

    >>> module_key("face.listener")
    'stream_face%2Elistener'
    """
    return "stream_" + stream.replace("%", "%25").replace(".", "%2E")


def stream_name(key: str) -> str:
    """Undoes module_key.

    >>> stream_name("stream_face%2Elistener")
    'face.listener'
    """
    return key.removeprefix("stream_").replace("%2E", ".").replace("%25", "%")


class Backbone(nn.Module):
    """Encodes every stream of a batch and fuses them.

    Args:
        encoders: Stream name to encoder; other streams of a batch are not read.
        fusion: Built for the same streams.
        modality_dropout: Chance, in training, that a stream is hidden from a sample; one that is there always stays.
            Why: the result must stand when a modality is missing, and no stream may hide behind another one.
    """

    def __init__(self, encoders: Mapping[str, Encoder], fusion: Fusion, modality_dropout: float) -> None:
        super().__init__()
        if not 0.0 <= modality_dropout < 1.0:
            raise ConfigError(f"model.modality_dropout: need 0 <= rate < 1, got {modality_dropout}")
        self.encoders = nn.ModuleDict({module_key(name): encoder for name, encoder in encoders.items()})
        self.fusion = fusion
        self.modality_dropout = modality_dropout
        self.width = fusion.width
        self.encoders_stand_still = False

    @property
    def stream_names(self) -> tuple[str, ...]:
        """Streams that are read, in the order of the configuration."""
        return tuple(stream_name(key) for key in self.encoders)

    def encoder(self, stream: str) -> Encoder:
        """Gives the encoder of a stream."""
        return cast(Encoder, self.encoders[module_key(stream)])

    def freeze_encoders(self) -> None:
        """Keeps the encoders as they are: no gradient, no dropout, and no statistic of theirs moves in training."""
        self.encoders_stand_still = True
        self.encoders.requires_grad_(False)
        self.encoders.eval()

    def hold_teachers(self) -> None:
        """Keeps the weights of encoders that no gradient reaches as they are (Fusion.teachers).

        Why: weight decay alone would draw them to zero, in a few hundred steps of Adam; and processes that train
        together would wait for their gradients.
        """
        for stream in self.fusion.teachers:
            self.encoder(stream).requires_grad_(False)

    def train(self, mode: bool = True) -> Backbone:
        """Sets the mode; frozen encoders stay in evaluation."""
        super().train(mode)
        if self.encoders_stand_still:
            self.encoders.eval()
        return self

    def forward(self, batch: Batch) -> Fused:
        """Encodes, hides streams in training, fuses.

        Raises:
            DataError: If the batch has none of the streams, or streams disagree on the number of tokens.
        """
        encoded = self.encode(batch)
        if self.training and self.modality_dropout > 0:
            encoded = hide_streams(encoded, self.modality_dropout)
        return self.fusion(encoded)

    def encode(self, batch: Batch) -> dict[str, Encoded]:
        """Gives every stream's tokens; a stream that the batch lacks has none that are real."""
        encoded = {
            name: self.encoder(name)(batch.streams[name], batch.masks[name])
            for name in self.stream_names
            if name in batch.streams
        }
        if not encoded:
            raise DataError(
                f"a batch holds the streams {sorted(batch.streams)}, none of which is configured: "
                f"model.encoders has {list(self.stream_names)}"
            )
        if self.fusion.context.token_rate_hz is not None:
            encoded = _align(encoded, {name: self.encoder(name).info for name in encoded})
        like = next(iter(encoded.values()))
        num_tokens = 1 if self.fusion.context.token_rate_hz is None else like.mask.shape[1]
        for name in self.stream_names:
            if name not in encoded:
                encoder = self.encoder(name)
                zeros = like.tokens.new_zeros((len(like.mask), num_tokens, encoder.width))
                tokens = keep_in_graph(zeros, encoder.parameters())
                encoded[name] = Encoded(tokens, like.mask.new_zeros((len(like.mask), num_tokens)))
        return {name: encoded[name] for name in self.stream_names}


def hide_streams(encoded: Mapping[str, Encoded], rate: float) -> dict[str, Encoded]:
    """Hides each stream from each row with the given chance, but never all that a row has.

    Randomness comes from PyTorch's global generator of the tensors' device, as in nn.Dropout.
    """
    there = torch.stack([stream.mask.any(1) for stream in encoded.values()], dim=1)  # (B, streams)
    keep = (torch.rand(there.shape, device=there.device) >= rate) & there
    # One of the streams that are there, drawn evenly, for rows that would keep none.
    draw = torch.rand(there.shape, device=there.device) + there
    last = nn.functional.one_hot(draw.argmax(1), there.shape[1]).bool() & there
    keep = torch.where(keep.any(1, keepdim=True), keep, last)
    result = {}
    for i, (name, stream) in enumerate(encoded.items()):
        kept = keep[:, i].unsqueeze(1)
        result[name] = Encoded(stream.tokens * kept.unsqueeze(-1), stream.mask & kept)
    return result


def build_backbone(config: BackboneConfig, context: BuildContext, *, load_weights: bool = True) -> Backbone:
    """Builds the configured encoders and fusion for the streams that the data has.

    Args:
        config: The `model` section of a run's configuration.
        context: What the data tells.
        load_weights: Read files of ready-made weights that encoders name. False where a checkpoint is loaded next.

    Raises:
        ConfigError: If a configured stream is not there, an encoder does not fit its stream, or there is no encoder.
    """
    if not config.encoders:
        raise ConfigError(
            f"model.encoders: no encoder configured; the data has the streams {sorted(context.streams)}: "
            "add model.encoders.<stream>=<encoder>"
        )
    encoders: dict[str, Encoder] = {}
    for stream, part in config.encoders.items():
        if stream not in context.streams:
            raise ConfigError(
                f"model.encoders.{stream}: the data has no stream {stream!r}, only {sorted(context.streams)}; "
                f"{did_you_mean(stream, context.streams)}"
            )
        encoders[stream] = _build_encoder(stream, part, context, load_weights)
    widths = {stream: encoder.width for stream, encoder in encoders.items()}
    fusion_class = catalog.find("fusion", config.fusion.name)
    try:
        fusion = fusion_class(config.fusion.config, widths, context)
    except ConfigError as error:
        raise ConfigError(f"model.fusion: {error}") from error
    return Backbone(encoders, fusion, config.modality_dropout)


def _build_encoder(stream: str, part: Named, context: BuildContext, load_weights: bool) -> Encoder:
    info = context.streams[stream]
    encoder_class = cast(type[Encoder], catalog.find("encoder", part.name))
    if encoder_class.accepts == "signal" and info.rate_hz < LOWEST_SIGNAL_HZ:
        known = {name: cast(type[Encoder], catalog.find("encoder", name)) for name in catalog.names("encoder")}
        features = [name for name, item in known.items() if item.accepts == "feature"]
        raise ConfigError(
            f"model.encoders.{stream}: {part.name} reads recordings of {LOWEST_SIGNAL_HZ:g} Hz and more, "
            f"this stream has {info.rate_hz:g} rows per second; choose one of: {', '.join(features)}"
        )
    try:
        encoder = encoder_class(part.config, info, context)
        if load_weights:
            encoder.load_pretrained()
    except ConfigError as error:
        raise ConfigError(f"model.encoders.{stream}: {error}") from error
    return encoder


def _align(encoded: Mapping[str, Encoded], infos: Mapping[str, StreamInfo]) -> dict[str, Encoded]:
    """Repeats a clip's single vectors over the tokens of the streams that run in time."""
    lengths = {name: stream.mask.shape[1] for name, stream in encoded.items() if infos[name].rate_hz > 0}
    if len(set(lengths.values())) > 1:
        raise DataError(
            "streams of one window give different numbers of tokens: "
            + ", ".join(f"{name} {length}" for name, length in lengths.items())
            + "; they must cover the same seconds"
        )
    if not lengths:
        return dict(encoded)
    num_tokens = next(iter(lengths.values()))
    runs = torch.stack([encoded[name].mask for name in lengths]).any(0)
    runs = runs | ~runs.any(1, keepdim=True)  # a row with no stream in time keeps its vector at every token
    result = dict(encoded)
    for name, stream in encoded.items():
        if name not in lengths:
            mask = stream.mask.expand(-1, num_tokens) & runs
            result[name] = Encoded(stream.tokens.expand(-1, num_tokens, -1) * mask.unsqueeze(-1), mask)
    return result
