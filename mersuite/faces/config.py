"""The knobs of finding faces and telling who speaks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mersuite.schema import require_all


@dataclass(frozen=True, slots=True, kw_only=True)
class FacesConfig:
    """How faces are found, linked, judged and cut out.

    Attributes:
        detector: What finds faces: OpenCV's bundled `cascade`, a `yunet` model by path, or csv files of `openface`.
        cascade: Which of OpenCV's frontal cascades. Why alt2: near known faces it needs 0.6 of the
            time of `default`, in whole pictures 0.9.
        profile: Also look for faces from the side, by the profile cascade in both directions; takes four times as long.
        yunet_path: ONNX file of the YuNet detector.
        openface_root: Folder with <name>.csv or <name>/<name>.csv of OpenFace.
        min_face: Smallest side of a face, as a share of the picture's height. Why: films and talks show people, and
            each halving makes the search four times slower and finds more that is no face.
        min_detection: Detections of a lower confidence are dropped.
        height: Height of the picture that is searched, in pixels. Why 270: a face of a tenth of it is just above the
            20 pixels that the cascades look at.
        crop_height: Faces are cut from the picture at this height, in pixels, or its own where that is lower. Why 540:
            a face of a fifth of the picture fills the crop of 112.
        keep_mb: Pictures of a clip are kept up to so many megabytes; longer clips are decoded twice. Why 400: ten
            seconds at a height of 540.
        rate_hz: At most so many frames a second are read and cut. Why 25: syllables come at 4 to 8 a second.
        detect_rate_hz: Faces are looked for so often; boxes between are interpolated.
        search_rate_hz: The whole picture is searched so often (and at each scene cut); else only near known faces.
        num_people: How many faces are kept.
        max_gap_s: A face that is lost for at most so long is interpolated; when it is lost for longer, these frames
            count as not seen.
        min_track_s: Shorter tracks are dropped, but not those that last as long as a shorter clip. Why: false
            detections rarely last.
        smooth_s: Standard deviation of the smoothing of boxes in time.
        cut_threshold: A scene is cut where colour histograms of neighbouring frames differ by more than this share; it
            is cut, too, where light and dark have changed places.
        max_lag_s: Sound and picture may be apart by so much, in either direction.
        min_shift_s: Chance is measured with the sound shifted by at least this. Why: closer than that the shifted sound
            still agrees with the same syllable.
        min_confidence: A decision below it is `uncertain`. Why 0.9: where no mouth has to do with the sound, at most
            about one clip in ten gets as high.
        crop_side: Side of the crops, in pixels; the organisers' is 112.
        margin: What is cut around the box, as a share of its side, on each side. Why: the boxes end above the chin.
        channel_order: Order of colours in the files. Why bgr: it is what OpenCV writes, and the organisers' files were
            made with it; `data` options that read these files must say the same.
        skip_broken: Leave out clips whose video cannot be read (they are counted and listed) instead of stopping.
    """

    detector: Literal["cascade", "yunet", "openface"] = "cascade"
    cascade: Literal["alt2", "default"] = "alt2"
    profile: bool = False
    yunet_path: Path | None = None
    openface_root: Path | None = None
    min_face: float = 0.1
    min_detection: float = 0.2
    height: int = 270
    crop_height: int = 540
    keep_mb: int = 400
    rate_hz: float = 25.0
    detect_rate_hz: float = 5.0
    search_rate_hz: float = 1.0
    num_people: int = 2
    max_gap_s: float = 1.0
    min_track_s: float = 0.5
    smooth_s: float = 0.12
    cut_threshold: float = 0.4
    max_lag_s: float = 0.2
    min_shift_s: float = 0.5
    min_confidence: float = 0.9
    crop_side: int = 112
    margin: float = 0.15
    channel_order: Literal["rgb", "bgr"] = "bgr"
    skip_broken: bool = False

    def __post_init__(self) -> None:
        shares = ("min_face", "min_detection", "cut_threshold", "min_confidence")
        positive = ("rate_hz", "detect_rate_hz", "search_rate_hz", "min_track_s")
        lengths = ("keep_mb", "max_gap_s", "smooth_s", "max_lag_s", "margin")
        sizes = ("height", "crop_height", "crop_side")
        require_all(
            *((0 < getattr(self, key) < 1, f"{key}: need 0 to 1, got {getattr(self, key)}") for key in shares),
            *((getattr(self, key) > 0, f"{key}: need more than 0, got {getattr(self, key)}") for key in positive),
            *((getattr(self, key) >= 0, f"{key}: need 0 or more, got {getattr(self, key)}") for key in lengths),
            *((getattr(self, key) >= 32, f"{key}: need 32 or more, got {getattr(self, key)}") for key in sizes),
            (self.num_people >= 1, f"num_people: need 1 or more, got {self.num_people}"),
            (
                self.min_shift_s > 2 * self.max_lag_s,
                f"min_shift_s: need more than twice max_lag_s={self.max_lag_s:g}, got {self.min_shift_s:g}",
            ),
            (
                self.search_rate_hz <= self.detect_rate_hz <= self.rate_hz,
                "search_rate_hz, detect_rate_hz, rate_hz: each must be at most the next, got "
                f"{self.search_rate_hz:g}, {self.detect_rate_hz:g}, {self.rate_hz:g}",
            ),
            (
                self.detector != "yunet" or self.yunet_path is not None,
                "yunet_path: detector=yunet needs the ONNX file of the model",
            ),
            (
                self.detector != "openface" or self.openface_root is not None,
                "openface_root: detector=openface needs the folder with the csv files",
            ),
        )
