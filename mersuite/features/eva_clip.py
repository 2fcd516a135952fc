"""EVA-CLIP-g, the vision tower of BLIP-2, on one frame at 448 pixels: patches and the class token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from mersuite.clip import Clip, Media, Signal
from mersuite.errors import ConfigError, DataError
from mersuite.features.base import Extractor, output_name
from mersuite.features.batched import Precision, answering, choose_device, to_numpy
from mersuite.features.feature_rows import STEP_HZ
from mersuite.features.picture_input import ChannelOrder, is_face_array, peak_of_motion, pixel_values, read_pictures
from mersuite.features.pretrained import Pretrained, check_name, feature_name
from mersuite.media.streams import stream_media
from mersuite.media.video import frames_at, iter_frames, probe
from mersuite.schema import require_all

PEAK_STREAM = "peak_index"
_SEARCH_HZ = 12.5
_SEARCH_HEIGHT = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaClipConfig:
    """Knobs of EVA-CLIP.

    Attributes:
        model: Folder or hub id of a BLIP-2 model, or of its vision tower alone.
        revision: Branch, tag or commit on the hub.
        output: What streams are called by, instead of the last part of model.
        stream: video, face.speaker or face.listener.
        channel_order: How face arrays are stored.
        frame: Which one. peak: the frame number that the clip's text stream `peak_index` gives, counted from 0; where
            it has none, the frame of strongest motion. Why peak: frames of the peak give better answers than the middle
            or the first.
        frames_hz: Rate of face arrays, for streams that are a stretch of a longer file.
        image_size: Pixels of a side, a multiple of the model's patches; positions are interpolated.
        batch_size: Frames a step.
        precision: auto is bfloat16 on a GPU and float32 on a processor.
    """

    model: str = "Salesforce/blip2-itm-vit-g"
    revision: str | None = None
    output: str | None = None
    stream: str = "video"
    channel_order: ChannelOrder = "bgr"
    frame: Literal["first", "middle", "peak"] = "peak"
    frames_hz: float = 25.0
    image_size: int = 448
    batch_size: int = 8
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        check_name(self.model, self.output)
        require_all(
            (self.frames_hz > 0, f"frames_hz: need a rate above 0, got {self.frames_hz}"),
            (self.image_size >= 1, f"image_size: need 1 or more, got {self.image_size}"),
            (self.batch_size >= 1, f"batch_size: need 1 or more, got {self.batch_size}"),
        )


class EvaClipExtractor(Extractor):
    """Writes `<model>-PATCH` (a row a patch, row-major, at a nominal 1 Hz) and `<model>-CLS` (one vector).

    Both are after the last norm, which each token passes once.
    """

    Config = EvaClipConfig
    version = 1
    no_effect = ("model", "revision", "batch_size")
    config: EvaClipConfig

    def __init__(self, config: EvaClipConfig) -> None:
        super().__init__(config)
        self.inputs = (config.stream, f"{PEAK_STREAM}?") if config.frame == "peak" else (config.stream,)
        self._pretrained = Pretrained(config.model, config.revision, "image")
        name = feature_name(config.model, config.output)
        self._patches = output_name(f"{name}-PATCH", config.stream)
        self._class = output_name(f"{name}-CLS", config.stream)

    def outputs(self) -> tuple[str, ...]:
        """Names of the streams written for each clip."""
        return (self._patches, self._class)

    def survey(self, clips: Sequence[Clip]) -> None:
        """Looks at the model.

        Raises:
            ConfigError: If it lacks a file, cannot be reached, or does not fit image_size.
        """
        self._size()
        self._pretrained.check()

    def estimate_bytes(self, clips: Sequence[Clip]) -> int | None:
        """Gives how many bytes the streams of these clips will take."""
        num_patches, width = self._size()
        return len(clips) * (num_patches + 1) * width * 4

    def state_digest(self) -> str:
        """Gives the digest of the model's files."""
        return self._pretrained.digest()

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields the streams of each clip.

        Raises:
            DataError: If the frame cannot be read or memory runs out.
            ConfigError: If the model cannot be loaded.
        """
        for start in range(0, len(clips), self.config.batch_size):
            chunk = clips[start : start + self.config.batch_size]
            for clip, tokens in zip(chunk, self._encode([self._frame(clip) for clip in chunk]), strict=True):
                yield (
                    clip.clip_id,
                    {
                        self._patches: Signal(data=tokens[1:], rate_hz=STEP_HZ, ch_names=()),
                        self._class: Signal(data=tokens[:1], rate_hz=0.0, ch_names=()),
                    },
                )

    def _size(self) -> tuple[int, int]:
        """Gives the number of patches and their width."""
        model_config = self._pretrained.config
        tower = getattr(model_config, "vision_config", model_config)
        if not tower.model_type.startswith("blip_2"):
            raise ConfigError(
                f"model: {self.config.model} is of the kind {model_config.model_type}; give a BLIP-2, whose vision "
                "tower is EVA-CLIP, or use the extractor picture"
            )
        if self.config.image_size % tower.patch_size:
            raise ConfigError(
                f"image_size: need a multiple of {tower.patch_size}, the model's patches, got {self.config.image_size}"
            )
        return (self.config.image_size // tower.patch_size) ** 2, tower.hidden_size

    def _encode(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Gives (picture, class token and patches, width)."""
        self._size()
        side = self.config.image_size
        device = choose_device(self.accelerator)
        with answering(device, self.config.precision, self.config.batch_size):
            model = self._pretrained.load("Blip2VisionModel", device)
            options = {"size": {"height": side, "width": side}, "do_center_crop": False}
            pixels = pixel_values(self._pretrained.processor, images, **options).to(device)
            return to_numpy(model(pixels, interpolate_pos_encoding=True).last_hidden_state)

    def _frame(self, clip: Clip) -> np.ndarray:
        """Gives the chosen frame: (height, width, 3) uint8, RGB."""
        media = stream_media(clip, self.config.stream)
        try:
            return self._face(clip) if is_face_array(media) else self._film_frame(clip, media)
        except DataError as error:
            raise DataError(f"{clip.clip_id}: {self.config.stream}: {error}") from error

    def _face(self, clip: Clip) -> np.ndarray:
        config = self.config
        faces = read_pictures(
            clip, config.stream, channel_order=config.channel_order, num_frames=None, frames_hz=config.frames_hz
        )
        if config.frame == "peak":
            given = self._given_peak(clip)
            return faces[peak_of_motion(faces, config.frames_hz) if given is None else _inside(given, len(faces))]
        return faces[0 if config.frame == "first" else len(faces) // 2]

    def _film_frame(self, clip: Clip, media: Media) -> np.ndarray:
        stretch: dict[str, Any] = {"start_s": media.start_s, "duration_s": media.duration_s}
        if self.config.frame == "first":
            time_s = 0.0
        elif self.config.frame == "middle":
            length_s = probe(media.path).duration_s - media.start_s if media.duration_s is None else media.duration_s
            time_s = length_s / 2
        elif (given := self._given_peak(clip)) is not None:
            info = probe(media.path)
            time_s = _inside(given, info.num_frames or given + 1) / info.rate_hz
        else:
            pairs = [*iter_frames(media.path, rate_hz=_SEARCH_HZ, height=_SEARCH_HEIGHT, **stretch)]
            if not pairs:
                raise DataError(f"{media.path}: no frame from {media.start_s:g} s on; give a stretch inside the clip")
            time_s = pairs[peak_of_motion(np.stack([image for _, image in pairs]), _SEARCH_HZ)][0]
        return frames_at(media.path, [time_s], start_s=media.start_s).images[0]

    def _given_peak(self, clip: Clip) -> int | None:
        text = clip.media.get(PEAK_STREAM)
        if text is None:
            return None
        if isinstance(text, Media) or not text.strip().isdecimal():
            raise DataError(f"{PEAK_STREAM}: need a frame number from 0 on, got {text!r}")
        return int(text)


def _inside(index: int, num_frames: int) -> int:
    if index >= num_frames:
        raise DataError(f"{PEAK_STREAM}: frame {index} of {num_frames} (counted from 0) does not exist")
    return index
