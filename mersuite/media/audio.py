"""Sound of a clip as a mono waveform."""

from __future__ import annotations

from math import gcd
from pathlib import Path

import numpy as np

from mersuite.errors import DataError


def has_audio(path: Path) -> bool:
    """Tells whether a file has a sound track.

    Raises:
        DataError: If the file is missing, empty or broken.
    """
    import av

    _check_file(path)
    try:
        with av.open(str(path)) as container:
            return bool(container.streams.audio)
    except av.FFmpegError as error:
        raise DataError(f"{path}: not a readable media file ({error}); copy or download it again") from error


def read_audio(
    path: Path, *, rate_hz: int = 16000, start_s: float = 0.0, duration_s: float | None = None
) -> np.ndarray:
    """Gives the sound of a stretch: (sample,) float32, mono, in -1..1.

    Raises:
        DataError: If the file is missing, empty or broken, has no sound track, or ends before the stretch does.
    """
    import av
    from scipy.signal import resample_poly

    _check_file(path)
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise DataError(f"{path}: has no sound track")
            stream = container.streams.audio[0]
            rate = stream.rate
            converter = av.AudioResampler(format="fltp")
            pieces = [
                part.to_ndarray().mean(0) for frame in container.decode(stream) for part in converter.resample(frame)
            ]
    except av.FFmpegError as error:
        raise DataError(f"{path}: not a readable media file ({error}); copy or download it again") from error
    if not pieces:
        raise DataError(f"{path}: its sound track is empty")
    wave = np.concatenate(pieces)
    if rate != rate_hz:
        common = gcd(rate, rate_hz)
        wave = resample_poly(wave, rate_hz // common, rate // common)
    first = round(start_s * rate_hz)
    last = None if duration_s is None else first + round(duration_s * rate_hz)
    return np.ascontiguousarray(wave[first:last], np.float32)


def _check_file(path: Path) -> None:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file")
    if Path(path).stat().st_size == 0:
        raise DataError(f"{path}: is empty (0 bytes)")
