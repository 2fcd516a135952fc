import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.signal

from mersuite.signal import speech

sounds = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "features" / "synthetic_speech.py")))
RATE_HZ = sounds.RATE_HZ
SNRS = pytest.mark.parametrize("snr_db", [None, 20], ids=["clean", "20 dB"])


def maybe_noisy(sound: np.ndarray, snr_db: float | None) -> np.ndarray:
    return sound if snr_db is None else sounds.with_noise(sound, snr_db)


def measured(sound: np.ndarray) -> tuple[np.ndarray, np.ndarray, speech.Pitch]:
    level = speech.loudness_db(sound, RATE_HZ)
    return level, speech.find_speech(level), speech.pitch(sound, RATE_HZ)


# ---- pitch


@SNRS
@pytest.mark.parametrize("f0_hz", [80, 97.3, 120, 155.5, 200, 263, 333, 400])
def test_pitch_is_within_1_percent(f0_hz, snr_db):
    found = speech.pitch(maybe_noisy(sounds.voice(f0_hz, 2.0), snr_db), RATE_HZ)
    assert found.voiced.mean() > 0.95
    assert found.f0_hz[found.voiced].mean() == pytest.approx(f0_hz, rel=0.01)
    assert np.abs(found.f0_hz[found.voiced] / f0_hz - 1).max() < 0.01  # no frame an octave off


@SNRS
@pytest.mark.parametrize("f0_hz", [80, 150, 240, 400])
def test_mean_pitch_of_a_vibrato_is_within_1_percent(f0_hz, snr_db):
    sound = maybe_noisy(sounds.voice(sounds.vibrato(f0_hz, 2.0), 2.0), snr_db)
    found = speech.pitch(sound, RATE_HZ)
    assert found.voiced.mean() > 0.95
    assert found.f0_hz[found.voiced].mean() == pytest.approx(f0_hz, rel=0.01)


def test_a_gliding_pitch_is_followed_in_time():
    curve = np.geomspace(100, 300, 2 * RATE_HZ)
    found = speech.pitch(sounds.voice(curve, 2.0), RATE_HZ)
    truth = curve.reshape(200, 160).mean(axis=1)
    np.testing.assert_allclose(found.f0_hz[5:-5], truth[5:-5], rtol=0.01)


def test_a_voice_without_its_fundamental_keeps_its_pitch():
    sound = sum(np.sin(2 * np.pi * k * 110 * sounds.times(1.0)) for k in (2, 3, 4, 5))
    found = speech.pitch(0.1 * sound, RATE_HZ)
    assert np.median(found.f0_hz[found.voiced]) == pytest.approx(110, rel=0.01)


def test_a_strong_second_harmonic_does_not_double_the_pitch():
    seconds = sounds.times(1.0)
    sound = np.sin(2 * np.pi * 120 * seconds) + 1.5 * np.sin(2 * np.pi * 240 * seconds)
    found = speech.pitch(0.1 * sound, RATE_HZ)
    np.testing.assert_allclose(found.f0_hz[found.voiced], 120, rtol=0.01)


@pytest.mark.parametrize("level_db", [-20, -60])
def test_white_noise_is_unvoiced(level_db, rng):
    noise = sounds.at_level(rng.standard_normal(3 * RATE_HZ), level_db)
    assert not speech.pitch(noise, RATE_HZ).voiced.any()


def test_silence_is_unvoiced_and_finite():
    found = speech.pitch(np.zeros(RATE_HZ, np.float32), RATE_HZ)
    assert not found.voiced.any()
    assert np.isfinite(found.f0_hz).all()
    assert np.isfinite(found.aperiodicity).all()


def test_a_constant_offset_does_not_change_the_pitch():
    sound = sounds.voice(140, 1.0)
    plain, offset = speech.pitch(sound, RATE_HZ), speech.pitch(sound + 0.3, RATE_HZ)
    both = plain.voiced & offset.voiced
    assert both.mean() > 0.9
    np.testing.assert_allclose(offset.f0_hz[both], plain.f0_hz[both], rtol=1e-3)


