"""Cuts the faces of tracks out of a video."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from mersuite.clip import Media
from mersuite.errors import DataError
from mersuite.faces.config import FacesConfig
from mersuite.faces.detectors import opencv
from mersuite.faces.scan import Scan, stretch_frames
from mersuite.faces.tracks import Track
from mersuite.media.video import probe

_BLUR_FROM = 1.5


def read_crops(video: Media, found: Scan, tracks: Sequence[Track], config: FacesConfig) -> np.ndarray:
    """Gives the faces of a clip, (track, frame, side, side, 3) uint8, RGB.

    Frames without a face in a track hold the crop of the nearest frame that has one.

    Args:
        video: The clip's pictures, as `scan` read them.
        found: What `scan` gave.
        tracks: Of that clip, each seen in one frame at least.
        config: Its crop_height, crop_side, margin, rate_hz.

    Raises:
        DataError: If the video gives other frames than before.
    """
    num_frames = len(found.times_s)
    crops = np.zeros((len(tracks), num_frames, config.crop_side, config.crop_side, 3), np.uint8)
    index = -1
    for index, image in enumerate(_pictures(video, found, config)):
        if index >= num_frames:
            break
        for number, track in enumerate(tracks):
            if track.seen[index]:
                box = track.boxes[index] * image.shape[0] / found.size[0]
                crops[number, index] = cut(image, box, side=config.crop_side, margin=config.margin)
    if index != num_frames - 1:
        raise DataError(f"{video.path}: changed while it was read ({num_frames} frames, then {index + 1}); run again")
    for number, track in enumerate(tracks):
        crops[number] = crops[number, nearest_seen(track.seen)]
    return crops


def _pictures(video: Media, found: Scan, config: FacesConfig) -> Iterable[np.ndarray]:
    if found.pictures is not None:
        return found.pictures
    height = min(config.crop_height, probe(video.path).height)
    return (image for _, image in stretch_frames(video, config.rate_hz, height))


def cut(image: np.ndarray, box: np.ndarray, *, side: int, margin: float) -> np.ndarray:
    """Cuts one box with its margin, (side, side, 3) uint8; what lies outside of the picture repeats its edge.

    Args:
        image: (height, width, 3) uint8.
        box: (4,) x, y, width, height in pixels, at fractions of pixels too.
        side: Side of the result, in pixels.
        margin: Share of the box's side that is added on each side.
    """
    cv2 = opencv()
    reach = max(float(box[2]), float(box[3])) * (0.5 + margin)
    centre = np.array([box[0] + box[2] / 2, box[1] + box[3] / 2])
    factor = 2 * reach / side
    pad = 2 + int(factor)
    corner = np.maximum(np.floor(centre - reach).astype(int) - pad, 0)
    corner = np.minimum(corner, np.array(image.shape[1::-1]) - 1)
    end = np.maximum(np.ceil(centre + reach).astype(int) + pad, corner + 1)
    part = np.ascontiguousarray(image[corner[1] : end[1], corner[0] : end[0]])
    if factor > _BLUR_FROM:  # else points between the sampled ones would be lost
        part = cv2.GaussianBlur(part, (0, 0), 0.4 * factor)
    shift = centre - reach - corner + (factor - 1) / 2  # centres of pixels lie at halves
    place = np.array([[factor, 0, shift[0]], [0, factor, shift[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(part, place, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def nearest_seen(seen: np.ndarray) -> np.ndarray:
    """For each frame the nearest frame that is seen, the earlier of two, (frame,) int64.

    >>> nearest_seen(np.array([False, True, False, False, False, True])).tolist()
    [1, 1, 1, 1, 5, 5]
    """
    there = np.flatnonzero(seen)
    frames = np.arange(len(seen))
    after = np.clip(np.searchsorted(there, frames), 0, len(there) - 1)
    before = np.maximum(after - 1, 0)
    closer = np.abs(there[before] - frames) <= np.abs(there[after] - frames)
    return np.where(closer, there[before], there[after])
