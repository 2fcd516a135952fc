import mne
import numpy as np
import pytest

from mersuite.signal import channels
from mersuite.signal.channels import (
    BadChannelRule,
    alignment_matrix,
    average_reference,
    channel_statistics,
    find_bad_channels,
    interpolation_matrix,
    median_and_deviation,
    spline_weights,
)
from mersuite.signal.montage import on_scalp, positions, standard_positions
from tracks.ps.layout import EEG_CH_NAMES

mne.set_log_level("ERROR")
RULE = BadChannelRule(max_z=5.0, flat_uv=0.05, min_correlation=0.4)
PLACES, SCALP = positions(EEG_CH_NAMES), on_scalp(EEG_CH_NAMES)
INDEX = {name: place for place, name in enumerate(EEG_CH_NAMES)}


def smooth_eeg(seed: int = 0, seconds: int = 10) -> np.ndarray:
    """A few sources seen by every electrode with a smooth map, and little noise of each electrode: (time, 64), uV."""
    generator = np.random.default_rng(seed)
    sources = generator.standard_normal((200 * seconds, 8))
    centres = PLACES[generator.choice(np.flatnonzero(SCALP), 8, replace=False)]
    maps = np.exp(-np.square(np.linalg.norm(PLACES[None] - centres[:, None], axis=-1) / 0.08))
    data = 20 * sources @ maps + 2 * generator.standard_normal((200 * seconds, 64))
    return data.astype(np.float32)


def bad_names(data: np.ndarray) -> list[str]:
    statistics = channel_statistics(data, 200.0, PLACES, SCALP)
    return [EEG_CH_NAMES[index] for index in np.flatnonzero(find_bad_channels(statistics, SCALP, RULE))]


@pytest.mark.parametrize("bads", [["FZ"], ["F7", "PO8", "CZ"], ["FP1", "FPZ", "FP2", "O1", "T7"]])
def test_interpolation_equals_mne(bads):
    names = [name for name, scalp in zip(EEG_CH_NAMES, SCALP, strict=True) if scalp]
    data = smooth_eeg()[:, SCALP].astype(np.float64)
    places = {name: standard_positions()[name] for name in names}
    info = mne.create_info(names, 200.0, "eeg")
    info.set_montage(mne.channels.make_dig_montage(places, coord_frame="head"))
    info["bads"] = bads
    theirs = mne.io.RawArray(data.T, info).interpolate_bads().get_data().T
    bad = np.array([name in bads for name in EEG_CH_NAMES])
    ours = smooth_eeg().astype(np.float64) @ interpolation_matrix(PLACES, SCALP, bad).T
    assert np.abs(ours[:, SCALP] - theirs).max() < 1e-5 * theirs.std()


def test_spline_weights_add_up_to_one():
    weights = spline_weights(PLACES[SCALP][:20], PLACES[SCALP][20:24])
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, atol=1e-9)


def test_good_channels_pass_interpolation_untouched():
    matrix = interpolation_matrix(PLACES, SCALP, np.zeros(64, bool))
    np.testing.assert_array_equal(matrix, np.eye(64))


def test_bad_channels_off_the_scalp_are_filled_and_are_no_source():
    bad = np.isin(EEG_CH_NAMES, ["CB1", "M2"])
    matrix = interpolation_matrix(PLACES, SCALP, bad)
    assert np.abs(matrix[bad][:, SCALP]).sum(axis=1).min() > 0.5
    assert not matrix[:, ~SCALP][SCALP].any()


def test_bad_channel_of_unknown_place_becomes_zero():
    names = ["FP1", "FP2", "CZ", "OZ", "EOG1"]
    matrix = interpolation_matrix(positions(names), on_scalp(names), np.array([False] * 4 + [True]))
    assert not matrix[4].any()


def test_average_reference_equals_mne_on_the_scalp():
    names = [name for name, scalp in zip(EEG_CH_NAMES, SCALP, strict=True) if scalp]
    data = smooth_eeg().astype(np.float64)
    raw = mne.io.RawArray(data[:, SCALP].T, mne.create_info(names, 200.0, "eeg"))
    theirs = raw.set_eeg_reference("average").get_data().T
    ours = data @ average_reference(SCALP).T
    np.testing.assert_allclose(ours[:, SCALP], theirs, atol=1e-9)
    np.testing.assert_allclose(ours[:, INDEX["M1"]], data[:, INDEX["M1"]] - data[:, SCALP].mean(axis=1), atol=1e-9)


