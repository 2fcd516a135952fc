"""How well anybody could do on made-up clips: optimal scores of each system, by Monte Carlo over the known effect."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mersuite.data import fake_emotions, fake_subtitles
from mersuite.data.fake_emotions import EMOTIONS, SHARES

_NUM_DRAWS = 100_000


def scores(confusion: np.ndarray) -> dict[str, float]:
    """Gives WAF and accuracy of a confusion matrix.

    Args:
        confusion: (truth, answer) counts or probabilities.

    Returns:
        "waf", the mean of the classes' F1 weighted by how often a class is the truth, and "acc".
    """
    hits, truths, answers = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    f1 = 2 * hits / np.maximum(truths + answers, 1e-300)
    total = confusion.sum()
    return {"waf": float((truths * f1).sum() / total), "acc": float(hits.sum() / total)}


def clip_scores(snr: float, contagion: float, seed: int) -> dict[str, dict[str, float | str]]:
    """Gives the optimal scores on new clips.

    Every system answers the most probable emotion given what it knows; it knows the effect exactly. That is optimal for
    the accuracy; a system that aims at WAF may have a slightly better WAF. Cues beyond three standard deviations, which
    faces and voices show as three, and errors of measurement are left out.

    Returns:
        System name to {"waf", "acc", "how"}.
    """
    rng = np.random.default_rng([seed, 6])
    listener = fake_emotions.draw_emotions(rng, _NUM_DRAWS)
    speaker = fake_emotions.catch(rng, listener, contagion)
    # What is known of the speaker also serves for the own clips, where the labelled person is the speaker.
    face, voice = (
        fake_emotions.latent_log_likelihood(fake_emotions.draw_latent(rng, modality, speaker, snr), modality, snr)
        for modality in ("face", "voice")
    )
    words = fake_subtitles.groups_log_likelihood(fake_subtitles.draw_groups(rng, speaker, snr), snr)
    seen = fake_emotions.draw_latent(rng, "face", listener, snr)
    listener_face = fake_emotions.latent_log_likelihood(seen, "face", snr)
    prior = np.log(SHARES)
    of_speaker = face + voice + words
    likeliest = of_speaker.max(axis=1, keepdims=True)  # so that no exponential underflows for all
    from_speaker = likeliest + np.log(
        np.exp(of_speaker - likeliest) @ fake_emotions.partner_probabilities(contagion).T + 1e-300
    )
    systems: Mapping[str, tuple[np.ndarray, np.ndarray, str]] = {
        "majority": (listener, np.tile(prior, (_NUM_DRAWS, 1)), "the most frequent emotion, for everybody"),
        "own_all": (speaker, prior + of_speaker, "own clips: face, voice and words of the labelled person"),
        "own_face": (speaker, prior + face, "own clips: the face alone"),
        "own_voice": (speaker, prior + voice, "own clips: the voice alone"),
        "own_words": (speaker, prior + words, "own clips: the words alone"),
        "listener_face": (listener, prior + listener_face, "candidates: the listener's face alone"),
        "listener_all": (
            listener,
            prior + listener_face + from_speaker,
            "candidates: the listener's face and all of the speaker, with the contagion known",
        ),
        "listener_from_speaker": (
            listener,
            prior + from_speaker,
            "candidates: all of the speaker with the contagion known, nothing of the listener",
        ),
        "speaker_as_listener": (
            listener,
            prior + of_speaker,
            "candidates: the speaker's face, voice and words taken for the listener's",
        ),
        "mixed_as_own": (
            listener,
            prior + listener_face + voice + words,
            "candidates: the listener's face, with the speaker's voice and words taken for the listener's",
        ),
    }
    return {
        name: {**scores(_confusion(truth, posterior.argmax(axis=1))), "how": how}
        for name, (truth, posterior, how) in systems.items()
    }


def _confusion(truth: np.ndarray, answer: np.ndarray) -> np.ndarray:
    num = len(EMOTIONS)
    counts: np.ndarray = np.bincount(truth * num + answer, minlength=num * num).reshape(num, num)
    return counts
