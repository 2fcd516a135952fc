import numpy as np

from mersuite.faces.sound import voice_of
from tests.unit.faces.composited import SOUND_HZ, speech

TIMES_S = np.arange(75) / 25.0


def tone(hertz: float, loud: np.ndarray) -> np.ndarray:
    return 0.3 * loud * np.sin(2 * np.pi * hertz * np.arange(len(loud)) / SOUND_HZ)


def gate(first_s: float, last_s: float) -> np.ndarray:
    times_s = np.arange(3 * SOUND_HZ) / SOUND_HZ
    return ((times_s >= first_s) & (times_s < last_s)).astype(float)


def test_level_is_one_while_a_voice_sounds_and_zero_in_silence():
    voice = voice_of(tone(200, gate(1.0, 2.0)), SOUND_HZ, TIMES_S)
    assert np.abs(voice.level[(TIMES_S > 1.1) & (TIMES_S < 1.9)] - 1).max() < 0.02
    assert voice.level[(TIMES_S < 0.9) | (TIMES_S > 2.1)].max() < 0.05
    np.testing.assert_array_equal(voice.active, (TIMES_S > 0.98) & (TIMES_S < 2.02))


def test_drive_jumps_where_the_voice_begins():
    voice = voice_of(tone(200, gate(1.0, 2.0)), SOUND_HZ, TIMES_S)
    assert abs(TIMES_S[np.argmax(voice.drive)] - 1.0) < 0.08 or abs(TIMES_S[np.argmax(voice.drive)] - 2.0) < 0.08


def test_rumble_below_the_voice_does_not_count():
    rumble = voice_of(tone(200, gate(1.0, 2.0)) + tone(20, gate(0.0, 3.0)), SOUND_HZ, TIMES_S)
    clean = voice_of(tone(200, gate(1.0, 2.0)), SOUND_HZ, TIMES_S)
    np.testing.assert_array_equal(rumble.active, clean.active)


def test_loudness_does_not_change_what_is_measured(rng: np.random.Generator):
    sound = speech(rng, 3.0, 25.0).sound
    loud, soft = (voice_of(gain * sound, SOUND_HZ, TIMES_S) for gain in (1.0, 0.1))
    np.testing.assert_allclose(loud.drive, soft.drive, atol=1e-6)


def test_silence_and_too_little_sound_are_silent():
    for sound in (np.zeros(3 * SOUND_HZ), np.full(3 * SOUND_HZ, 0.2), np.zeros(10)):
        assert voice_of(sound, SOUND_HZ, TIMES_S).is_silent


def test_frames_after_the_end_of_the_sound_are_silent():
    voice = voice_of(tone(200, gate(0.0, 3.0))[: 2 * SOUND_HZ], SOUND_HZ, TIMES_S)
    assert voice.active[TIMES_S < 1.9].all()
    assert not voice.active[TIMES_S > 2.1].any()
