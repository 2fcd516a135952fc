from typing import Literal

import mne
import numpy as np
import pytest
import scipy.signal

from mersuite.signal import linear
from mersuite.signal.linear import LinearChain, design_band, design_notch, fft_lengths

mne.set_log_level("ERROR")


def eeg_like(num_samples: int, num_channels: int, seed: int = 0) -> np.ndarray:
    """Noise whose power falls with frequency, 20 uV, in volts."""
    white = np.random.default_rng(seed).standard_normal((2 * num_samples, num_channels))
    spectrum = np.fft.rfft(white, axis=0)
    spectrum[1:] /= np.sqrt(np.arange(1, len(spectrum)))[:, None]
    pink = np.fft.irfft(spectrum, axis=0)[:num_samples]
    return 20e-6 * pink / pink.std()


def centred(taps: np.ndarray, length: int) -> np.ndarray:
    edge = (length - len(taps)) // 2
    return np.pad(taps, edge)


@pytest.mark.parametrize(
    ("rate_hz", "low_hz", "high_hz"),
    [
        (1000.0, 0.5, 45.0),
        (1000.0, 1.0, None),
        (200.0, None, 30.0),
        (256.0, 0.1, 40.0),
        (1000.0, None, 450.0),
        (128.0, 31.0, 50.0),
    ],
)
def test_band_taps_are_those_of_mne(rate_hz, low_hz, high_hz):
    theirs = mne.filter.create_filter(None, rate_hz, low_hz, high_hz)
    np.testing.assert_allclose(centred(design_band(rate_hz, low_hz, high_hz), len(theirs)), theirs, atol=1e-12)


def test_band_taps_with_given_transitions_are_those_of_mne():
    theirs = mne.filter.create_filter(None, 1000 / 21, 0.01, 0.2, l_trans_bandwidth=0.01, h_trans_bandwidth=0.2)
    ours = design_band(1000 / 21, 0.01, 0.2, low_transition_hz=0.01, high_transition_hz=0.2)
    np.testing.assert_allclose(centred(ours, len(theirs)), theirs, atol=1e-12)


@pytest.mark.parametrize("freqs_hz", [(50.0,), (60.0, 120.0), (50.0, 100.0, 150.0)])
def test_notch_taps_are_those_of_mne(freqs_hz):
    freqs = np.array(freqs_hz)
    low, high = freqs - freqs / 400 - 0.5, freqs + freqs / 400 + 0.5
    theirs = mne.filter.create_filter(None, 500.0, high, low, l_trans_bandwidth=0.5, h_trans_bandwidth=0.5)
    np.testing.assert_allclose(centred(design_notch(500.0, freqs_hz), len(theirs)), theirs, atol=1e-12)


@pytest.mark.parametrize("edges", [(None, None), (0.0, 45.0), (45.0, 1.0), (0.5, 100.0), (100.0, None)])
def test_band_edges_out_of_order_or_range_are_refused(edges):
    with pytest.raises(ValueError, match=r"need 0 < low_hz < high_hz < 100"):
        design_band(200.0, *edges)


def test_notch_at_the_nyquist_frequency_is_refused():
    with pytest.raises(ValueError, match=r"need notch frequencies between 0 and 50 Hz, got 50 Hz"):
        design_notch(100.0, (50.0,))


def test_filters_of_even_length_are_refused():
    with pytest.raises(ValueError, match="symmetric filters of odd length, got 4 taps"):
        LinearChain(rate_hz=100.0, filters=(np.ones(4),))


@pytest.mark.parametrize("num_samples", [20_000, 5_000, 3_000])
def test_band_pass_and_notch_equal_mne(num_samples):
    """5 s are shorter than both filters together, 3 s shorter than each."""
    recording = eeg_like(num_samples, 4)
    filters = (design_band(1000.0, 0.5, 45.0), design_notch(1000.0, (50.0,)))
    ours = LinearChain(rate_hz=1000.0, filters=filters).apply(recording)
    theirs = mne.filter.filter_data(recording.T, 1000.0, 0.5, 45.0)
    theirs = mne.filter.notch_filter(theirs, 1000.0, 50.0).T
    assert ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < 1e-5 * theirs.std()


@pytest.mark.parametrize(("npad", "edge_s"), [(1000, 1), (100, 2)])
def test_band_pass_notch_and_resampling_equal_mne_away_from_the_edges(npad, edge_s):
    recording = eeg_like(60_000, 4)
    filters = (design_band(1000.0, 0.5, 45.0), design_notch(1000.0, (50.0,)))
    ours = LinearChain(rate_hz=1000.0, target_hz=200.0, filters=filters).apply(recording)
    theirs = mne.filter.filter_data(recording.T, 1000.0, 0.5, 45.0)
    theirs = mne.filter.notch_filter(theirs, 1000.0, 50.0)
    theirs = mne.filter.resample(theirs, 200.0, 1000.0, npad=npad).T
    assert ours.shape == theirs.shape
    inner = slice(200 * edge_s, -200 * edge_s)
    assert np.abs(ours - theirs)[inner].max() < 1e-3 * theirs.std()


