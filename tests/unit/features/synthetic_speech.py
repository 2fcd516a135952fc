"""Sound of known pitch, loudness, rate and pauses, 16 kHz float32, for the tests of speech."""

from __future__ import annotations

import numpy as np

RATE_HZ = 16_000


def times(seconds: float) -> np.ndarray:
    """Gives the samples' times in seconds."""
    return np.arange(round(seconds * RATE_HZ)) / RATE_HZ


def voice(
    f0_hz: float | np.ndarray, seconds: float, *, level_db: float = -26.0, num_harmonics: int = 12, seed: int = 0
) -> np.ndarray:
    """Gives harmonics that fall by 6 dB an octave, with random phases; f0_hz may run in time. Mean square: level_db."""
    phase = 2 * np.pi * np.cumsum(np.broadcast_to(f0_hz, times(seconds).shape)) / RATE_HZ
    starts = np.random.default_rng(seed).uniform(0, 2 * np.pi, num_harmonics)
    sound = sum(np.sin(k * phase + start) / k for k, start in enumerate(starts, start=1))
    return at_level(sound, level_db)


def at_level(sound: np.ndarray, level_db: float) -> np.ndarray:
    """Brings sound to a mean square in dB."""
    return (sound * np.sqrt(10 ** (level_db / 10) / np.mean(sound**2))).astype(np.float32)


def vibrato(f0_hz: float, seconds: float, *, semitones: float = 0.5, rate_hz: float = 5.5) -> np.ndarray:
    """Gives a pitch that swings about f0_hz; its mean over whole swings is f0_hz."""
    return f0_hz * (1 + (2 ** (semitones / 12) - 1) * np.sin(2 * np.pi * rate_hz * times(seconds)))


def with_noise(sound: np.ndarray, snr_db: float, *, seed: int = 1) -> np.ndarray:
    """Adds white noise so far below the mean square of what is not silent."""
    power = np.mean(sound[sound != 0] ** 2)
    noise = np.random.default_rng(seed).standard_normal(len(sound)) * np.sqrt(power / 10 ** (snr_db / 10))
    return (sound + noise).astype(np.float32)


def bursts(per_s: float, seconds: float, *, f0_hz: float = 140.0, level_db: float = -26.0) -> np.ndarray:
    """Gives a voice whose amplitude rises and falls so many times a second, as syllables do."""
    swell = np.sin(np.pi * per_s * times(seconds)) ** 2
    return (voice(f0_hz, seconds, level_db=level_db) * swell).astype(np.float32)


def with_gaps(sound: np.ndarray, starts_s: list[float], durations_s: list[float], *, fade_s: float = 0.005):
    """Silences stretches of sound, with short fades outside of them."""
    seconds = np.arange(len(sound)) / RATE_HZ
    gain = np.ones(len(sound))
    for start_s, duration_s in zip(starts_s, durations_s, strict=True):
        outside = np.maximum(start_s - seconds, seconds - (start_s + duration_s))
        gain *= np.clip(outside / fade_s, 0, 1)
    return (sound * gain).astype(np.float32)
