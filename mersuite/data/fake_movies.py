"""Writes made-up clips as video and sound files that any player opens."""

from __future__ import annotations

import wave
from fractions import Fraction
from typing import IO, Any

import numpy as np

from mersuite.errors import ConfigError

_CODECS = ("libx264", "mpeg4")
"""What pictures are packed with: the first that the installed FFmpeg has."""


def write_mp4(stream: IO[bytes], images: np.ndarray, rate_hz: float, samples: np.ndarray, sound_rate_hz: int) -> None:
    """Writes pictures and sound as an mp4 file; the same input gives the same bytes with the same FFmpeg.

    Args:
        stream: A file opened for writing.
        images: (frame, height, width, 3) uint8, red, green, blue; height and width are even.
        rate_hz: Pictures a second.
        samples: (sample,) int16, one channel.
        sound_rate_hz: Samples a second.

    Raises:
        ConfigError: If PyAV is not installed.
    """
    try:
        import av
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"writing video needs the package {error.name!r}, which is not installed; pip install 'mersuite[video]'"
        ) from error
    codec = next(name for name in _CODECS if name in av.codecs_available)
    # Why bitexact and one thread: neither clock nor scheduling may show in the bytes.
    with av.open(stream, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        # The checker does not know which codecs are for pictures.
        video: Any = container.add_stream(codec, rate=Fraction(rate_hz).limit_denominator(1001))
        video.height, video.width = images.shape[1:3]
        video.pix_fmt = "yuv420p"
        video.gop_size = 12
        # Why a fixed quantiser: with x264's rate control the same pictures now and then give other bytes.
        video.options = {"qp": "20", "preset": "veryfast"} if codec == "libx264" else {}
        video.bit_rate = 1_000_000  # of mpeg4 alone; a quantiser needs none
        video.codec_context.thread_count = 1
        sound = container.add_stream("aac", rate=sound_rate_hz)
        sound.layout = "mono"
        sound.codec_context.bit_rate = 64_000
        for image in images:
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(video.encode(None))
        block = av.AudioFrame.from_ndarray(samples[None, :], format="s16", layout="mono")
        block.sample_rate = sound_rate_hz
        block.pts = 0
        container.mux(sound.encode(block))
        container.mux(sound.encode(None))


def write_wav(stream: IO[bytes], samples: np.ndarray, rate_hz: int) -> None:
    """Writes int16 samples of one channel, (sample,), as an uncompressed wav file."""
    with wave.open(stream, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate_hz)
        sound.writeframes(samples.astype("<i2").tobytes())
