"""Made-up voices sound as their cues say, by measurements that know nothing of how they were made."""

from __future__ import annotations

import numpy as np
import pytest

from mersuite.data import fake_voices
from mersuite.data.fake_voices import VOICE_RATE_HZ, Voice, VoiceCues, make_voice, voice_cues
from mersuite.signal import speech


def voice_of(latent: tuple[float, ...], seconds: float = 3.0, seed: int = 0) -> tuple[VoiceCues, Voice]:
    cues = voice_cues(np.array(latent))
    return cues, make_voice(cues, 1.0, round(seconds * VOICE_RATE_HZ), np.random.default_rng(seed))


def unit(voice: Voice) -> np.ndarray:
    return voice.samples.astype(np.float32) / 32768


@pytest.mark.parametrize("pitch", [-3.0, -1.0, 0.0, 1.0, 3.0])
def test_pitch_is_the_intended_one(pitch: float) -> None:
    cues, voice = voice_of((pitch, 0.0, 0.0, 0.0))
    measured = speech.pitch(unit(voice), VOICE_RATE_HZ)
    assert np.median(measured.f0_hz[measured.voiced]) == pytest.approx(cues.pitch_hz, rel=0.04)


@pytest.mark.parametrize("loudness", [-3.0, 0.0, 3.0])
def test_loudness_is_the_intended_one(loudness: float) -> None:
    cues, voice = voice_of((0.0, loudness, 0.0, 0.0))
    speaks = voice.opening > 0
    power = np.mean(unit(voice)[speaks].astype(np.float64) ** 2)
    assert 10 * np.log10(power) == pytest.approx(cues.loudness_db, abs=0.1)
    assert np.abs(voice.samples.astype(int)).max() < 32767  # nothing is cut off


@pytest.mark.parametrize("rate", [-3.0, -1.0, 1.0, 3.0])
def test_syllables_a_second_are_the_intended_ones(rate: float) -> None:
    cues, voice = voice_of((0.0, 0.0, rate, 0.0), seconds=6.0)
    assert voice.rate_hz == pytest.approx(cues.rate_hz)
    sound = unit(voice)
    level = speech.loudness_db(sound, VOICE_RATE_HZ)
    speaks = speech.find_speech(level)
    syllables = speech.find_syllables(level, speaks, speech.pitch(sound, VOICE_RATE_HZ).voiced)
    lasts_s = np.mean(voice.opening > 0) * 6.0
    assert len(syllables) / lasts_s == pytest.approx(cues.rate_hz, rel=0.06)


@pytest.mark.parametrize("pauses", [-1.0, 1.0, 3.0])
def test_pauses_take_the_intended_share(pauses: float) -> None:
    cues, voice = voice_of((0.0, 0.0, 0.0, pauses))
    spoken = np.flatnonzero(voice.opening > 0.01)
    total_s = (spoken[-1] - spoken[0]) / VOICE_RATE_HZ
    level = speech.loudness_db(unit(voice), VOICE_RATE_HZ)
    found_s = speech.find_pauses(speech.find_speech(level)).durations_s.sum()
    assert found_s / total_s == pytest.approx(cues.pause_share, abs=0.04)


def test_cues_rise_with_the_latent_and_stop_at_three() -> None:
    middle, high, higher = (voice_cues(np.full(4, value)) for value in (0.0, 3.0, 9.0))
    assert high == higher
    for name in ("pitch_hz", "loudness_db", "rate_hz", "pause_share"):
        assert getattr(high, name) > getattr(middle, name)


def test_silent_mouth_is_shut_and_the_room_is_heard() -> None:
    _, voice = voice_of((0.0, 0.0, 0.0, 2.0))
    quiet = unit(voice)[voice.opening == 0]
    assert 10 * np.log10(np.mean(quiet.astype(np.float64) ** 2)) == pytest.approx(fake_voices.ROOM_DB, abs=1)
    assert 0.0 <= voice.opening.min() < voice.opening.max() <= 1.0


def test_a_second_of_the_slowest_speech_still_holds_two_syllables() -> None:
    for seed in range(20):
        cues, voice = voice_of((0.0, 0.0, -3.0, 3.0), seconds=1.0, seed=seed)
        assert voice.samples.shape == voice.opening.shape == (VOICE_RATE_HZ,)
        assert voice.rate_hz > cues.rate_hz


def test_mean_over_frames_is_that_of_each_picture() -> None:
    course = np.repeat([0.0, 1.0, 0.5], 1280)
    np.testing.assert_allclose(fake_voices.mean_over_frames(course, 3), [0.0, 1.0, 0.5])
    np.testing.assert_allclose(fake_voices.mean_over_frames(np.arange(7.0), 2), [1.5, 5.0])


def test_the_same_source_gives_the_same_voice_and_another_one_another() -> None:
    first, again, other = (voice_of((0.0, 0.0, 0.0, 0.0), seed=seed)[1].samples for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
