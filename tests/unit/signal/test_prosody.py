import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mersuite.data.fake_voices import make_voice, voice_cues
from mersuite.signal.mel import power_spectrum
from mersuite.signal.prosody import PROSODY, prosody

sounds = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "features" / "synthetic_speech.py")))
RATE_HZ = sounds.RATE_HZ


def measured(sound: np.ndarray) -> dict[str, float]:
    values = prosody(sound, power_spectrum(sound, RATE_HZ), RATE_HZ, low_hz=60, high_hz=500)
    assert values.shape == (len(PROSODY),)
    assert np.isfinite(values).all()
    return dict(zip(PROSODY, values.tolist(), strict=True))


def test_a_steady_voice_has_its_pitch_and_nothing_moves():
    found = measured(sounds.voice(220, 3.0))
    assert found["pitch_median_st"] == pytest.approx(24, abs=0.17)  # two octaves above 55 Hz; 0.17 is 1 %
    assert found["pitch_deviation_st"] < 0.1
    assert abs(found["pitch_slope_st_s"]) < 0.05
    assert found["voiced_share"] > 0.95
    assert found["voiced_stretch_s"] == pytest.approx(3.0, abs=0.1)
    assert found["speech_share"] == 1.0
    assert found["speech_s"] == pytest.approx(3.0)
    assert found["pauses_per_s"] == found["pause_share"] == found["pause_mean_s"] == 0.0
    assert abs(found["loudness_slope_db_s"]) < 0.1


def test_a_glide_has_slope_and_range():
    found = measured(sounds.voice(np.geomspace(110, 220, 2 * RATE_HZ), 2.0))
    assert found["pitch_slope_st_s"] == pytest.approx(6.0, rel=0.03)
    assert found["pitch_range_st"] == pytest.approx(0.8 * 12, rel=0.03)
    assert found["pitch_change_st"] == pytest.approx(0.06, rel=0.2)


def test_a_fading_voice_has_a_falling_loudness():
    fade = 10 ** (-4 * sounds.times(2.0) / 20)
    found = measured(sounds.voice(150, 2.0) * fade)
    assert found["loudness_slope_db_s"] == pytest.approx(-4.0, abs=0.2)
    assert found["loudness_range_db"] == pytest.approx(0.8 * 8, abs=0.5)


def test_level_changes_loudness_and_nothing_else():
    sound = sounds.with_gaps(sounds.bursts(4, 4.0), [1.0], [0.5])
    loud, soft = measured(sound), measured(sound * np.float32(10 ** (-12 / 20)))
    assert loud.pop("loudness_mean_db") - soft.pop("loudness_mean_db") == pytest.approx(12, abs=0.01)
    assert loud == pytest.approx(soft, rel=0.02, abs=0.02)


@pytest.mark.parametrize("per_s", [3, 5, 7])
def test_syllables_are_counted_over_the_sound_and_over_what_is_spoken(per_s):
    sound = np.concatenate((sounds.bursts(per_s, 2.0), np.zeros(RATE_HZ, np.float32), sounds.bursts(per_s, 2.0)))
    found = measured(sound)
    assert found["syllables_per_s"] == pytest.approx(4 * per_s / 5, rel=0.1)
    assert found["articulation_per_s"] == pytest.approx(per_s, rel=0.1)
    assert found["pauses_per_s"] == pytest.approx(1 / 5, rel=0.05)
    assert found["pause_share"] == pytest.approx(1 / 5, abs=0.03)
    assert found["pause_mean_s"] == pytest.approx(1.0, abs=0.12)  # a burst begins and ends below the limit


def test_white_noise_has_no_tilt_and_its_integral_falls_by_6_db_an_octave(rng):
    white = sounds.at_level(rng.standard_normal(4 * RATE_HZ), -30)
    spectrum = np.fft.rfft(white)
    spectrum[1:] /= np.arange(1, len(spectrum))
    falling = sounds.at_level(np.fft.irfft(spectrum), -30)
    assert measured(white)["tilt_db_octave"] == pytest.approx(0.0, abs=0.3)
    assert measured(falling)["tilt_db_octave"] == pytest.approx(-6.02, abs=0.5)


def test_centroid_of_a_tone_is_its_frequency():
    tone = 0.1 * np.sin(2 * np.pi * 2_000 * sounds.times(1.0))
    found = measured(tone)
    assert found["centroid_khz"] == pytest.approx(2.0, abs=0.02)
    assert found["low_to_high_db"] < -30


def test_noise_has_no_pitch(rng):
    found = measured(sounds.at_level(rng.standard_normal(2 * RATE_HZ), -30))
    assert [value for name, value in found.items() if name.startswith(("pitch", "voiced", "aperiodicity"))] == [0.0] * 8
    assert found["syllables_per_s"] == 0.0


@pytest.mark.parametrize("num_samples", [160, 1_600, 16_000])
@pytest.mark.parametrize("gain", [0.0, 1e-6], ids=["zero", "tiny"])
def test_silence_is_the_floor_and_zeros(gain, num_samples, rng):
    found = measured((gain * rng.standard_normal(num_samples)).astype(np.float32))
    assert found["loudness_mean_db"] == -100.0
    names = [name for name in PROSODY if not name.startswith(("loudness_mean", "tilt", "low_to", "centroid", "flux"))]
    assert [found[name] for name in names] == [0.0] * len(names)
    if gain == 0:
        assert found["tilt_db_octave"] == found["centroid_khz"] == found["flux_db"] == 0.0


@pytest.mark.parametrize("seconds", [0.01, 0.02, 0.1, 0.2])
def test_the_shortest_sounds_give_finite_values(seconds):
    found = measured(sounds.voice(200, seconds))
    assert all(np.isfinite(value) for value in found.values())


def test_cues_of_made_up_voices_are_recovered(rng):
    """Voices with vowels, accents, hiss and a room, made by code that knows nothing of these measures."""
    truth, found = [], []
    for _ in range(25):
        cues = voice_cues(rng.standard_normal(4))
        voice = make_voice(cues, rng.uniform(0.9, 1.1), int(rng.uniform(2.5, 4.5) * RATE_HZ), rng)
        measures = measured((voice.samples / 32768).astype(np.float32))
        truth.append((12 * np.log2(cues.pitch_hz / 55), cues.loudness_db, voice.rate_hz, cues.pause_share))
        names = ("pitch_median_st", "loudness_mean_db", "articulation_per_s", "pause_share")
        found.append([measures[name] for name in names])
    apart = np.array(found) - np.array(truth)
    assert np.abs(apart[:, 0]).max() < 0.5  # semitones; the truth is a mean, accents are up to 1
    assert (
        np.abs(apart[:, 1] - apart[:, 1].mean()).max() < 1.0
    )  # dB; a mean level over syllables lies below their power
    assert np.median(np.abs(apart[:, 2])) < 0.1
    assert np.median(np.abs(apart[:, 3])) < 0.03
