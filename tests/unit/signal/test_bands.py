import mne
import numpy as np
import pytest
import scipy.signal

from mersuite.signal import bands as spectral
from mersuite.signal.windows import cut_seconds, num_seconds

mne.set_log_level("ERROR")
EDGES = [(1.0, 4.0), (4.0, 8.0), (8.0, 14.0), (14.0, 31.0), (31.0, 50.0)]


@pytest.fixture
def seconds() -> np.ndarray:
    generator = np.random.default_rng(0)
    walk = np.cumsum(generator.standard_normal((20, 200, 6)), axis=1)
    return (walk + 5 * generator.standard_normal(walk.shape) + 40).astype(np.float32)


def power_by_scipy(seconds: np.ndarray, rate_hz: float, taper: str) -> np.ndarray:
    freqs, density = scipy.signal.periodogram(seconds.astype(np.float64), rate_hz, taper, detrend="constant", axis=1)
    return np.stack(
        [density[:, (freqs >= low) & (freqs < high)].sum(axis=1) * (freqs[1] - freqs[0]) for low, high in EDGES],
        axis=-1,
    )


@pytest.mark.parametrize("taper", ["boxcar", "hann", "hamming"])
def test_band_power_equals_scipy(seconds, taper):
    np.testing.assert_allclose(
        spectral.band_power(seconds, 200.0, EDGES, taper), power_by_scipy(seconds, 200.0, taper), rtol=1e-5
    )


@pytest.mark.parametrize("width", [2, 3, 8, 125, 128])
def test_whole_spectrum_of_even_and_odd_windows_equals_scipy(seconds, width):
    windows = seconds[:, :width]
    freqs, density = scipy.signal.periodogram(windows.astype(np.float64), width, "hamming", axis=1)
    edges = [(float(freq), float(freq) + 0.5) for freq in freqs]
    ours = spectral.band_power(windows, float(width), edges, "hamming").transpose(0, 2, 1)
    np.testing.assert_allclose(ours, density, rtol=1e-4, atol=1e-6 * density.max())


def test_differential_entropy_equals_scipy(seconds):
    ours = spectral.differential_entropy(spectral.band_power(seconds, 200.0, EDGES, "hann"))
    plain = 0.5 * np.log(2 * np.pi * np.e * power_by_scipy(seconds, 200.0, "hann"))
    np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)


def test_all_bands_together_hold_the_variance(seconds):
    power = spectral.band_power(seconds, 200.0, [(0.5, 100.1)], "boxcar")[..., 0]
    np.testing.assert_allclose(power, seconds.astype(np.float64).var(axis=1), rtol=1e-5)


def test_bands_are_half_open():
    sine = np.sin(2 * np.pi * 8.0 * np.arange(200) / 200.0, dtype=np.float32).reshape(1, 200, 1)
    power = spectral.band_power(sine, 200.0, EDGES, "boxcar")[0, 0]
    np.testing.assert_allclose(power, [0, 0, 0.5, 0, 0], atol=1e-6)


def test_many_seconds_equal_few_at_a_time(seconds):
    many = np.concatenate([seconds] * 9)
    whole = spectral.band_power(many, 200.0, EDGES, "hann")
    np.testing.assert_allclose(whole[20:40], spectral.band_power(seconds, 200.0, EDGES, "hann"), rtol=1e-6)


def test_silence_gives_a_low_finite_entropy():
    power = spectral.band_power(np.zeros((2, 200, 3), np.float32), 200.0, EDGES, "hann")
    assert np.isfinite(spectral.differential_entropy(power)).all()
    assert np.isfinite(spectral.relative_log_power(power)).all()
    assert spectral.differential_entropy(power).max() < -5


def test_band_between_two_frequencies_of_the_grid_is_refused():
    with pytest.raises(ValueError, match=r"no frequency of a window of 1 s lies in the band \(4\.2, 4\.8\) Hz"):
        spectral.band_power(np.zeros((1, 200, 1), np.float32), 200.0, [(4.2, 4.8)], "hann")


