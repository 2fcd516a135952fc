"""What a voice does over time, in step with the frames of a video."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_VOICE_HZ = (100.0, 4000.0)
_SILENCE_RMS = 1e-3
_VOICED_SHARE = 0.25
_LOUD_QUANTILE = 0.95
_COMPRESSION = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """A voice over the frames of a clip.

    Attributes:
        level: (frame,) float64, square root of the loudness relative to its 95th percentile; 0 for silence.
        drive: (frame,) float64, what mouths should follow: the sum of the standardised level and the standardised size
            of its change.
        active: (frame,) bool, voice activity.
    """

    level: np.ndarray
    drive: np.ndarray
    active: np.ndarray

    @property
    def is_silent(self) -> bool:
        """There is no sound, or always the same: nothing can agree with it."""
        return not self.active.any() or float(np.ptp(self.drive)) == 0.0


def voice_of(sound: np.ndarray, rate_hz: int, times_s: np.ndarray) -> Voice:
    """Measures a voice around each frame: the energy between 100 and 4000 Hz.

    Why the square root of the loudness: it lies between amplitude, which loud syllables rule, and decibels, which noise
    rules.

    Args:
        sound: (sample,) float, in -1..1.
        rate_hz: Samples a second.
        times_s: (frame,) float64, increasing, seconds from the first sample.
    """
    from scipy.signal import butter, sosfiltfilt

    silent = np.zeros(len(times_s))
    if len(sound) < rate_hz // 20 or len(times_s) < 2:
        return Voice(level=silent, drive=silent, active=silent > 0)
    high = min(_VOICE_HZ[1], 0.45 * rate_hz)
    band = butter(2, (_VOICE_HZ[0], high), btype="bandpass", fs=rate_hz, output="sos")
    energy = np.concatenate([[0.0], np.cumsum(sosfiltfilt(band, sound.astype(np.float64)) ** 2)])
    half_s = float(np.median(np.diff(times_s))) * 0.75  # neighbouring windows share half of their samples
    first = np.clip(np.round((times_s - half_s) * rate_hz).astype(int), 0, len(sound))
    last = np.clip(np.round((times_s + half_s) * rate_hz).astype(int), first, len(sound))
    rms = np.sqrt(np.maximum(energy[last] - energy[first], 0.0) / (2 * half_s * rate_hz))
    loud = float(np.quantile(rms, _LOUD_QUANTILE))
    if loud < _SILENCE_RMS:
        return Voice(level=silent, drive=silent, active=silent > 0)
    level = np.minimum(rms / loud, 2.0) ** _COMPRESSION
    change = np.abs(np.gradient(level))
    return Voice(level=level, drive=standardised(level) + standardised(change), active=level > _VOICED_SHARE)


def standardised(values: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1; all 0 where nothing varies.

    >>> standardised(np.array([1.0, 3.0])).tolist(), standardised(np.array([2.0, 2.0])).tolist()
    ([-1.0, 1.0], [0.0, 0.0])
    """
    spread = float(np.std(values))
    return (values - values.mean()) / spread if spread > 1e-12 else np.zeros(len(values))
