"""Image encoders over faces or film frames: CLIP, ViTMAE, DINOv2, and any model of transformers that reads pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import Any, Literal

import numpy as np
import torch

from mersuite.clip import Clip, Signal
from mersuite.errors import ConfigError
from mersuite.features.base import Extractor
from mersuite.features.batched import Precision, answering, choose_device, layer_sum, to_numpy
from mersuite.features.feature_rows import STEP_HZ, Level, estimate, level_signals, rows_on_show
from mersuite.features.from_pretrained import FromPretrained
from mersuite.features.picture_input import ChannelOrder, count_rows, is_face_array, iter_pictures, pixel_values
from mersuite.features.pretrained import check_name, library
from mersuite.media.streams import stream_media
from mersuite.schema import require, require_all

TokenPooling = Literal["projection", "cls", "mean", "sum"]

_SUMMED = ("dinov2", "data2vec-vision")
_CLIP = ("clip", "clip_vision_model")


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureConfig:
    """Knobs of an image encoder.

    Attributes:
        model: Folder or hub id.
        revision: Branch, tag or commit on the hub.
        output: What streams are called by, instead of the last part of model.
        stream: face.speaker, face.listener or video.
        channel_order: How face arrays are stored. Why bgr: they were written with OpenCV, and the organisers'
            extractors turn them round.
        num_frames: So many, spread evenly over the clip; null takes all. The organisers take all for CLIP and 64 for
            DINOv2.
        frames_hz: Rate of face arrays, which no file says; of a film, at most so many frames a second.
        pooling: utt (mean over frames), fra (a row a frame), or both.
        rate_hz: Rate that the rows of fra are averaged to; null keeps a row a frame.
        tokens: How the tokens of a picture become its vector. projection: the image embedding of models such as CLIP;
            cls; mean: over patches; sum: over all tokens before the last norm. auto is the organisers' rule:
            projection where the model has one, sum for DINOv2 and data2vec; else mean.
        layers: Hidden layers that are summed first, counted from the last.
        batch_size: Pictures a step.
        precision: auto is bfloat16 on a GPU and float32 on a processor.
    """

    model: str = "openai/clip-vit-large-patch14"
    revision: str | None = None
    output: str | None = None
    stream: str = "face.speaker"
    channel_order: ChannelOrder = "bgr"
    num_frames: int | None = None
    frames_hz: float = 25.0
    pooling: tuple[Level, ...] = ("utt",)
    rate_hz: float | None = None
    tokens: Literal["auto", "projection", "cls", "mean", "sum"] = "auto"
    layers: int = 1
    batch_size: int = 32
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check_name(self.model, self.output)
        require_all(
            (bool(self.pooling), "pooling: need utt, fra or both"),
            (self.num_frames is None or self.num_frames >= 1, f"num_frames: need 1 or more, got {self.num_frames}"),
            (self.frames_hz > 0, f"frames_hz: need a rate above 0, got {self.frames_hz}"),
            (self.layers >= 1, f"layers: need 1 or more, got {self.layers}"),
            (self.batch_size >= 1, f"batch_size: need 1 or more, got {self.batch_size}"),
        )
        if self.rate_hz is not None:
            require(self.num_frames is None, "rate_hz: sampled frames have no common rate; set num_frames=null")
            require(
                0 < self.rate_hz <= self.frames_hz,
                f"rate_hz: need a rate above 0 and at most frames_hz ({self.frames_hz:g}), got {self.rate_hz}",
            )


class PictureExtractor(FromPretrained, Extractor):
    """Writes `<model>-UTT` and `<model>-FRA`, with the role of the stream.

    Rows of fra stand at frames_hz (or rate_hz), where frames of a slower film are held; sampled frames, whose distance
    differs from clip to clip, at a nominal 1 Hz.
    """

    Config = PictureConfig
    version = 1
    config: PictureConfig

    def __init__(self, config: PictureConfig) -> None:
        super().__init__(config, "image", config.pooling)

    def survey(self, clips: Sequence[Clip]) -> None:
        """Looks at the model.

        Raises:
            ConfigError: If it lacks a file, cannot be reached, or does not fit the knobs.
        """
        self._rule()
        self._pretrained.check()

    def estimate_bytes(self, clips: Sequence[Clip]) -> int | None:
        """Gives about how many bytes the streams of these clips will take; None where the width is not known."""
        width = self._width()
        if width is None:
            return None
        share = 1.0 if self.config.rate_hz is None else self.config.rate_hz / self.config.frames_hz
        return estimate(clips, width, self.config.pooling, lambda clip: ceil(self._count(clip) * share))

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields the streams of each clip.

        Raises:
            DataError: If pictures cannot be read or memory runs out.
            ConfigError: If the model cannot be loaded or has no such layers.
        """
        config = self.config
        rate_hz = config.frames_hz if config.num_frames is None else STEP_HZ
        times: list[list[float]] = [[] for _ in clips]
        rows: list[list[np.ndarray]] = [[] for _ in clips]
        pictures = self._pictures(clips)
        while chunk := [*islice(pictures, config.batch_size)]:  # no more than a batch of film is held at once
            for (index, time_s, _), row in zip(chunk, self._encode([image for *_, image in chunk]), strict=True):
                times[index].append(time_s)
                rows[index].append(row)
        for clip, own, own_times in zip(clips, rows, times, strict=True):
            has_clock = config.num_frames is None and not is_face_array(stream_media(clip, config.stream))
            shown = rows_on_show(own_times, rate_hz) if has_clock else None
            yield clip.clip_id, level_signals(np.stack(own), rate_hz, self._names, config.rate_hz, shown=shown)

    def _pictures(self, clips: Sequence[Clip]) -> Iterator[tuple[int, float, np.ndarray]]:
        """Gives clip number, seconds and picture, clip after clip."""
        config = self.config
        for index, clip in enumerate(clips):
            for time_s, image in iter_pictures(
                clip,
                config.stream,
                channel_order=config.channel_order,
                num_frames=config.num_frames,
                frames_hz=config.frames_hz,
            ):
                yield index, time_s, image

    def _count(self, clip: Clip) -> float:
        return count_rows(clip, self.config.stream, num_frames=self.config.num_frames, frames_hz=self.config.frames_hz)

    def _rule(self) -> tuple[str, TokenPooling]:
        """Gives the class to load and how tokens become a vector."""
        model_config = self._pretrained.config
        kind = model_config.model_type
        is_clip = kind in _CLIP
        model_class = _model_class(model_config)
        has_projection = is_clip or hasattr(model_class, "get_image_features")
        if not has_projection and model_class.main_input_name != "pixel_values":
            raise ConfigError(
                f"model: {self.config.model} is of the kind {kind}, which reads {model_class.main_input_name}; give an "
                "image encoder"
            )
        wanted = self.config.tokens
        if wanted == "auto":
            wanted = "projection" if has_projection else "sum" if kind in _SUMMED else "mean"
        if wanted == "projection" and not has_projection:
            raise ConfigError(f"tokens: a model of the kind {kind} has no projection; choose cls, mean or sum")
        if wanted == "projection" and self.config.layers != 1:
            raise ConfigError("layers: a projection stands on the last layer; set layers=1, or tokens to cls or mean")
        if is_clip:
            return ("CLIPVisionModelWithProjection" if wanted == "projection" else "CLIPVisionModel"), wanted
        return "AutoModel", wanted

    def _width(self) -> int | None:
        model_config = self._pretrained.config
        tower = getattr(model_config, "vision_config", model_config)
        if self._rule()[1] == "projection":
            return getattr(model_config, "projection_dim", None) or getattr(tower, "hidden_size", None)
        return getattr(tower, "hidden_size", None)

    def _encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Gives a row a picture, of one batch."""
        class_name, tokens = self._rule()
        device = choose_device(self.accelerator)
        with answering(device, self.config.precision, self.config.batch_size):
            model = self._pretrained.load(class_name, device, self._changes())
            pixels = pixel_values(self._pretrained.processor, images).to(device)
            return to_numpy(_vectors(model, pixels, tokens, self.config.layers))

    def _changes(self) -> tuple[tuple[str, Any], ...]:
        model_config = self._pretrained.config
        if model_config.model_type == "vit_mae":
            return (("mask_ratio", 0.0),)  # features see the whole picture
        if model_config.model_type == "clip":
            return (("projection_dim", model_config.projection_dim),)
        return ()


def _model_class(model_config: Any) -> Any:
    try:
        return library().AutoModel._model_mapping[type(model_config)]
    except KeyError as error:
        raise ConfigError(
            f"model: transformers has no AutoModel for the kind {model_config.model_type}; give an image encoder"
        ) from error


def _vectors(model: Any, pixels: torch.Tensor, tokens: TokenPooling, num_layers: int) -> torch.Tensor:
    """Gives (picture, width) float32."""
    if tokens == "projection":
        output = model.get_image_features(pixels) if hasattr(model, "get_image_features") else model(pixels)
        return (output.image_embeds if "image_embeds" in output else output.pooler_output).float()
    options: dict[str, Any] = {}
    if model.config.model_type == "vit_mae":  # it shuffles patches by this noise, also where it hides none
        num_patches = model.embeddings.patch_embeddings.num_patches
        options["noise"] = torch.arange(num_patches, device=pixels.device).expand(len(pixels), -1)
    output = model(pixel_values=pixels, output_hidden_states=True, **options)
    if tokens == "sum":
        states = output.hidden_states[len(output.hidden_states) - num_layers :]
        return torch.stack([state.float() for state in states]).sum(dim=(0, 2))
    total = _as_rows(layer_sum(output, num_layers))
    num_prefix = _num_prefix_tokens(model.config, pixels, total.shape[1])
    if tokens == "cls":
        if not num_prefix:
            raise ConfigError(
                f"tokens: a model of the kind {model.config.model_type} has no class token; choose mean or sum"
            )
        return total[:, 0]
    return total[:, num_prefix:].mean(dim=1)


def _as_rows(states: torch.Tensor) -> torch.Tensor:
    """Gives (picture, token, width), for convolutional models too: their states are (picture, width, height, width)."""
    return states.flatten(2).transpose(1, 2) if states.ndim == 4 else states


def _num_prefix_tokens(model_config: Any, pixels: torch.Tensor, num_tokens: int) -> int:
    """Gives how many tokens (class, registers) stand before those of patches."""
    size = getattr(model_config, "patch_size", None)
    if not isinstance(size, int):
        return 0
    return max(0, num_tokens - (pixels.shape[-2] // size) * (pixels.shape[-1] // size))
