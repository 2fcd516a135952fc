"""VideoMAE over faces or film: a stretch of 16 frames gives 8 segments, each the mean of its patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mersuite.clip import Clip, Signal
from mersuite.errors import ConfigError
from mersuite.features.base import Extractor
from mersuite.features.batched import Precision, answering, choose_device, to_numpy
from mersuite.features.feature_rows import STEP_HZ, Level, estimate, level_signals
from mersuite.features.from_pretrained import FromPretrained
from mersuite.features.picture_input import ChannelOrder, read_pictures
from mersuite.features.pretrained import check_name
from mersuite.schema import require_all


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoMaeConfig:
    """Knobs of VideoMAE.

    Attributes:
        model: Folder or hub id.
        revision: Branch, tag or commit on the hub.
        output: What streams are called by, instead of the last part of model.
        stream: face.speaker, face.listener or video.
        channel_order: How face arrays are stored. Why bgr: they were written with OpenCV, and the organisers'
            extractors turn them round.
        frames_hz: Rate of face arrays, for streams that are a stretch of a longer file.
        pooling: utt (mean over segments), fra (a row a segment, at a nominal 1 Hz), or both.
        batch_size: Clips a step.
        precision: auto is bfloat16 on a GPU and float32 on a processor.
    """

    model: str = "MCG-NJU/videomae-base"
    revision: str | None = None
    output: str | None = None
    stream: str = "face.speaker"
    channel_order: ChannelOrder = "bgr"
    frames_hz: float = 25.0
    pooling: tuple[Level, ...] = ("utt",)
    batch_size: int = 8
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check_name(self.model, self.output)
        require_all(
            (bool(self.pooling), "pooling: need utt, fra or both"),
            (self.frames_hz > 0, f"frames_hz: need a rate above 0, got {self.frames_hz}"),
            (self.batch_size >= 1, f"batch_size: need 1 or more, got {self.batch_size}"),
        )


class VideoMaeExtractor(FromPretrained, Extractor):
    """Writes `<model>-UTT` and `<model>-FRA`, with the role of the stream.

    Frames are spread evenly over the clip, as many as the model reads; a clip with fewer repeats its last. Two
    frames (a tubelet) make a segment.
    """

    Config = VideoMaeConfig
    version = 1
    config: VideoMaeConfig

    def __init__(self, config: VideoMaeConfig) -> None:
        super().__init__(config, "image", config.pooling)

    def survey(self, clips: Sequence[Clip]) -> None:
        """Looks at the model.

        Raises:
            ConfigError: If it lacks a file, cannot be reached, or is no VideoMAE.
        """
        self._num_segments()
        self._pretrained.check()

    def estimate_bytes(self, clips: Sequence[Clip]) -> int | None:
        """Gives about how many bytes the streams of these clips will take."""
        num_segments = self._num_segments()
        return estimate(clips, self._pretrained.config.hidden_size, self.config.pooling, lambda clip: num_segments)

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields the streams of each clip.

        Raises:
            DataError: If pictures cannot be read or memory runs out.
            ConfigError: If the model cannot be loaded.
        """
        config = self.config
        num_segments = self._num_segments()
        for start in range(0, len(clips), config.batch_size):
            chunk = clips[start : start + config.batch_size]
            made = self._encode([self._read(clip) for clip in chunk], num_segments)
            for clip, rows in zip(chunk, made, strict=True):
                yield clip.clip_id, level_signals(rows, STEP_HZ, self._names, None)

    def _read(self, clip: Clip) -> np.ndarray:
        return read_pictures(
            clip,
            self.config.stream,
            channel_order=self.config.channel_order,
            num_frames=self._pretrained.config.num_frames,
            frames_hz=self.config.frames_hz,
        )

    def _num_segments(self) -> int:
        model_config = self._pretrained.config
        if model_config.model_type != "videomae":
            raise ConfigError(
                f"model: {self.config.model} is of the kind {model_config.model_type}; give a VideoMAE, or use the "
                "extractor picture"
            )
        return model_config.num_frames // model_config.tubelet_size

    def _encode(self, clips: Sequence[np.ndarray], num_segments: int) -> np.ndarray:
        """Gives (clip, segment, width)."""
        processor = self._pretrained.processor
        device = choose_device(self.accelerator)
        with answering(device, self.config.precision, self.config.batch_size):
            model = self._pretrained.load("AutoModel", device)
            pixels = torch.cat(
                [
                    processor([list(clip)], return_tensors="pt", input_data_format="channels_last")["pixel_values"]
                    for clip in clips
                ]
            )
            tokens = model(pixels.to(device)).last_hidden_state.float()  # a segment's patches stand together
            return to_numpy(tokens.unflatten(1, (num_segments, -1)).mean(dim=2))
