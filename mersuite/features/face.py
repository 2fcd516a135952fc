"""Face pictures as simple statistics: what the face looks like, what moves, and how the mouth opens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mersuite.clip import Clip, Signal
from mersuite.errors import DataError
from mersuite.features.base import Extractor, output_name
from mersuite.media.face_arrays import read_faces
from mersuite.media.streams import stream_media
from mersuite.schema import require_all
from mersuite.signal import faces

SIDE = 56
"""Side of the small pictures that all is measured in. Why: half of the usual 112 still shows a lip's border."""
DEVIATION_CELLS = 7
OPENING = ("mean", "deviation", "range", "change")


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceConfig:
    """Knobs of the face's statistics.

    Attributes:
        stream: Media stream of face pictures that is read.
        channel_order: How the files order their colours. Why bgr: OpenCV wrote them, and one of the organisers' loaders
            swaps them. Only the weights of the grey values depend on it.
        rows: Rows of the mean face. Why many: brows, lids and lips move up and down, by a twentieth of the face.
        columns: Columns of the mean face.
        fold: Average the left and the right half of the mean face. Why: an expression is much the same on both sides,
            and this halves the width. Turn it off where one side matters.
    """

    stream: str = "face.speaker"
    channel_order: Literal["rgb", "bgr"] = "bgr"
    rows: int = 28
    columns: int = 14
    fold: bool = True

    def __post_init__(self) -> None:
        require_all(
            (bool(self.stream), "stream: need the name of a stream of faces, such as face.speaker"),
            (1 <= self.rows <= SIDE, f"rows: need 1 to {SIDE}, got {self.rows}"),
            (1 <= self.columns <= SIDE, f"columns: need 1 to {SIDE}, got {self.columns}"),
        )


class FaceExtractor(Extractor):
    """Writes `face_<role>`: one vector of named statistics, for pictures of any size and number.

    Each picture is made grey and small, and brightness and contrast are taken out of it. Then there are, in this order:
    the mean face, rows by columns (folded: the half that is left); the deviation over time in 7 by 7 cells; mean and
    deviation of the motion from picture to picture in brows, eyes, mouth, cheeks and all; mean, deviation, 90th less
    10th percentile and mean absolute change of the mouth's opening.

    A single picture has neither motion nor deviation; a blank one (deviation below 1 of 255) is 0 everywhere.
    """

    Config = FaceConfig
    version = 1
    config: FaceConfig

    def __init__(self, config: FaceConfig) -> None:
        super().__init__(config)
        self.inputs = (config.stream,)

    def outputs(self) -> tuple[str, ...]:
        """Names of the streams written for each clip."""
        return (output_name("face", self.config.stream),)

    def estimate_bytes(self, clips: Sequence[Clip]) -> int:
        """Gives the bytes of the vectors."""
        return 4 * len(_names(self.config)) * len(clips)

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields the vector of every clip.

        Raises:
            DataError: If a file is unreadable or holds no pictures, or a stretch of it is asked for whose frames cannot
                be told.
        """
        config = self.config
        names = _names(config)
        for clip in clips:
            values = face_statistics(self._read(clip), rows=config.rows, columns=config.columns, fold=config.fold)
            data = values.astype(np.float32)[None]
            yield clip.clip_id, {self.outputs()[0]: Signal(data=data, rate_hz=0.0, ch_names=names)}

    def _read(self, clip: Clip) -> np.ndarray:
        stream = self.config.stream
        media = stream_media(clip, stream)
        where = f"{clip.clip_id}: {stream}"
        try:
            pictures = read_faces(media.path, channel_order=self.config.channel_order)
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        if media.start_s == 0 and media.duration_s is None:
            return pictures
        if media.rate_hz is None:
            raise DataError(f"{where}: the clip is a stretch of {media.path}, which takes the rate of its frames")
        first = round(media.start_s * media.rate_hz)
        last = None if media.duration_s is None else first + max(1, round(media.duration_s * media.rate_hz))
        if first >= len(pictures):
            raise DataError(
                f"{where}: the clip begins at {media.start_s:g} s, and {media.path} ends before "
                f"({len(pictures)} frames at {media.rate_hz:g} Hz)"
            )
        return pictures[first:last]


def _names(config: FaceConfig) -> tuple[str, ...]:
    kept = (config.columns + 1) // 2 if config.fold else config.columns
    cells = range(DEVIATION_CELLS)
    return (
        *(f"mean {row} {column}" for row in range(config.rows) for column in range(kept)),
        *(f"deviation {row} {column}" for row in cells for column in cells),
        *(f"motion {name} {part}" for name in faces.REGIONS for part in ("mean", "deviation")),
        *(f"opening {part}" for part in OPENING),
    )


def face_statistics(pictures: np.ndarray, *, rows: int, columns: int, fold: bool) -> np.ndarray:
    """Gives a face's statistics, see FaceExtractor: (frame, height, width, 3) uint8 -> (channel,) float64.

    Args:
        pictures: RGB, one frame at least.
        rows: Rows of the mean face.
        columns: Columns of the mean face.
        fold: Average the halves of the mean face.
    """
    small = faces.normalise_pictures(faces.grey_pictures(pictures, SIDE, SIDE))
    mean = _cells(small.mean(axis=0), rows, columns)
    if fold:
        mean = ((mean + mean[:, ::-1]) / 2)[:, : (columns + 1) // 2]
    deviation = _cells(small.std(axis=0), DEVIATION_CELLS, DEVIATION_CELLS)
    motion = faces.motion_energy(small) if len(small) > 1 else np.zeros((1, len(faces.REGIONS)))
    opening = faces.mouth_opening(small)
    low, high = np.percentile(opening, (10, 90))
    change = np.abs(np.diff(opening)).mean() if len(opening) > 1 else 0.0
    return np.concatenate(
        (
            mean.ravel(),
            deviation.ravel(),
            np.stack((motion.mean(axis=0), motion.std(axis=0)), axis=1).ravel(),
            (opening.mean(), opening.std(), high - low, change),
        )
    )


def _cells(picture: np.ndarray, rows: int, columns: int) -> np.ndarray:
    height, width = picture.shape
    return faces.shrink_matrix(height, rows) @ picture @ faces.shrink_matrix(width, columns).T