def test_resampled_ends_are_nearer_to_the_longer_recording_than_mne():
    recording = mne.filter.filter_data(eeg_like(60_000, 8).T, 1000.0, 0.5, 45.0).T
    truth = recording[20_000:40_000:5]
    ours = LinearChain(rate_hz=1000.0, target_hz=200.0).apply(recording[20_000:40_000])
    theirs = mne.filter.resample(recording[20_000:40_000].T, 200.0, 1000.0, npad=100).T
    error, theirs_error = (np.abs(values - truth)[100:-100].max() for values in (ours, theirs))
    assert error < 1e-3 * truth.std()
    assert error < theirs_error


@pytest.mark.parametrize(
    ("rate_hz", "target_hz", "freq_hz"), [(1000 / 21, 5.0, 0.5), (20.033076758495838, 5.0, 0.5), (512.0, 200.0, 10.0)]
)
def test_resampled_sine_keeps_its_phase_to_the_end(rate_hz, target_hz, freq_hz):
    num_samples = round(61.3 * rate_hz)
    sine = np.sin(2 * np.pi * freq_hz * np.arange(num_samples) / rate_hz)[:, None]
    chain = LinearChain(rate_hz=rate_hz, target_hz=target_hz)
    resampled = chain.apply(sine)[:, 0]
    expected = np.sin(2 * np.pi * freq_hz * np.arange(len(resampled)) / target_hz)
    assert len(resampled) == chain.num_out(num_samples) == round(num_samples * target_hz / rate_hz)
    assert np.abs(resampled - expected)[15:-15].max() < 5e-3


def test_frequencies_above_the_new_nyquist_do_not_fold_back():
    time = np.arange(20_000) / 1000.0
    sine = np.sin(2 * np.pi * 130.0 * time)[:, None]
    resampled = LinearChain(rate_hz=1000.0, target_hz=200.0).apply(sine)
    assert np.abs(resampled[200:-200]).max() < 5e-3


def test_upsampling_keeps_the_samples_that_were_there():
    recording = eeg_like(8_000, 2)
    slow = LinearChain(rate_hz=500.0, target_hz=100.0).apply(recording)
    fast = LinearChain(rate_hz=100.0, target_hz=200.0).apply(slow)
    assert len(fast) == 2 * len(slow)
    assert np.abs(fast[::2] - slow)[100:-100].max() < 1e-3 * slow.std()


def test_amplifier_offset_costs_no_precision():
    recording = eeg_like(20_000, 2)
    chain = LinearChain(rate_hz=1000.0, target_hz=200.0, filters=(design_band(1000.0, 0.5, 45.0),))
    offset = 0.03125  # a power of two: exact in float32 beside float64 input
    gap = chain.apply(recording + offset) - chain.apply(recording)
    assert np.abs(gap - gap.mean(axis=0)).max() < 1e-5 * recording.std()


def test_blocks_of_channels_give_the_same_bytes(monkeypatch):
    recording = eeg_like(5_000, 6).astype(np.float32)
    chain = LinearChain(rate_hz=1000.0, target_hz=200.0, filters=(design_band(1000.0, None, 45.0),))
    whole = chain.apply(recording)
    monkeypatch.setattr(linear, "BLOCK_VALUES", 20_000)
    blocks = chain.apply(recording)
    np.testing.assert_allclose(blocks, whole, rtol=0, atol=1e-6 * float(whole.std()))
    assert blocks.flags.c_contiguous
    assert whole.flags.c_contiguous


def test_a_loose_electrode_lends_no_error_to_its_neighbour():
    recording = eeg_like(20_000, 2)
    chain = LinearChain(rate_hz=1000.0, target_hz=200.0, filters=(design_band(1000.0, 0.5, 45.0),))
    alone = chain.apply(recording[:, 1:])
    recording[:, 0] *= 1e6
    recording[::16, 0] = 0.0  # nor where the samples that are looked at are silent
    beside = chain.apply(recording)[:, 1:]
    assert np.abs(beside - alone).max() < 1e-5 * alone.std()


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("num_samples", [2_000, 2_013])
@pytest.mark.parametrize("target_hz", [50.0, 200.0, 73.0])
def test_resampling_keeps_each_frequency_of_each_channel(num_channels, num_samples, target_hz):
    """Both rates have even and odd padded lengths among these."""
    time = np.arange(num_samples) / 100.0
    freqs_hz = np.array([3.0, 11.0, 20.0])[:num_channels]
    sines = np.sin(2 * np.pi * freqs_hz * time[:, None] + 0.3)
    resampled = LinearChain(rate_hz=100.0, target_hz=target_hz).apply(sines)
    expected = np.sin(2 * np.pi * freqs_hz * np.arange(len(resampled))[:, None] / target_hz + 0.3)
    inner = slice(round(target_hz), -round(target_hz))
    assert np.abs(resampled - expected)[inner].max() < 5e-3