def test_filtered_power_equals_mne_filter_then_variance():
    recording = np.random.default_rng(1).standard_normal((2000, 3)).astype(np.float32)
    ours = spectral.filtered_power(recording, 200.0, EDGES, 10)
    for band, (low, high) in enumerate(EDGES):
        filtered = mne.filter.filter_data(recording.T.astype(np.float64), 200.0, low, high).T
        np.testing.assert_allclose(ours[..., band], filtered.reshape(10, 200, 3).var(axis=1), rtol=1e-4, atol=1e-7)


def test_relative_log_powers_are_shares_of_one(seconds):
    power = spectral.band_power(seconds, 200.0, EDGES, "hann")
    np.testing.assert_allclose(np.exp(spectral.relative_log_power(power)).sum(axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(spectral.log_power(power), np.log(power), rtol=1e-6)


def test_hjorth_equals_the_definition(seconds):
    ours = spectral.hjorth(seconds)
    plain = seconds.astype(np.float64)
    for second, channel in [(0, 0), (7, 3), (19, 5)]:
        values = plain[second, :, channel]
        mobility = np.sqrt(np.var(np.diff(values)) / np.var(values))
        complexity = np.sqrt(np.var(np.diff(values, 2)) / np.var(np.diff(values))) / mobility
        np.testing.assert_allclose(ours[second, channel], [np.var(values), mobility, complexity], rtol=1e-5)


def test_hjorth_of_silence_is_zero():
    assert not spectral.hjorth(np.zeros((1, 200, 2), np.float32)).any()


def test_asymmetry_is_left_minus_right():
    values = np.arange(12.0).reshape(1, 4, 3)
    np.testing.assert_array_equal(spectral.asymmetry(values, [(0, 3), (2, 1)]), [[[-9.0] * 3, [3.0] * 3]])
    assert spectral.asymmetry(values, []).shape == (1, 0, 3)


def test_top_band_is_cut_at_the_nyquist_frequency():
    kept, cut = spectral.clip_to_nyquist({"beta": (14.0, 31.0), "gamma": (31.0, 50.0)}, 80.0)
    assert kept == {"beta": (14.0, 31.0), "gamma": (31.0, 40.0)}
    assert cut == ["gamma"]


def test_band_above_the_nyquist_frequency_is_refused():
    with pytest.raises(ValueError, match=r"the band gamma \(31\.0, 50\.0\) Hz lies above 30 Hz"):
        spectral.clip_to_nyquist({"gamma": (31.0, 50.0)}, 60.0)


@pytest.mark.parametrize(
    ("num_samples", "rate_hz", "seconds"),
    [(6428, 1000 / 21, 135), (6381, 1000 / 21, 134), (999, 1000.0, 1), (27_150, 200.0, 135)],
)
def test_num_seconds_counts_whole_seconds(num_samples, rate_hz, seconds):
    assert num_seconds(num_samples, rate_hz) == seconds


def test_cut_seconds_is_a_view_at_whole_rates():
    recording = np.arange(1050, dtype=np.float32).reshape(-1, 1)
    windows = cut_seconds(recording, 200.0, 5)
    assert windows.base is not None
    np.testing.assert_array_equal(windows[3, :, 0], np.arange(600, 800))


def test_cut_seconds_follows_an_odd_rate_and_a_short_last_second():
    rate_hz = 1000 / 21
    windows = cut_seconds(np.arange(6427, dtype=np.float32).reshape(-1, 1), rate_hz, 135)
    assert windows.shape == (135, 48, 1)
    assert windows[100, 0, 0] == round(100 * rate_hz)
    assert windows[-1, -1, 0] == 6426


def test_less_than_a_second_is_refused():
    with pytest.raises(ValueError, match="need a second of 200 samples or more, got 150"):
        cut_seconds(np.zeros((150, 1), np.float32), 200.0, 1)