def test_alignment_makes_the_mean_covariance_the_identity():
    trials = [smooth_eeg(seed).astype(np.float64) for seed in (1, 2, 3)]
    covariances = np.stack([trial.T @ trial / len(trial) for trial in trials])
    matrix = alignment_matrix(covariances, SCALP)
    aligned = np.mean([matrix @ covariance @ matrix.T for covariance in covariances], axis=0)
    np.testing.assert_allclose(aligned[np.ix_(SCALP, SCALP)], np.eye(60), atol=1e-6)


def test_alignment_leaves_no_power_in_directions_that_have_none():
    trial = smooth_eeg().astype(np.float64) @ average_reference(SCALP).T
    trial -= trial.mean(axis=0)
    matrix = alignment_matrix((trial.T @ trial / len(trial))[None], SCALP)
    values = np.linalg.eigvalsh(np.cov(trial @ matrix.T, rowvar=False)[np.ix_(SCALP, SCALP)])
    assert (values < 1e-6).sum() == 1
    np.testing.assert_allclose(values[1:], 1.0, atol=0.01)


def test_clean_recording_has_no_bad_channel():
    assert bad_names(smooth_eeg()) == []


def test_independent_noise_in_all_channels_is_not_called_bad():
    noise = np.random.default_rng(0).standard_normal((2000, 64)).astype(np.float32) * 10
    assert bad_names(noise) == []


def test_noisy_flat_and_lonely_channels_are_found():
    data = smooth_eeg()
    data[:, INDEX["CZ"]] *= 30
    data[:, INDEX["F3"]] = 7.0
    data[:, INDEX["P4"]] = np.random.default_rng(5).standard_normal(len(data)) * data[:, INDEX["P4"]].std()
    assert bad_names(data) == ["F3", "CZ", "P4"]


def test_slow_drift_does_not_make_a_channel_bad():
    data = smooth_eeg()
    data[:, INDEX["FZ"]] += np.linspace(0, 300, len(data))
    assert bad_names(data) == []


def test_mastoid_is_judged_by_flatness_alone():
    data = smooth_eeg()
    data[:, INDEX["M1"]] *= 50
    data[:, INDEX["CB1"]] = 0.0
    assert bad_names(data) == ["CB1"]


def test_sparse_caps_are_not_judged_by_neighbours():
    statistics = channel_statistics(smooth_eeg()[:, :8], 200.0, PLACES[:8], SCALP[:8])
    assert np.isnan(statistics.correlation).all()
    assert not find_bad_channels(statistics, SCALP[:8], RULE).any()


def test_statistics_equal_a_plain_loop():
    data = smooth_eeg()
    seconds = data.reshape(-1, 200, 64).astype(np.float64)
    centred = (seconds - seconds.mean(axis=1, keepdims=True)).reshape(-1, 64)
    matrix = np.corrcoef(centred, rowvar=False)
    distance = np.linalg.norm(PLACES[SCALP] - PLACES[INDEX["CZ"]], axis=1)
    nearest = np.flatnonzero(SCALP)[np.argsort(distance)[1 : channels.NUM_NEIGHBOURS + 1]]
    statistics = channel_statistics(data, 200.0, PLACES, SCALP)
    np.testing.assert_allclose(statistics.deviation_uv, np.median(seconds.std(axis=1), axis=0), rtol=1e-2)
    assert statistics.correlation[INDEX["CZ"]] == pytest.approx(np.median(matrix[INDEX["CZ"], nearest]), abs=1e-5)


def test_robust_scale_finds_centre_and_deviation_of_normal_noise():
    noise = np.random.default_rng(0).standard_normal((2, 50_000, 3)).astype(np.float32) * [1.0, 5.0, 10.0] + 3.0
    centre, deviation = median_and_deviation(list(noise))
    np.testing.assert_allclose(centre, 3.0, atol=0.3)
    np.testing.assert_allclose(deviation, [1.0, 5.0, 10.0], rtol=0.03)
