import numpy as np
import pytest
import scipy.signal

from mersuite.signal import mel

RATE_HZ = 16_000


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ)).astype(np.float32)


def test_power_of_a_frame_sums_to_its_mean_square():
    sound = 0.1 * noise(3.0)
    power = mel.power_spectrum(sound, RATE_HZ)
    assert power.shape == (300, 257)
    assert power.dtype == np.float32
    assert power[1:-1].sum(axis=1).mean() == pytest.approx(np.mean(sound**2), rel=0.02)


def test_power_spectrum_is_that_of_scipy_frame_by_frame():
    sound = noise(0.2)
    power = mel.power_spectrum(sound, RATE_HZ)
    middle = sound[10 * 160 + 80 - 200 :][:400]  # centred on frame 10
    _, density = scipy.signal.periodogram(middle, RATE_HZ, "hann", nfft=512, detrend=False, scaling="density")
    np.testing.assert_allclose(power[10], density * RATE_HZ / 512, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("num_samples", [0, 159, 160, 1_600, 1_759, 48_001])
def test_number_of_frames_is_that_of_whole_hops(num_samples):
    power = mel.power_spectrum(np.ones(num_samples, np.float32), RATE_HZ)
    assert len(power) == num_samples // 160 == mel.num_frames(num_samples, RATE_HZ)
    assert np.isfinite(power).all()


def test_blocks_do_not_change_a_frame(monkeypatch):
    sound = noise(1.0)
    whole = mel.power_spectrum(sound, RATE_HZ)
    monkeypatch.setattr(mel, "BLOCK_FRAMES", 7)
    np.testing.assert_allclose(mel.power_spectrum(sound, RATE_HZ), whole, rtol=1e-5)


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("num_bands", [40, 64])
def test_filters_are_those_of_another_implementation(scale, num_bands):
    audio_utils = pytest.importorskip("transformers.audio_utils")
    wanted = audio_utils.mel_filter_bank(
        257, num_bands, 20.0, 8000.0, RATE_HZ, norm="slaney" if scale == "slaney" else None, mel_scale=scale
    )
    filters = mel.mel_filters(num_bands, 257, RATE_HZ, scale)
    np.testing.assert_allclose(filters, wanted.T, rtol=1e-4, atol=1e-6)


def test_white_noise_fills_slaney_bands_alike():
    power = mel.power_spectrum(noise(10.0), RATE_HZ)
    level = mel.decibels((power @ mel.mel_filters(40, 257, RATE_HZ, "slaney").T).mean(axis=0))
    assert np.ptp(level[5:]) < 1.5  # the lowest bands hold one or two frequencies


@pytest.mark.parametrize("scale", ["htk", "slaney"])
@pytest.mark.parametrize("freq_hz", [250, 1000, 4000])
def test_a_tone_is_loudest_in_its_band(scale, freq_hz):
    tone = np.sin(2 * np.pi * freq_hz * np.arange(RATE_HZ) / RATE_HZ).astype(np.float32)
    bands = mel.log_mel(mel.power_spectrum(tone, RATE_HZ), mel.mel_filters(40, 257, RATE_HZ, scale))
    edges = mel.mel_edges(40, scale, low_hz=20, high_hz=8000)
    loudest = int(bands.mean(axis=0).argmax())
    assert edges[loudest] < freq_hz < edges[loudest + 2]


def test_silence_lies_on_the_floor_and_halving_takes_6_db():
    filters = mel.mel_filters(40, 257, RATE_HZ, "htk")
    silent = mel.log_mel(mel.power_spectrum(np.zeros(RATE_HZ, np.float32), RATE_HZ), filters)
    assert (silent == mel.FLOOR_DB).all()
    sound = noise(1.0)
    louder, softer = (mel.log_mel(mel.power_spectrum(gain * sound, RATE_HZ), filters) for gain in (1.0, 0.5))
    np.testing.assert_allclose(louder - softer, 20 * np.log10(2), atol=1e-3)


def test_too_many_bands_are_refused():
    with pytest.raises(ValueError, match="200 bands are too many: some hold none of the 257 frequencies"):
        mel.mel_filters(200, 257, RATE_HZ, "htk")


def test_edges_beyond_half_the_rate_are_refused():
    with pytest.raises(ValueError, match="need 0 <= low_hz < high_hz <= 4000, got low_hz=20 and high_hz=8000"):
        mel.mel_filters(40, 257, 8_000, "htk")


def test_a_rate_without_whole_frames_is_refused():
    with pytest.raises(ValueError, match="multiple of 100 Hz, got 22051"):
        mel.num_frames(100, 22_051)
