"""Made-up voices: babble whose pitch, loudness, syllable rate and pauses follow a latent.

The sound is a sum of harmonics under the resonances of a vocal tract, one vowel a syllable, with a hiss where a
syllable begins and a faint noise of the room. Nobody is imitated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

VOICE_RATE_HZ = 16000
EDGE_S = 0.08
"""Silence before the first syllable and after the last."""
ROOM_DB = -66.0
"""Loudness of the room, dB of full scale."""
MAX_LATENT = 3.0
"""Latents are shown as if they lay within plus and minus this."""

_TOP_HZ = 5000.0
_SECOND_PAUSE_S = 0.4
# First three resonances of five vowels in Hz, rounded: open, half open, close front, half close back, close back.
_VOWELS_HZ = np.array([(750, 1250, 2550), (520, 1850, 2500), (290, 2250, 3000), (480, 900, 2500), (320, 800, 2350)])
_WIDTHS_HZ = np.array([110.0, 140.0, 200.0])
_GAINS = np.array([1.0, 0.6, 0.35])


@dataclass(frozen=True, slots=True, kw_only=True)
class VoiceCues:
    """How somebody speaks.

    Attributes:
        pitch_hz: Geometric mean of the fundamental.
        loudness_db: Root mean square over the syllables, dB of full scale.
        rate_hz: Syllables a second of speech, pauses left out.
        pause_share: Pauses between syllables, as a share of the time from the first syllable to the last.
    """

    pitch_hz: float
    loudness_db: float
    rate_hz: float
    pause_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """A made-up voice.

    Attributes:
        samples: (sample,) int16 at VOICE_RATE_HZ.
        opening: (sample,) float32, 0 to 1: how far the mouth is open.
        rate_hz: Syllables a second of speech; more than was asked for where not even two of them had room.
    """

    samples: np.ndarray
    opening: np.ndarray
    rate_hz: float


def voice_cues(latent: np.ndarray) -> VoiceCues:
    """Gives how a latent of the four VOICE_CUES sounds; monotonous in each cue, 180 Hz, -26 dB, 4.2 Hz, 0.24 at 0."""
    pitch, loudness, rate, pauses = np.clip(latent, -MAX_LATENT, MAX_LATENT)
    return VoiceCues(
        pitch_hz=float(180.0 * 2.0 ** (0.4 * pitch)),
        loudness_db=float(-26.0 + 3.0 * loudness),
        rate_hz=float(4.2 + 0.6 * rate),
        pause_share=float(0.24 + 0.07 * pauses),
    )


def make_voice(cues: VoiceCues, tract: float, num_samples: int, rng: np.random.Generator) -> Voice:
    """Makes a voice.

    Args:
        cues: How it speaks.
        tract: Factor on all resonances; 1 is average, more is a shorter vocal tract.
        num_samples: Length of the sound at VOICE_RATE_HZ.
        rng: Source of vowels, places of pauses, accents and noise.
    """
    syllable, within, rate_hz = _timeline(cues, num_samples, rng)
    speaks = syllable >= 0
    envelope = np.where(speaks, np.sin(np.pi * within) ** 0.6, 0.0)
    tone = _harmonics(cues.pitch_hz, tract, syllable, rng) * envelope
    hiss = np.where(speaks & (within < 0.2), np.diff(rng.standard_normal(num_samples + 1)), 0.0)
    sound = tone / np.sqrt(np.mean(tone[speaks] ** 2)) + 0.12 * envelope * hiss
    sound *= 10 ** (cues.loudness_db / 20) / np.sqrt(np.mean(sound[speaks] ** 2))
    sound += 10 ** (ROOM_DB / 20) * rng.standard_normal(num_samples)
    samples = np.rint(np.clip(sound, -1.0, 1.0) * 32767).astype(np.int16)
    return Voice(samples=samples, opening=envelope.astype(np.float32), rate_hz=rate_hz)


def mean_over_frames(course: np.ndarray, num_frames: int) -> np.ndarray:
    """Gives the mean of a course over the time of each picture: (sample,) to (frame,) float64."""
    edges = np.rint(np.linspace(0, course.size, num_frames + 1)).astype(np.int64)
    means: np.ndarray = np.add.reduceat(course.astype(np.float64), edges[:-1]) / np.diff(edges)
    return means


def _timeline(cues: VoiceCues, num_samples: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """Index of the syllable at each sample (-1: none), how far it has gone (0 to 1), and the true syllable rate.

    Rate and share of pauses are exact; what whole syllables leave over is silence at the ends.
    """
    most_s = num_samples / VOICE_RATE_HZ - 2 * EDGE_S
    num_syllables = max(int(most_s * (1 - cues.pause_share) * cues.rate_hz), 2)
    length_s = min(1 / cues.rate_hz, most_s * (1 - cues.pause_share) / num_syllables)
    total_s = num_syllables * length_s / (1 - cues.pause_share)
    pause_s = total_s * cues.pause_share
    num_pauses = 2 if pause_s > _SECOND_PAUSE_S and num_syllables > 2 else 1
    pauses_s = np.zeros(num_syllables)  # before each syllable
    places = 1 + rng.choice(num_syllables - 1, size=num_pauses, replace=False)
    pauses_s[places] = pause_s * rng.dirichlet(np.full(num_pauses, 8.0))
    first_s = EDGE_S + rng.uniform(0.0, max(most_s - total_s, 0.0))
    starts_s = first_s + np.arange(num_syllables) * length_s + pauses_s.cumsum()
    time_s = (np.arange(num_samples) + 0.5) / VOICE_RATE_HZ
    syllable = np.searchsorted(starts_s, time_s, side="right") - 1
    within = (time_s - starts_s[np.maximum(syllable, 0)]) / length_s
    syllable = np.where((within >= 0) & (within < 1), syllable, -1)
    return syllable, np.clip(within, 0.0, 1.0), 1 / length_s


def _harmonics(pitch_hz: float, tract: float, syllable: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(sample,) float64: the voiced sound at full openness, its pitch falling a little, with an accent a syllable."""
    num_syllables = int(syllable.max()) + 1
    accents = rng.normal(0.0, 0.03, num_syllables)
    index = np.maximum(syllable, 0)
    octaves = (accents - accents.mean())[index] + np.linspace(0.04, -0.04, syllable.size)
    octaves -= octaves[syllable >= 0].mean()
    phase = 2 * np.pi * np.cumsum(pitch_hz * 2.0**octaves) / VOICE_RATE_HZ
    resonances_hz = tract * _VOWELS_HZ[rng.integers(len(_VOWELS_HZ), size=num_syllables)]
    num_harmonics = max(int(_TOP_HZ / pitch_hz), 4)
    frequency_hz = pitch_hz * np.arange(1, num_harmonics + 1)
    distance = (frequency_hz[:, None, None] - resonances_hz) / _WIDTHS_HZ
    gains = (_GAINS / (1 + distance**2)).sum(axis=2) + 0.05
    gains *= frequency_hz[:, None] ** -0.8  # the glottal source falls off
    out = np.zeros(syllable.size)
    # sin((n + 1) x) = 2 cos(x) sin(n x) - sin((n - 1) x)
    twice_cos, before, now = 2 * np.cos(phase), np.zeros(syllable.size), np.sin(phase)
    for gain in gains:
        out += gain[index] * now
        before, now = now, twice_cos * now - before
    return out
