"""Pictures of a clip for image encoders: face arrays or film frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
from scipy.ndimage import median_filter, uniform_filter1d

from mersuite.clip import Clip, Media
from mersuite.errors import DataError
from mersuite.features.feature_rows import uniform_rows
from mersuite.media.face_arrays import read_faces
from mersuite.media.streams import stream_media
from mersuite.media.video import iter_frames, probe, read_frames, sample_frames

ChannelOrder = Literal["rgb", "bgr"]

_MOTION_PIXELS = 32


def is_face_array(media: Media) -> bool:
    """Whether a stream is a .npy file of faces; anything else is a film."""
    return media.path.suffix.lower() == ".npy"


def read_pictures(
    clip: Clip, stream: str, *, channel_order: ChannelOrder, num_frames: int | None, frames_hz: float
) -> np.ndarray:
    """Gives pictures of a clip: (frame, height, width, 3) uint8, RGB.

    Args:
        clip: The clip.
        stream: Its stream of faces or of film.
        channel_order: How face arrays are stored; films say it themselves.
        num_frames: So many, spread evenly; None for all.
        frames_hz: Rate of face arrays, for streams that are a stretch of a longer file; of films, at most so many
            frames a second are taken.

    Raises:
        DataError: If the stream is not there or cannot be read.
    """
    media = stream_media(clip, stream)
    try:
        if is_face_array(media):
            faces = _stretch(read_faces(media.path, channel_order=channel_order), media, frames_hz)
            return faces if num_frames is None else faces[uniform_rows(len(faces), num_frames)]
        stretch: dict[str, Any] = {"start_s": media.start_s, "duration_s": media.duration_s}
        if num_frames is None:
            return read_frames(media.path, rate_hz=frames_hz, **stretch).images
        return sample_frames(media.path, num_frames, **stretch).images
    except DataError as error:
        raise DataError(f"{clip.clip_id}: {stream}: {error}") from error


def iter_pictures(
    clip: Clip, stream: str, *, channel_order: ChannelOrder, num_frames: int | None, frames_hz: float
) -> Iterator[tuple[float, np.ndarray]]:
    """Gives the pictures of read_pictures one after the other, so that a film never lies whole in memory.

    Args:
        clip: As for read_pictures.
        stream: As for read_pictures.
        channel_order: As for read_pictures.
        num_frames: As for read_pictures.
        frames_hz: As for read_pictures.

    Yields:
        Seconds from the start of the stretch - of sampled pictures and of faces, which have no clock, by frames_hz -
        and the picture: (height, width, 3) uint8, RGB.

    Raises:
        DataError: As read_pictures does.
    """
    media = stream_media(clip, stream)
    if num_frames is not None or is_face_array(media):
        images = read_pictures(clip, stream, channel_order=channel_order, num_frames=num_frames, frames_hz=frames_hz)
        yield from ((index / frames_hz, image) for index, image in enumerate(images))
        return
    try:
        yield from iter_frames(media.path, rate_hz=frames_hz, start_s=media.start_s, duration_s=media.duration_s)
    except DataError as error:
        raise DataError(f"{clip.clip_id}: {stream}: {error}") from error


def _stretch(faces: np.ndarray, media: Media, frames_hz: float) -> np.ndarray:
    first = round(media.start_s * frames_hz)
    last = len(faces) if media.duration_s is None else first + round(media.duration_s * frames_hz)
    if not 0 <= first < last <= len(faces):
        raise DataError(
            f"{media.path} holds {len(faces)} faces, and the stretch asks for {first} to {last} at {frames_hz:g} Hz; "
            "correct start_s and duration_s, or frames_hz"
        )
    return faces[first:last]


def count_rows(clip: Clip, stream: str, *, num_frames: int | None, frames_hz: float) -> float:
    """Gives about how many rows of a picture each a clip has, without decoding: those of a film stand at frames_hz.

    Raises:
        DataError: If the file cannot be read.
    """
    if num_frames is not None:
        return num_frames
    media = stream_media(clip, stream)
    if media.duration_s is not None:
        return media.duration_s * frames_hz
    if is_face_array(media):
        return len(read_faces(media.path, channel_order="rgb"))
    return (probe(media.path).duration_s - media.start_s) * frames_hz


def pixel_values(processor: Any, images: Sequence[np.ndarray], **options: Any) -> torch.Tensor:
    """Prepares pictures with a model's own image processor: (frame, 3, height, width) float32.

    Args:
        processor: From `pretrained.read_processor`.
        images: (height, width, 3) uint8, RGB, each.
        options: Settings of the processor to use otherwise, such as size.
    """
    return processor(images=list(images), return_tensors="pt", input_data_format="channels_last", **options)[
        "pixel_values"
    ]


def peak_of_motion(images: np.ndarray, rate_hz: float) -> int:
    """Gives the index of the picture with the strongest motion; the middle one where nothing moves.

    Motion is the mean absolute difference in brightness to the picture before, as the median of three, so that a cut
    does not count, averaged over a fifth of a second.

    Args:
        images: (frame, height, width, 3) uint8.
        rate_hz: Frames a second.
    """
    step = max(1, min(images.shape[1:3]) // _MOTION_PIXELS)
    grey = images[:, ::step, ::step].mean(axis=-1, dtype=np.float32)
    energy = np.abs(np.diff(grey, axis=0, prepend=grey[:1])).mean(axis=(1, 2))
    smooth = uniform_filter1d(median_filter(energy, 3, mode="nearest"), max(1, round(0.2 * rate_hz)), mode="nearest")
    return int(smooth.argmax()) if smooth.max() > 0 else len(images) // 2