@pytest.mark.parametrize(("num_old", "num_new"), [(40, 20), (40, 21), (21, 40), (20, 40), (20, 21), (21, 21), (20, 20)])
def test_spectrum_takes_its_new_length_as_real_transforms_do(num_old, num_new):
    values = np.random.default_rng(0).standard_normal((2, num_old))
    kept = min(num_old, num_new)
    gain = np.linspace(1.0, 0.5, kept // 2 + 1)
    spectrum = np.fft.rfft(values)[:, : len(gain)] * gain
    if num_old != num_new and kept % 2 == 0:
        spectrum[:, -1] *= 2.0 if num_new < num_old else 0.5
    expected = np.fft.irfft(spectrum, n=num_new)
    above = np.repeat(gain.astype(np.float32), 2)
    below = above[2 : 2 * (kept - kept // 2)][::-1].copy()
    plan = linear._Plan(num_old, num_new, above, below, 1.0)
    pair = np.fft.fft(values[0] + 1j * values[1])[None].astype(np.complex64)
    ours = np.fft.ifft(linear._filtered(pair, plan))[0]
    np.testing.assert_allclose([ours.real, ours.imag], expected, atol=1e-6)


def test_input_is_left_as_it_was():
    recording = eeg_like(3_000, 2).astype(np.float32)
    before = recording.copy()
    LinearChain(rate_hz=1000.0, target_hz=200.0, filters=(design_band(1000.0, 1.0, 45.0),)).apply(recording)
    np.testing.assert_array_equal(recording, before)


@pytest.mark.parametrize("num_samples", [3000, 2999])
def test_even_padding_equals_plain_convolution_of_the_reflected_recording(num_samples):
    rate_hz = 1000 / 21
    recording = eeg_like(num_samples, 3).cumsum(axis=0)
    taps = design_band(rate_hz, None, 0.2, high_transition_hz=0.2)
    ours = LinearChain(rate_hz=rate_hz, filters=(taps,), pad="even").apply(recording)
    half = len(taps) // 2
    reflected = np.pad(recording, ((half, half), (0, 0)), mode="reflect")
    plain = scipy.signal.convolve(reflected, taps[:, None], mode="valid")
    np.testing.assert_allclose(ours, plain, atol=1e-5 * recording.std())


def test_first_sample_is_filtered_with_even_padding_and_left_with_odd():
    recording = np.random.default_rng(0).standard_normal((3000, 200))
    taps = design_band(1000 / 21, None, 0.2, high_transition_hz=0.2)

    def marked(pad: Literal["odd", "even"]) -> float:
        low = LinearChain(rate_hz=1000 / 21, target_hz=5.0, filters=(taps,), pad=pad).apply(recording)
        return float(low[0].std() / low[50:-50].std())

    assert marked("odd") > 5
    assert marked("even") < 1.6


def test_nothing_to_do_gives_the_values_as_float32():
    recording = eeg_like(100, 2)
    np.testing.assert_array_equal(LinearChain(rate_hz=200.0).apply(recording), recording.astype(np.float32))


@pytest.mark.parametrize("needed", [1001, 65_537, 176_543])
@pytest.mark.parametrize("ratio", [0.2, 5 / (1000 / 21), 200 / 512, 1.0, 2.0])
def test_padded_lengths_are_in_the_exact_ratio(needed, ratio):
    length, resampled = fft_lengths(needed, ratio)
    assert needed <= length < 1.3 * needed + 1000
    assert resampled == pytest.approx(length * ratio, abs=1e-6)


def test_odd_ratios_drift_by_a_thousandth_of_a_sample_at_most():
    length, resampled = fft_lengths(4000, 5 / 20.033076758495838)
    assert abs(resampled - length * 5 / 20.033076758495838) <= 1e-3


def test_filter_equals_plain_convolution_in_the_middle():
    recording = eeg_like(5_000, 1)[:, 0]
    taps = design_band(1000.0, 4.0, 40.0)
    ours = LinearChain(rate_hz=1000.0, filters=(taps,)).apply(recording[:, None])[:, 0]
    plain = scipy.signal.fftconvolve(recording, taps, mode="same")
    inner = slice(len(taps), -len(taps))
    assert np.abs(ours - plain)[inner].max() < 1e-5 * plain.std()
