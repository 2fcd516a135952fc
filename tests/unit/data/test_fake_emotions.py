"""Latents of made-up faces and voices, and how well anybody could do on them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from mersuite.data import fake_bayes, fake_emotions
from mersuite.data.fake_emotions import EMOTIONS, MODALITIES, SHARES


@pytest.fixture(scope="module")
def scores() -> dict[str, dict[str, float | str]]:
    return fake_bayes.clip_scores(1.0, 0.5, 0)


def accuracy(scores: dict[str, dict[str, float | str]], name: str) -> float:
    return float(scores[name]["acc"])


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("snr", [0.0, 1.0, 4.0])
def test_latents_have_unit_variance_at_every_snr(modality: str, snr: float) -> None:
    rng = np.random.default_rng(0)
    latents = fake_emotions.draw_latent(rng, modality, fake_emotions.draw_emotions(rng, 20_000), snr)
    np.testing.assert_allclose(latents.mean(axis=0), 0, atol=0.03)
    np.testing.assert_allclose(latents.var(axis=0), 1, atol=0.05)


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("snr", [0.5, 4.0])
def test_snr_is_the_variance_between_emotions_over_that_within(modality: str, snr: float) -> None:
    rng = np.random.default_rng(1)
    emotions = fake_emotions.draw_emotions(rng, 40_000)
    latents = fake_emotions.draw_latent(rng, modality, emotions, snr)
    within = latents - np.stack([latents[emotions == k].mean(axis=0) for k in range(6)])[emotions]
    between = latents.var(axis=0) - within.var(axis=0)
    np.testing.assert_allclose(between / within.var(axis=0), snr, rtol=0.06)


def test_emotions_lie_apart() -> None:
    for modality in MODALITIES:
        places = fake_emotions.places(modality)
        distances = np.linalg.norm(places[:, None] - places, axis=2) + 9 * np.eye(len(EMOTIONS))
        assert distances.min() > 1.0


@pytest.mark.parametrize("modality", MODALITIES)
def test_likelihood_is_that_of_the_gaussian(modality: str) -> None:
    latents, snr = np.random.default_rng(2).standard_normal((5, 4)), 2.0
    middles = np.sqrt(snr / (1 + snr)) * fake_emotions.places(modality)
    reference = np.stack([multivariate_normal(middle, np.eye(4) / (1 + snr)).logpdf(latents) for middle in middles], 1)
    ours = fake_emotions.latent_log_likelihood(latents, modality, snr)
    np.testing.assert_allclose(ours - ours[:, :1], reference - reference[:, :1], atol=1e-10)


def test_partner_probabilities_are_what_catch_draws() -> None:
    rng = np.random.default_rng(3)
    emotions = fake_emotions.draw_emotions(rng, 60_000)
    partners = fake_emotions.catch(rng, emotions, 0.4)
    counts = np.zeros((6, 6))
    np.add.at(counts, (emotions, partners), 1)
    np.testing.assert_allclose(
        counts / counts.sum(axis=1, keepdims=True), fake_emotions.partner_probabilities(0.4), atol=0.03
    )


def test_stratified_emotions_follow_the_shares_and_keep_the_least_count() -> None:
    rng = np.random.default_rng(4)
    assert np.bincount(fake_emotions.stratified_emotions(rng, 1000, 2)).tolist() == [260, 200, 180, 140, 120, 100]
    assert np.bincount(fake_emotions.stratified_emotions(rng, 13, 2)).min() == 2
    orders = {tuple(fake_emotions.stratified_emotions(rng, 12, 2)) for _ in range(20)}
    assert len(orders) > 15


# ---- optimal scores


def test_scores_agree_with_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score

    rng = np.random.default_rng(5)
    truth, answer = rng.integers(6, size=300), rng.integers(5, size=300)  # one class is never answered
    confusion = np.zeros((6, 6))
    np.add.at(confusion, (truth, answer), 1)
    ours = fake_bayes.scores(confusion)
    assert ours["waf"] == pytest.approx(f1_score(truth, answer, average="weighted"), abs=1e-12)
    assert ours["acc"] == pytest.approx(accuracy_score(truth, answer), abs=1e-12)


@pytest.mark.parametrize("modality", MODALITIES)
def test_optimum_of_one_modality_is_that_of_a_fitted_discriminant(
    modality: str, scores: dict[str, dict[str, float | str]]
) -> None:
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rng = np.random.default_rng(6)
    emotions = fake_emotions.draw_emotions(rng, 40_000)
    latents = fake_emotions.draw_latent(rng, modality, emotions, 1.0)
    fitted = LinearDiscriminantAnalysis().fit(latents[:20_000], emotions[:20_000])
    found = fitted.score(latents[20_000:], emotions[20_000:])
    assert accuracy(scores, f"own_{modality}") == pytest.approx(found, abs=0.015)


def test_more_knowledge_is_never_worse(scores: dict[str, dict[str, float | str]]) -> None:
    order = {
        "own_all": ("own_face", "own_voice", "own_words"),
        "listener_all": ("listener_face", "listener_from_speaker", "mixed_as_own", "speaker_as_listener"),
        "own_words": ("majority",),
        "listener_face": ("majority",),
    }
    for better, others in order.items():
        for other in others:
            assert accuracy(scores, better) > accuracy(scores, other) + 0.03


def test_what_holds_of_own_clips_misleads_on_candidates(scores: dict[str, dict[str, float | str]]) -> None:
    assert accuracy(scores, "own_all") > accuracy(scores, "listener_all")
    assert (
        accuracy(scores, "listener_face") > accuracy(scores, "mixed_as_own") > accuracy(scores, "speaker_as_listener")
    )


def test_listener_is_as_readable_as_an_own_face(scores: dict[str, dict[str, float | str]]) -> None:
    assert accuracy(scores, "listener_face") == pytest.approx(accuracy(scores, "own_face"), abs=0.01)


def test_full_contagion_makes_speaker_and_listener_one() -> None:
    scores = fake_bayes.clip_scores(1.0, 1.0, 0)
    assert accuracy(scores, "speaker_as_listener") == pytest.approx(accuracy(scores, "own_all"), abs=0.01)


def test_without_contagion_the_speaker_tells_nothing() -> None:
    scores = fake_bayes.clip_scores(1.0, 0.0, 0)
    assert accuracy(scores, "listener_from_speaker") == pytest.approx(max(SHARES), abs=0.01)
    assert accuracy(scores, "listener_all") == pytest.approx(accuracy(scores, "listener_face"), abs=0.003)


def test_without_snr_nothing_beats_the_majority() -> None:
    scores = fake_bayes.clip_scores(0.0, 0.5, 0)
    assert {round(accuracy(scores, name), 4) for name in scores} <= {
        round(accuracy(scores, "majority"), 4),
        round(accuracy(scores, "own_all"), 4),
    }
    assert accuracy(scores, "own_all") == pytest.approx(max(SHARES), abs=0.01)


def test_a_very_high_snr_stays_finite() -> None:
    scores = fake_bayes.clip_scores(1e6, 0.5, 0)
    assert accuracy(scores, "listener_all") == accuracy(scores, "own_words") == 1.0