def test_voiced_frames_are_where_the_voice_is(rng):
    sound = sounds.at_level(rng.standard_normal(3 * RATE_HZ), -30)
    sound[RATE_HZ : 2 * RATE_HZ] = sounds.voice(180, 1.0)
    voiced = speech.pitch(sound, RATE_HZ).voiced
    assert voiced[102:198].all()
    assert not voiced[:97].any()
    assert not voiced[203:].any()


def test_blocks_do_not_change_a_pitch(monkeypatch):
    sound = sounds.with_noise(sounds.voice(170, 1.0), 20)
    whole = speech.pitch(sound, RATE_HZ)
    monkeypatch.setattr(speech, "BLOCK_FRAMES", 7)
    np.testing.assert_allclose(speech.pitch(sound, RATE_HZ).f0_hz, whole.f0_hz, rtol=1e-4)


def test_difference_function_is_equation_6_of_yin(rng):
    frame = rng.standard_normal((1, 700)).astype(np.float32)
    wanted = [np.sum((frame[0, :400] - frame[0, lag : lag + 400]) ** 2) for lag in range(300)]
    energies = np.array([[np.sum(frame[0, lag : lag + 400].astype(float) ** 2) for lag in range(300)]])
    np.testing.assert_allclose(speech._difference(frame, energies, 400)[0], wanted, rtol=1e-3, atol=1e-3)


def test_pitches_out_of_reach_are_refused():
    with pytest.raises(ValueError, match="need 0 < low_hz < high_hz <= 4000, got low_hz=500 and high_hz=60"):
        speech.pitch(np.zeros(1600), RATE_HZ, low_hz=500, high_hz=60)


# ---- loudness


def test_loudness_follows_level_within_half_a_db():
    levels = [-50.0, -40.0, -26.0, -20.0]
    found = [np.median(speech.loudness_db(sounds.voice(150, 1.0, level_db=level), RATE_HZ)) for level in levels]
    np.testing.assert_allclose(np.diff(found), np.diff(levels), atol=0.5)


@pytest.mark.parametrize("freq_hz", [60, 100, 250, 2000, 5000])
def test_loudness_of_tones_differs_by_their_weighting(freq_hz):
    tones = [np.sin(2 * np.pi * freq * sounds.times(1.0)) for freq in (freq_hz, 997)]
    low, middle = (np.median(speech.loudness_db(0.1 * tone, RATE_HZ)) for tone in tones)
    assert low - middle == pytest.approx(float(speech.k_weighting_db(np.array([freq_hz]))[0]), abs=0.5)


def test_loudness_is_that_of_the_standards_filters_at_48_khz(rng):
    sound = sounds.at_level(scipy.signal.resample_poly(rng.standard_normal(RATE_HZ * 4), 3, 1), -23.0)
    weighted = sound.astype(np.float64)
    for above, below in (speech._SHELF, speech._HIGH_PASS):
        weighted = scipy.signal.lfilter(above, below, weighted)
    wanted = 10 * np.log10(np.mean(weighted**2)) - 0.691
    power = 10 ** (speech.loudness_db(sound, 48_000) / 10)
    assert 10 * np.log10(power.mean()) == pytest.approx(wanted, abs=0.05)


def test_a_full_scale_tone_at_997_hz_has_minus_3_db():
    tone = np.sin(2 * np.pi * 997 * sounds.times(1.0))
    assert np.median(speech.loudness_db(tone, RATE_HZ)) == pytest.approx(-3.01, abs=0.02)


def test_loudness_of_silence_is_the_floor():
    assert (speech.loudness_db(np.zeros(RATE_HZ), RATE_HZ) == speech.FLOOR_DB).all()
    assert speech.loudness_db(np.zeros(100), RATE_HZ).shape == (0,)


