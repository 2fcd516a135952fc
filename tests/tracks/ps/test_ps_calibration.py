from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ps_samples import (
    LENGTHS,
    TARGET,
    features_of,
    fitted_of,
    lagged_data,
    mae,
    no_features,
    output_of,
    random_samples,
    sample_of,
)

from tracks.ps.prior import moving_average

# ---- calibration


@pytest.mark.parametrize("system", ["signal", "fused", "ridge"])
@pytest.mark.parametrize("lag_s", [0, 2])
@pytest.mark.parametrize("quality", ["helpful", "noise", "harmful", "zero"])
def test_calibration_never_costs_validation_error(rng: np.random.Generator, system: str, lag_s: int, quality: str):
    samples = random_samples(rng, range(6), LENGTHS)
    train, val = samples[:12], samples[12:]
    fitted = fitted_of(system=system, target_lag_s=lag_s, prior_smoothing_s=1)
    features = features_of({item.clip_id: rng.normal(size=(30, 2)) for item in samples})
    fitted.fit(train, val, features)
    sign = {"helpful": 1.0, "noise": 0.0, "harmful": -1.0, "zero": 0.0}[quality]
    noise = 0.0 if quality == "zero" else 20.0
    pairs = [
        (item, output_of(item, sign * np.nan_to_num(fitted.target(item)[TARGET]) + rng.normal(0, 1, (1, 2)) * noise))
        for item in val
    ]
    plain = mae(fitted, [(item, None) for item in val])
    uncalibrated = mae(fitted, pairs)
    fitted.calibrate(pairs)
    calibrated = mae(fitted, pairs)
    assert (calibrated <= np.minimum(plain, uncalibrated) + 1e-4).all()
    if quality == "harmful":
        assert fitted.shrink.tolist() == [0.0, 0.0]
    if quality == "helpful":
        assert (calibrated < plain - 5).all()


@pytest.mark.parametrize("quality", ["helpful", "noise", "harmful"])
def test_refining_the_prior_never_costs_validation_error(rng: np.random.Generator, quality: str):
    samples = random_samples(rng, range(6), LENGTHS)
    train, val = samples[:12], samples[12:]
    fitted, plain = (fitted_of(system="fused", target_lag_s=0, refine_prior=refine) for refine in (True, False))
    sign = {"helpful": 0.7, "noise": 0.0, "harmful": -1.0}[quality]
    for part in (fitted, plain):
        part.fit(train, val, no_features)
    own = [rng.normal(0, 15, size=(len(item.target[TARGET]), 2)) for item in samples]
    pairs = [
        (item, output_of(item, sign * fitted.target(item)[TARGET] + noise))
        for item, noise in zip(samples, own, strict=True)
    ]
    before = mae(fitted, [(item, None) for item in val])
    fitted.calibrate(pairs[12:], pairs[:12])
    plain.calibrate(pairs[12:], pairs[:12])
    assert mae(fitted, pairs[12:]).mean() <= mae(plain, pairs[12:]).mean() + 1e-4
    assert mae(plain, pairs[12:]).mean() <= before.mean() + 1e-4


def test_refined_prior_averages_what_signals_leave_of_the_labels(rng: np.random.Generator):
    common = np.stack([128 + 40 * np.sin(np.arange(30) / 6), 100 + 20 * np.cos(np.arange(30) / 5)], axis=1)
    own = {subject: rng.normal(0, 30, size=(30, 2)) for subject in range(6)}
    samples = [sample_of(subject, 0, common + own[subject]) for subject in own]
    fitted = fitted_of(system="fused", target_lag_s=0)
    fitted.fit(samples[:4], samples[4:], no_features)
    pairs = [(item, output_of(item, own[subject])) for subject, item in enumerate(samples)]
    fitted.calibrate(pairs[4:], pairs[:4])
    assert fitted.state()[1]["prior_refined"] is True
    np.testing.assert_allclose(fitted.apply(*pairs[5]).values[TARGET], samples[5].target[TARGET], atol=1e-3)


