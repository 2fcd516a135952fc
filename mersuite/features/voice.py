"""Sound: statistics of pitch, loudness, rate, pauses and spectrum, and of mel bands; needs no weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mersuite.clip import Clip, Signal
from mersuite.errors import DataError
from mersuite.features.base import Extractor, output_name
from mersuite.media.audio import read_audio
from mersuite.media.streams import stream_media
from mersuite.schema import require_all
from mersuite.signal.mel import FRAME_RATE_HZ, MelScale, log_mel, mel_edges, mel_filters, power_spectrum
from mersuite.signal.prosody import PROSODY, SEMITONES_FROM_HZ, prosody

RATE_HZ = 16_000
NUM_FREQS = 257
"""Frequencies of a frame of 25 ms at 16 kHz, see `power_spectrum`."""
MIN_SOUND_S = 0.1
LOW_HZ = 20.0
HIGH_HZ = 8_000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceConfig:
    """Knobs of the sound's features.

    Attributes:
        stream: Media stream that is read: a sound file, or a video with a sound track.
        num_bands: Mel bands from 20 to 8,000 Hz.
        scale: "htk" or "slaney": mel scale and height of the bands, see `mersuite.signal.mel`.
        pitch_low_hz: Lowest pitch that is looked for.
        pitch_high_hz: Highest. Why 500: excited voices of women reach it; a wider range finds more false octaves.
        frames: Write the mel bands over time, too.
        rate_hz: Rows a second of those.
    """

    stream: str = "voice.speaker"
    num_bands: int = 40
    scale: MelScale = "htk"
    pitch_low_hz: float = 60.0
    pitch_high_hz: float = 500.0
    frames: bool = False
    rate_hz: float = 10.0

    def __post_init__(self) -> None:
        require_all(
            (bool(self.stream), "stream: need the name of a sound stream, such as voice.speaker"),
            (8 <= self.num_bands <= 80, f"num_bands: need 8 to 80, got {self.num_bands}"),
            (
                SEMITONES_FROM_HZ <= self.pitch_low_hz < self.pitch_high_hz <= 2_000,
                f"need {SEMITONES_FROM_HZ:g} <= pitch_low_hz < pitch_high_hz <= 2000, got {self.pitch_low_hz:g} and "
                f"{self.pitch_high_hz:g}",
            ),
            (
                0 < self.rate_hz <= FRAME_RATE_HZ,
                f"rate_hz: need a rate above 0 and up to {FRAME_RATE_HZ} Hz, got {self.rate_hz:g}",
            ),
        )


class VoiceExtractor(Extractor):
    """Writes `prosody_<role>`, `logmel_<role>`, both one vector, and if asked `logmel_frames_<role>`.

    `logmel` holds the mean, the deviation and the mean absolute change from frame to frame of each band, in dB;
    `logmel_frames` the bands, averaged to rate_hz.

    Silence gives finite values: bands on the floor of -100 dB without deviation or change, no pitch and no speech.
    """

    Config = VoiceConfig
    version = 1
    config: VoiceConfig

    def __init__(self, config: VoiceConfig) -> None:
        super().__init__(config)
        self.inputs = (config.stream,)

    def outputs(self) -> tuple[str, ...]:
        """Names of the streams written for each clip."""
        features = ("prosody", "logmel", *(("logmel_frames",) if self.config.frames else ()))
        return tuple(output_name(feature, self.config.stream) for feature in features)

    def estimate_bytes(self, clips: Sequence[Clip]) -> int | None:
        """Gives the bytes of the vectors; None with frames, whose number only the files tell."""
        return None if self.config.frames else 4 * (len(PROSODY) + 3 * self.config.num_bands) * len(clips)

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields the streams of every clip.

        Raises:
            DataError: If a file is unreadable or has no sound, or the sound is shorter than 0.1 s or not finite.
        """
        config = self.config
        filters = mel_filters(config.num_bands, NUM_FREQS, RATE_HZ, config.scale, low_hz=LOW_HZ, high_hz=HIGH_HZ)
        names = _band_names(config)
        parts = ("mean", "deviation", "change")
        for clip in clips:
            sound = self._read(clip)
            power = power_spectrum(sound, RATE_HZ)
            bands = log_mel(power, filters)
            signals = [
                _vector(
                    prosody(sound, power, RATE_HZ, low_hz=config.pitch_low_hz, high_hz=config.pitch_high_hz), PROSODY
                ),
                _vector(band_statistics(bands), tuple(f"{name} {part}" for part in parts for name in names)),
            ]
            if config.frames:
                pooled = pool_frames(bands, config.rate_hz)
                signals.append(Signal(data=pooled, rate_hz=config.rate_hz, ch_names=names, unit="dB"))
            yield clip.clip_id, dict(zip(self.outputs(), signals, strict=True))

    def _read(self, clip: Clip) -> np.ndarray:
        stream = self.config.stream
        media = stream_media(clip, stream)
        try:
            sound = read_audio(media.path, rate_hz=RATE_HZ, start_s=media.start_s, duration_s=media.duration_s)
        except DataError as error:
            raise DataError(f"{clip.clip_id}: {stream}: {error}") from error
        if len(sound) < MIN_SOUND_S * RATE_HZ:
            raise DataError(
                f"{clip.clip_id}: {stream}: {media.path}: the sound lasts {len(sound) / RATE_HZ:.3f} s, need "
                f"{MIN_SOUND_S:g} s or more; leave the clip out"
            )
        if not np.isfinite(sound).all():
            raise DataError(f"{clip.clip_id}: {stream}: {media.path}: the sound holds NaN or infinite samples")
        return sound


def _band_names(config: VoiceConfig) -> tuple[str, ...]:
    peaks = mel_edges(config.num_bands, config.scale, low_hz=LOW_HZ, high_hz=HIGH_HZ)[1:-1]
    return tuple(f"{peak:.0f} Hz" for peak in peaks)


def _vector(values: np.ndarray, names: tuple[str, ...]) -> Signal:
    return Signal(data=values.astype(np.float32)[None], rate_hz=0.0, ch_names=names)


def band_statistics(bands: np.ndarray) -> np.ndarray:
    """Gives mean, deviation and mean absolute change from frame to frame: (F, B) -> (3 B,)."""
    changes = np.abs(np.diff(bands, axis=0)).mean(axis=0) if len(bands) > 1 else np.zeros(bands.shape[1])
    return np.concatenate((bands.mean(axis=0), bands.std(axis=0), changes))


def pool_frames(bands: np.ndarray, rate_hz: float) -> np.ndarray:
    """Averages frames, 100 a second, to fewer rows: (F, B) -> (row, B) float32; the shortest sound gives one row."""
    rows = max(1, round(len(bands) * rate_hz / FRAME_RATE_HZ))
    starts = (np.arange(rows) * FRAME_RATE_HZ / rate_hz).astype(int)
    counts = np.diff(np.append(starts, len(bands)))
    return (np.add.reduceat(bands, starts, axis=0) / counts[:, None]).astype(np.float32)