# ---- speaking rate


@SNRS
@pytest.mark.parametrize("per_s", [2, 2.5, 3, 4, 5, 6, 7, 8])
def test_speaking_rate_is_within_10_percent(per_s, snr_db):
    level, is_speech, pitch = measured(maybe_noisy(sounds.bursts(per_s, 4.0), snr_db))
    rate = len(speech.find_syllables(level, is_speech, pitch.voiced)) / 4.0
    assert rate == pytest.approx(per_s, rel=0.1)


def test_a_steady_voice_is_one_syllable():
    level, is_speech, pitch = measured(sounds.voice(150, 3.0))
    assert len(speech.find_syllables(level, is_speech, pitch.voiced)) == 1


def test_bursts_of_noise_are_no_syllables(rng):
    noise = sounds.at_level(rng.standard_normal(4 * RATE_HZ), -26) * np.sin(np.pi * 4 * sounds.times(4.0)) ** 2
    level, is_speech, pitch = measured(noise.astype(np.float32))
    assert len(speech.find_syllables(level, is_speech, pitch.voiced)) == 0


def test_syllables_lie_at_their_peaks():
    level, is_speech, pitch = measured(sounds.bursts(3, 4.0))
    peaks_s = (speech.find_syllables(level, is_speech, pitch.voiced) + 0.5) / 100
    np.testing.assert_allclose(peaks_s, (np.arange(12) + 0.5) / 3, atol=0.03)


# ---- pauses


@SNRS
@pytest.mark.parametrize("f0_hz", [80, 140, 300])
@pytest.mark.parametrize("durations_s", [[0.2], [0.5, 0.2], [0.2, 0.25, 0.3, 0.4, 0.9]], ids=str)
def test_pauses_are_counted_and_their_length_is_within_60_ms(f0_hz, snr_db, durations_s):
    ends_s = np.cumsum(np.array(durations_s) + 0.437)
    starts_s = list(ends_s - durations_s)
    sound = sounds.with_gaps(sounds.voice(f0_hz, float(ends_s[-1]) + 0.4), starts_s, durations_s)
    _, is_speech, _ = measured(maybe_noisy(sound, snr_db))
    pauses = speech.find_pauses(is_speech)
    assert len(pauses.durations_s) == len(durations_s)
    assert pauses.durations_s.sum() == pytest.approx(sum(durations_s), abs=0.06)
    np.testing.assert_allclose(pauses.starts_s, starts_s, atol=0.03)


def test_silence_at_either_end_is_no_pause():
    sound = np.concatenate((np.zeros(RATE_HZ), sounds.voice(150, 1.0), np.zeros(RATE_HZ)))
    _, is_speech, _ = measured(sound)
    assert len(speech.find_pauses(is_speech).starts_s) == 0
    assert is_speech.mean() == pytest.approx(1 / 3, abs=0.02)


@pytest.mark.parametrize("sound", [np.zeros(RATE_HZ), np.full(RATE_HZ, 1e-5), np.zeros(0)], ids=["zero", "dc", "none"])
def test_silence_has_neither_speech_nor_pauses(sound):
    level, is_speech, pitch = measured(sound)
    assert not is_speech.any()
    assert len(speech.find_pauses(is_speech).starts_s) == 0
    assert len(speech.find_syllables(level, is_speech, pitch.voiced)) == 0


def test_steady_noise_has_no_pause(rng):
    _, is_speech, _ = measured(sounds.at_level(rng.standard_normal(3 * RATE_HZ), -30))
    assert len(speech.find_pauses(is_speech).starts_s) == 0


def test_a_click_does_not_divide_a_pause():
    sound = sounds.with_gaps(sounds.voice(150, 3.0), [1.0], [1.0])
    sound[24_000:24_160] = 0.05
    _, is_speech, _ = measured(sound)
    assert len(speech.find_pauses(is_speech).durations_s) == 1
