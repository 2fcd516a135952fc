"""Made-up "pre-extracted" features: vectors that hold the latents of a clip among other things, as real encoders do.

    feature = mixing @ [latent, person, clip] + noise        noise of 0.05, all else of about unit variance

`person` are numbers of the person and `clip` numbers of the clip that tell nothing about emotions. The mixing has many
more rows than columns, so that whoever has enough clips can take the latent out again.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mersuite.data.fake_emotions import EMOTIONS, SHARES
from mersuite.data.fake_subtitles import NUM_PHRASES, Sentence

FEATURE_WIDTHS: Mapping[str, int] = {
    "made-up-audio-UTT": 64,
    "made-up-text-UTT": 48,
    "made-up-video-UTT": 32,
    "made-up-video-FRA": 32,
    "made-up-video-listener-UTT": 32,
    "made-up-video-listener-FRA": 32,
}
"""Folder to width. UTT is one vector a clip, FRA one row a picture. video is the face in openface_face, hence the
speaker's in a candidate; video-listener is the same encoder on face_listener and is there for candidates only."""
_NUM_PERSON, _NUM_CLIP, _NOISE = 3, 3, 0.05
_KINDS = ("audio", "text", "video")


def audio_feature(voice: np.ndarray, person_id: int, seed: int, rng: np.random.Generator) -> np.ndarray:
    """Gives the vector of a voice with a latent (cue,): (64,) float32."""
    return _embed(voice[None], "audio", _person("audio", person_id, seed), seed, rng)[0]


def text_feature(sentence: Sentence, seed: int) -> np.ndarray:
    """Gives the vector of a sentence: (48,) float32, equal for equal sentences."""
    shares = np.array(SHARES)
    counts = np.bincount(sentence.groups, minlength=len(EMOTIONS))
    latent = (counts - NUM_PHRASES * shares) / np.sqrt(NUM_PHRASES * shares * (1 - shares))
    rng = np.random.default_rng([seed, 10, *sentence.groups, *sentence.choices])
    return _embed(latent[None], "text", np.zeros(_NUM_PERSON), seed, rng)[0]


def video_features(
    face: np.ndarray, person_id: int, num_frames: int, seed: int, rng: np.random.Generator
) -> np.ndarray:
    """Gives one row a picture of a face with a latent (cue,): (frame, 32) float32; the mean over time is the clip's."""
    steady = np.tile(face, (num_frames, 1))
    return _embed(steady, "video", _person("video", person_id, seed), seed, rng)


def _person(kind: str, person_id: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, 9, _KINDS.index(kind), person_id]).standard_normal(_NUM_PERSON)


def _embed(latents: np.ndarray, kind: str, person: np.ndarray, seed: int, rng: np.random.Generator) -> np.ndarray:
    """(row, latent) to (row, width) float32; a part of the clip's numbers differs from row to row."""
    num_rows, num_latent = latents.shape
    width = FEATURE_WIDTHS[f"made-up-{kind}-UTT"]
    num_inputs = num_latent + _NUM_PERSON + _NUM_CLIP
    mixing = np.random.default_rng([seed, 8, _KINDS.index(kind)]).standard_normal((width, num_inputs))
    clip = rng.standard_normal(_NUM_CLIP) + 0.5 * (num_rows > 1) * rng.standard_normal((num_rows, _NUM_CLIP))
    inputs = np.concatenate([latents, np.tile(person, (num_rows, 1)), clip], axis=1)
    rows = inputs @ mixing.T / np.sqrt(num_inputs) + _NOISE * rng.standard_normal((num_rows, width))
    return rows.astype(np.float32)
