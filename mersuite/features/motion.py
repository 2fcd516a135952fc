"""Motion in the whole picture of a video, as simple statistics on a coarse grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mersuite.clip import Clip, Signal
from mersuite.errors import DataError
from mersuite.features.base import Extractor, output_name
from mersuite.media.streams import stream_media
from mersuite.media.video import read_frames
from mersuite.schema import require_all
from mersuite.signal import faces

MOTIONS = ("mean", "deviation", "range", "still_share")
PICTURES = ("brightness", "contrast")
STILL_ENERGY = 0.02
"""Motion of the whole picture, in deviations, below which nothing moves; the noise of packing a film is about half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MotionConfig:
    """Knobs of the picture's motion.

    Attributes:
        stream: Media stream of a video that is read.
        rate_hz: Frames a second that are looked at, at most. Why 5: gestures and turns of a head last longer than
            0.2 s, and fewer frames cost less.
        height: Height in pixels that frames are made small to. Why 64: the statistics are coarser still.
        rows: Rows of the grid of motion.
        columns: Columns of the grid.
    """

    stream: str = "video"
    rate_hz: float = 5.0
    height: int = 64
    rows: int = 4
    columns: int = 6

    def __post_init__(self) -> None:
        require_all(
            (bool(self.stream), "stream: need the name of a video stream, such as video"),
            (self.rate_hz > 0, f"rate_hz: need a rate above 0, got {self.rate_hz}"),
            (self.height >= 8, f"height: need 8 pixels or more, got {self.height}"),
            (1 <= self.rows <= self.height, f"rows: need 1 to {self.height} (height), got {self.rows}"),
            (self.columns >= 1, f"columns: need 1 or more, got {self.columns}"),
        )


class MotionExtractor(Extractor):
    """Writes `motion_<role>`, or `motion` for a stream without a role: one vector of named statistics.

    Motion is the absolute difference from frame to frame of the grey picture, brightness and contrast taken out: mean
    and deviation over time in each cell of the grid; over the whole picture mean, deviation, 90th less 10th percentile
    and the share of frames in which nothing moves. Then brightness and contrast, as shares of white.

    A single frame has no motion, and is still.
    """

    Config = MotionConfig
    version = 1
    config: MotionConfig

    def __init__(self, config: MotionConfig) -> None:
        super().__init__(config)
        self.inputs = (config.stream,)

    def outputs(self) -> tuple[str, ...]:
        """Names of the streams written for each clip."""
        return (output_name("motion", self.config.stream),)

    def estimate_bytes(self, clips: Sequence[Clip]) -> int:
        """Gives the bytes of the vectors."""
        return 4 * len(_names(self.config)) * len(clips)

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields the vector of every clip.

        Raises:
            DataError: If a video is unreadable, has no pictures, or ends before its stretch does.
        """
        names = _names(self.config)
        for clip in clips:
            values = motion_statistics(self._read(clip), rows=self.config.rows, columns=self.config.columns)
            data = values.astype(np.float32)[None]
            yield clip.clip_id, {self.outputs()[0]: Signal(data=data, rate_hz=0.0, ch_names=names)}

    def _read(self, clip: Clip) -> np.ndarray:
        config = self.config
        media = stream_media(clip, config.stream)
        try:
            frames = read_frames(
                media.path,
                start_s=media.start_s,
                duration_s=media.duration_s,
                rate_hz=config.rate_hz,
                height=config.height,
            )
        except DataError as error:
            raise DataError(f"{clip.clip_id}: {config.stream}: {error}") from error
        return frames.images


def _names(config: MotionConfig) -> tuple[str, ...]:
    cells = [f"{row} {column}" for row in range(config.rows) for column in range(config.columns)]
    return (
        *(f"mean {cell}" for cell in cells),
        *(f"deviation {cell}" for cell in cells),
        *(f"motion {name}" for name in MOTIONS),
        *PICTURES,
    )


def motion_statistics(pictures: np.ndarray, *, rows: int, columns: int) -> np.ndarray:
    """Gives the statistics of motion, see MotionExtractor: (frame, height, width, 3) uint8 -> (channel,) float64.

    Args:
        pictures: RGB, one frame at least.
        rows: Rows of the grid.
        columns: Columns of the grid.
    """
    height, width = pictures.shape[1:3]
    grey = faces.grey_pictures(pictures, height, width)
    changes = np.abs(np.diff(faces.normalise_pictures(grey), axis=0))
    if not len(changes):
        changes = np.zeros((1, height, width), np.float32)
    cells = faces.shrink_matrix(height, rows) @ changes @ faces.shrink_matrix(width, columns).T
    whole = changes.mean(axis=(1, 2))
    low, high = np.percentile(whole, (10, 90))
    totals = (whole.mean(), whole.std(), high - low, (whole < STILL_ENERGY).mean())
    light = (grey.mean() / 255, grey.std(axis=(1, 2)).mean() / 255)
    return np.concatenate((cells.mean(axis=0).ravel(), cells.std(axis=0).ravel(), totals, light))