def test_calibration_smooths_what_is_noisy_and_slow(rng: np.random.Generator):
    seconds = np.arange(120)
    slow = np.stack([40 * np.sin(seconds / 20), 20 * np.sin(seconds / 20)], axis=1)
    samples = [sample_of(s, 0, 128 + slow) for s in range(4)]
    fitted = fitted_of(system="signal", target_lag_s=0)
    fitted.fit(samples[:2], samples[2:], no_features)
    noisy = np.array([25.0, 0.0])
    pairs = [(s, output_of(s, fitted.target(s)[TARGET] + noisy * rng.normal(size=slow.shape))) for s in samples[2:]]
    fitted.calibrate(pairs)
    assert fitted.smoothing_s[0] > 3 and fitted.smoothing_s[1] == 1
    correction = pairs[0][1].values[TARGET]
    smooth = moving_average(correction[:, :1], int(fitted.smoothing_s[0]))
    answer = fitted.apply(*pairs[0]).values[TARGET]
    np.testing.assert_allclose(answer[:, 0], fitted.offset(samples[2], 120)[:, 0] + fitted.shrink[0] * smooth[:, 0])


def test_configured_smoothing_holds_before_and_after_calibration(rng: np.random.Generator):
    samples = random_samples(rng, range(3))
    fitted = fitted_of(system="signal", target_lag_s=0, smoothing_s=5, shrink=False)
    fitted.fit(samples[:6], samples[6:], no_features)
    pairs = [(item, output_of(item, rng.normal(size=(20, 2)))) for item in samples[6:]]
    wanted = fitted.offset(samples[6], 20) + moving_average(pairs[0][1].values[TARGET], 5)
    for _ in range(2):
        np.testing.assert_allclose(fitted.apply(*pairs[0]).values[TARGET], wanted, rtol=1e-6)
        assert fitted.smoothing_s.tolist() == [5, 5] and fitted.shrink.tolist() == [1.0, 1.0]
        fitted.calibrate(pairs)


def test_calibration_without_validation_rows_leaves_everything_as_it_is(rng: np.random.Generator):
    samples = random_samples(rng, range(3))
    fitted = fitted_of(system="signal", target_lag_s=0)
    fitted.fit(samples, [], no_features)
    fitted.calibrate([])
    assert fitted.smoothing_s.tolist() == [1, 1] and fitted.shrink.tolist() == [1.0, 1.0]


# ---- valence alone


def test_ridge_of_valence_only_leaves_arousal_at_the_offset_exactly(rng: np.random.Generator):
    train, val, out, features = lagged_data(rng, 2)
    fitted = fitted_of(system="ridge", valence_only=True)
    fitted.fit(train, val, features)
    fitted.calibrate([(item, fitted.raw_output(item, features)) for item in val])
    assert fitted.lag_s == 2
    for item in out:
        answer = fitted.apply(item, fitted.raw_output(item, features)).values[TARGET]
        offset = fitted.offset(item, len(answer))
        np.testing.assert_array_equal(answer[:, 1], offset[:, 1])
        assert np.abs(answer[:, 0] - offset[:, 0]).max() > 5


def test_zero_arousal_of_a_network_leaves_it_at_the_offset_exactly(rng: np.random.Generator):
    samples = random_samples(rng, range(4), LENGTHS)
    fitted = fitted_of(system="fused", target_lag_s=1, valence_only=True)
    fitted.fit(samples[:9], samples[9:], no_features)
    values = rng.normal(0, 10, size=(23, 2)) * [1.0, 0.0]
    pairs = [(item, output_of(item, values)) for item in samples[9:]]
    fitted.calibrate(pairs)
    answer = fitted.apply(*pairs[0]).values[TARGET]
    np.testing.assert_array_equal(answer[:, 1], fitted.offset(samples[9], 23)[:, 1])
