"""Words of made-up clips: what they tell follows the stated probabilities, in both languages alike."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mersuite.data import fake_subtitles
from mersuite.data.fake_emotions import EMOTIONS, SHARES


@pytest.mark.parametrize("snr", [0.0, 1.0, 4.0])
def test_phrases_come_from_the_groups_with_the_stated_probabilities(snr: float) -> None:
    rng = np.random.default_rng(0)
    for emotion in range(len(EMOTIONS)):
        groups = fake_subtitles.draw_groups(rng, np.full(8000, emotion), snr)
        shares = np.bincount(groups.ravel(), minlength=6) / groups.size
        np.testing.assert_allclose(shares, fake_subtitles.group_probabilities(snr)[emotion], atol=0.02)


def test_probabilities_are_the_formula_of_the_module() -> None:
    probabilities = fake_subtitles.group_probabilities(2.0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    assert probabilities[3, 3] == pytest.approx(0.5 * SHARES[3] + 0.5)
    assert probabilities[3, 0] == pytest.approx(0.5 * SHARES[0])
    np.testing.assert_allclose(fake_subtitles.group_probabilities(0.0), np.tile(SHARES, (6, 1)))


def test_likelihoods_of_all_sentences_sum_to_one() -> None:
    combinations = np.array(list(itertools.product(range(6), repeat=fake_subtitles.NUM_PHRASES)))
    likelihood = np.exp(fake_subtitles.groups_log_likelihood(combinations, 1.5))
    np.testing.assert_allclose(likelihood.sum(axis=0), 1)


def test_a_sentence_says_its_groups_in_both_languages() -> None:
    rng = np.random.default_rng(1)
    for emotion in range(6):
        sentence = fake_subtitles.draw_sentence(rng, emotion, 4.0)
        chinese, english = sentence.chinese.rstrip("。").split("，"), sentence.english.rstrip(".").split(", ")
        told = [(chinese[place], english[place]) for place in (0, 2, 3)]
        for phrase, column, group in zip(told, fake_subtitles._COLUMNS, sentence.groups, strict=True):
            assert phrase in column[EMOTIONS[group]]
        assert (chinese[1], english[1]) in fake_subtitles._STATEMENTS


@pytest.mark.parametrize("language", [0, 1])
def test_no_phrase_is_in_two_groups(language: int) -> None:
    phrases = [pair[language] for column in fake_subtitles._COLUMNS for group in column.values() for pair in group]
    phrases += [pair[language] for pair in fake_subtitles._STATEMENTS]
    assert len(set(phrases)) == len(phrases)
    assert not any(mark in phrase for phrase in phrases for mark in ",.，。")


@pytest.mark.parametrize("language", ["chinese", "english"])
def test_n_grams_of_the_words_tell_the_emotion_only_with_snr(language: str) -> None:
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    found = {}
    for snr in (0.0, 4.0):
        rng = np.random.default_rng(2)
        emotions = rng.choice(6, size=900, p=SHARES)
        texts = [getattr(fake_subtitles.draw_sentence(rng, int(emotion), snr), language) for emotion in emotions]
        counts = HashingVectorizer(analyzer="char", ngram_range=(1, 2), n_features=1024).transform(texts)
        fitted = LogisticRegression(max_iter=300, C=10.0).fit(counts[:500], emotions[:500])
        found[snr] = fitted.score(counts[500:], emotions[500:])
    assert found[4.0] > 0.7  # 0.86 is optimal
    assert found[0.0] < max(SHARES) + 4 * np.sqrt(0.25 * 0.75 / 400)
