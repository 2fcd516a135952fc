"""Made-up features carry the effect: readable on clips not trained on, misleading on candidates, nothing at snr=0."""

from __future__ import annotations

import io

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from mersuite.data import fake_bayes, fake_clip_files, fake_features
from mersuite.data.fake_clips import ClipsConfig, FakeClip, draw_clips
from mersuite.data.fake_emotions import SHARES

OWN = ("made-up-audio-UTT", "made-up-text-UTT", "made-up-video-UTT")
NUM_CLIPS = 600


def vector(config: ClipsConfig, clip: FakeClip, model: str) -> np.ndarray:
    stream = io.BytesIO()
    fake_clip_files.clip_files(config, clip)[f"features/{model}/{clip.name}.npy"](stream)
    stream.seek(0)
    values: np.ndarray = np.load(stream)
    return values


def table(config: ClipsConfig, clips: tuple[FakeClip, ...], models: tuple[str, ...]) -> np.ndarray:
    return np.array([np.concatenate([vector(config, clip, model) for model in models]) for clip in clips])


def targets(clips: tuple[FakeClip, ...]) -> list[str]:
    return [clip.target for clip in clips]


def discriminant() -> LinearDiscriminantAnalysis:
    return LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.02)


@pytest.mark.parametrize(("model", "system"), list(zip(OWN, ("own_voice", "own_words", "own_face"), strict=True)))
def test_a_linear_model_on_own_clips_comes_near_the_optimum(model: str, system: str) -> None:
    config = ClipsConfig(num_clips=NUM_CLIPS, snr=4.0)
    clips = draw_clips(config).train
    values = table(config, clips, (model,))
    found = discriminant().fit(values[:250], targets(clips)[:250]).score(values[250:], targets(clips)[250:])
    optimum = float(fake_bayes.clip_scores(4.0, config.contagion, 0)[system]["acc"])
    assert optimum - 0.15 < found < optimum + 4 * np.sqrt(0.25 / 150)


def test_voice_and_words_of_the_speaker_mislead_on_candidates_and_the_listeners_face_does_not() -> None:
    config = ClipsConfig(num_clips=NUM_CLIPS, snr=4.0)
    drawn = draw_clips(config)
    truth = targets(drawn.candidates)

    def transfer(own: tuple[str, ...], other: tuple[str, ...]) -> float:
        fitted = discriminant().fit(table(config, drawn.train, own), targets(drawn.train))
        return float(fitted.score(table(config, drawn.candidates, other), truth))

    listener = transfer(("made-up-video-UTT",), ("made-up-video-listener-UTT",))
    naive = transfer(OWN, OWN)
    assert listener > 0.85
    assert naive < listener - 0.15
    expected = float(fake_bayes.clip_scores(4.0, config.contagion, 0)["speaker_as_listener"]["acc"])
    assert naive == pytest.approx(expected, abs=4 * np.sqrt(0.25 / 200))


@pytest.mark.parametrize("model", OWN)
def test_without_snr_no_model_beats_chance(model: str) -> None:
    hits: list[bool] = []
    for seed in range(4):
        config = ClipsConfig(num_clips=240, snr=0.0, seed=seed)
        clips = draw_clips(config).train
        values, truth = table(config, clips, (model,)), np.array(targets(clips))
        answers = discriminant().fit(values[:80], truth[:80]).predict(values[80:])
        hits += (answers == truth[80:]).tolist()
    # Whatever is answered, each answer is right with at most the largest share.
    assert np.mean(hits) < max(SHARES) + 4 * np.sqrt(0.25 * 0.75 / len(hits))


def test_equal_sentences_have_equal_features() -> None:
    config = ClipsConfig(num_clips=NUM_CLIPS, snr=0.0)
    clips = draw_clips(config).clips
    one, other = clips[0].sentence, clips[1].sentence
    assert one != other
    assert np.array_equal(fake_features.text_feature(one, 0), fake_features.text_feature(one, 0))
    assert not np.array_equal(fake_features.text_feature(one, 0), fake_features.text_feature(other, 0))


def test_the_listeners_features_are_those_of_the_same_encoder() -> None:
    config = ClipsConfig(num_clips=NUM_CLIPS, snr=4.0)
    drawn = draw_clips(config)
    own, other = (
        table(config, clips, (model,))
        for clips, model in ((drawn.train, "made-up-video-UTT"), (drawn.candidates, "made-up-video-listener-UTT"))
    )
    weights = np.linalg.lstsq(own, np.array([clip.speaker.face for clip in drawn.train]), rcond=None)[0]
    faces = np.array([clip.listener.face for clip in drawn.candidates if clip.listener])
    for cue in range(4):
        assert np.corrcoef(other @ weights[:, cue], faces[:, cue])[0, 1] > 0.95
