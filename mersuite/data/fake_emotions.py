"""The known effect of made-up clips: how an emotion shows in a face and a voice, and how people's emotions go together.

A person who feels emotion k expresses it, separately for the face and for the voice, by a latent of four cues:

    latent = (sqrt(snr) * place[k] + noise) / sqrt(1 + snr)        noise ~ N(0, I)

`place` has mean 0 and variance 1 in each cue over the class shares. Hence each cue has mean 0 and variance 1 at every
snr, snr is the variance that the emotion gives over the variance of the noise, and snr=0 means that nothing is known.
Words carry the emotion through their own probabilities, see `mersuite.data.fake_subtitles`.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from mersuite.formats.mer2026 import EMOTIONS

SHARES = (0.26, 0.20, 0.18, 0.14, 0.12, 0.10)
"""How often each emotion is felt."""
FACE_CUES = ("smile", "brow_height", "brow_tilt", "energy")
"""smile: corners of the mouth up; brow_height: brows up; brow_tilt: their inner ends up; energy: eyes wide, head
restless, and in a speaker the mouth opens wide."""
VOICE_CUES = ("pitch", "loudness", "rate", "pauses")

_PLACES: Mapping[str, Mapping[str, Sequence[float]]] = {
    "face": {
        "neutral": (0.0, 0.0, 0.0, -0.6),
        "angry": (-0.8, -1.0, -1.3, 0.8),
        "happy": (1.7, 0.3, 0.0, 0.6),
        "sad": (-1.2, -0.2, 1.2, -1.2),
        "worried": (-0.7, 0.4, 1.3, 0.3),
        "surprise": (0.2, 1.9, 0.2, 1.2),
    },
    "voice": {
        "neutral": (-0.4, -0.2, 0.0, 0.0),
        "angry": (0.4, 1.5, 0.7, -0.6),
        "happy": (1.0, 0.7, 0.6, -0.5),
        "sad": (-1.2, -1.2, -1.2, 1.3),
        "worried": (0.3, -0.6, 0.8, 0.6),
        "surprise": (1.6, 0.6, -0.4, -0.2),
    },
}
MODALITIES = tuple(_PLACES)


@functools.lru_cache(maxsize=len(MODALITIES))
def places(modality: str) -> np.ndarray:
    """Gives where the emotions lie among the cues: (emotion, cue) float64, mean 0 and variance 1 over the shares."""
    raw = np.array([_PLACES[modality][emotion] for emotion in EMOTIONS])
    shares = np.array(SHARES)
    centred = raw - shares @ raw
    scaled: np.ndarray = centred / np.sqrt(shares @ centred**2)
    scaled.flags.writeable = False
    return scaled


def draw_latent(rng: np.random.Generator, modality: str, emotion: np.ndarray | int, snr: float) -> np.ndarray:
    """Draws what a face or a voice shows of an emotion.

    Args:
        rng: Source of the noise.
        modality: "face" or "voice".
        emotion: Index or indices in EMOTIONS, any shape.
        snr: Variance of what the emotion gives over variance of the noise.

    Returns:
        (*emotion's shape, cue) float64 of unit variance.
    """
    place = places(modality)[emotion]
    return (np.sqrt(snr) * place + rng.standard_normal(place.shape)) / np.sqrt(1 + snr)


def latent_log_likelihood(latent: np.ndarray, modality: str, snr: float) -> np.ndarray:
    """Gives log p(latent | emotion) up to a constant that is the same for all emotions.

    Args:
        latent: (..., cue) float64.
        modality: "face" or "voice".
        snr: As the latent was drawn with.

    Returns:
        (..., emotion) float64.
    """
    middles = np.sqrt(snr / (1 + snr)) * places(modality)
    # |latent|^2 is the same for all emotions and is left out.
    products = latent @ middles.T
    log_likelihood: np.ndarray = (1 + snr) * (products - 0.5 * (middles**2).sum(axis=1))
    return log_likelihood


def draw_emotions(rng: np.random.Generator, shape: int | tuple[int, ...]) -> np.ndarray:
    """Draws emotions by their shares: indices in EMOTIONS, int64."""
    return rng.choice(len(EMOTIONS), size=shape, p=SHARES)


def catch(rng: np.random.Generator, emotions: np.ndarray, contagion: float) -> np.ndarray:
    """Draws the emotion of each one's partner: the same with probability `contagion`, else by the shares."""
    same = rng.random(emotions.shape) < contagion
    return np.where(same, emotions, draw_emotions(rng, emotions.shape))


def partner_probabilities(contagion: float) -> np.ndarray:
    """Gives P(partner's emotion | own emotion) as `catch` draws it: (own emotion, partner's emotion) float64."""
    num = len(EMOTIONS)
    probabilities: np.ndarray = contagion * np.eye(num) + (1 - contagion) * np.tile(SHARES, (num, 1))
    return probabilities


def stratified_emotions(rng: np.random.Generator, num: int, at_least: int) -> np.ndarray:
    """Gives `num` emotions in random order whose counts follow the shares as nearly as whole numbers can.

    Why not independent draws: in a few dozen clips a class could be missing altogether.

    Args:
        rng: Source of the order.
        num: How many; at_least * number of emotions or more.
        at_least: Smallest count of a class.
    """
    counts = np.full(len(EMOTIONS), at_least)
    while counts.sum() < num:  # the class that lacks most is next
        counts[np.argmax(np.array(SHARES) * num - counts)] += 1
    return rng.permutation(np.repeat(np.arange(len(EMOTIONS)), counts))
