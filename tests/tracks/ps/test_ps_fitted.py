from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ps_samples import (
    LENGTHS,
    SYSTEMS,
    TARGET,
    fitted_of,
    lagged_data,
    mae,
    no_features,
    output_of,
    random_samples,
    sample_of,
)

from mersuite.clip import Sample, Signal
from mersuite.errors import DataError
from tracks.ps.fitted import CENTRE
from tracks.ps.options import SMOOTHING_CANDIDATES_S

# ---- offset


def test_offset_is_the_constant_the_training_median_or_the_prior(rng: np.random.Generator):
    samples = random_samples(rng, range(6), LENGTHS)
    train, val = samples[:15], samples[15:]
    labels = np.concatenate([item.target[TARGET] for item in train])
    for system in SYSTEMS:
        fitted = fitted_of(system=system, target_lag_s=0, prior_smoothing_s=3)
        fitted.prior.fit(train)
        fitted.prior_smoothing_s = 3
        found = fitted.offset(val[0], 8)
        wanted = {"constant": np.full((8, 2), CENTRE)}.get(system, np.tile(np.median(labels, axis=0), (8, 1)))
        if system in ("prior", "fused"):
            wanted = fitted.prior.curve(val[0], 8, leave_out_own=False, smoothing_s=3)
            assert np.abs(wanted - np.median(labels, axis=0)).max() > 1
        assert found.dtype == np.float32 and found.shape == (8, 2)
        np.testing.assert_array_equal(found, wanted)


def test_prior_switched_off_gives_the_median_everywhere(rng: np.random.Generator):
    samples = random_samples(rng, range(4))
    fitted = fitted_of(system="fused", prior=False, target_lag_s=0)
    fitted.fit(samples[:9], samples[9:], no_features)
    np.testing.assert_array_equal(fitted.offset(samples[9], 20), np.tile(fitted.prior.median, (20, 1)))
    assert not [name for name in fitted.state()[0] if name.startswith("prior/")]


def test_training_samples_meet_a_prior_without_their_own_labels(rng: np.random.Generator):
    samples = random_samples(rng, range(5), LENGTHS)
    fitted = fitted_of(system="fused", target_lag_s=0, prior_smoothing_s=1)
    fitted.fit(samples[:12], samples[12:], no_features)
    for sample in (samples[0], samples[12]):
        own = sample in samples[:12]
        wanted = fitted.prior.curve(sample, 20, leave_out_own=own, smoothing_s=1)
        np.testing.assert_array_equal(fitted.offset(sample, 20), wanted)


def test_prior_smoothing_is_the_one_that_suits_validation_rows_best(rng: np.random.Generator):
    seconds = np.arange(60)
    truth = np.stack([128 + 60 * np.sin(seconds / 9), 110 + 30 * np.cos(seconds / 14)], axis=1)
    samples = [sample_of(s, c, truth + rng.normal(0, 25, size=truth.shape)) for s in range(6) for c in range(2)]
    train, val = samples[:8], samples[8:]
    fitted = fitted_of(system="prior")
    fitted.fit(train, val, no_features)
    errors = {
        width: np.concatenate(
            [np.abs(fitted.prior.curve(v, 60, leave_out_own=False, smoothing_s=width) - v.target[TARGET]) for v in val]
        ).mean()
        for width in SMOOTHING_CANDIDATES_S
    }
    assert fitted.prior_smoothing_s == min(errors, key=lambda width: errors[width]) > 1


@pytest.mark.parametrize("val_clips", [0, 2])
def test_prior_is_not_smoothed_where_validation_rows_know_none_of_the_clips(rng: np.random.Generator, val_clips: int):
    train = random_samples(rng, range(3), num_clips=2)
    val = [sample_of(8, 7 + i, np.full((20, 2), 50.0)) for i in range(val_clips)]
    fitted = fitted_of(system="prior")
    fitted.fit(train, val, no_features)
    assert fitted.prior_smoothing_s == 1


def test_longest_trial_left_out_leaves_no_unknown_target(rng: np.random.Generator):
    samples = random_samples(rng, range(4), {0: 10, 1: 10, 2: 30, 3: 10}, num_clips=1)
    fitted = fitted_of(system="fused", target_lag_s=0, prior_smoothing_s=5)
    fitted.fit(samples[:3], samples[3:], no_features)
    assert np.isfinite(fitted.target(samples[2])[TARGET]).all()


def test_validation_people_who_join_the_prior_meet_it_without_their_own_labels(rng: np.random.Generator):
    samples = random_samples(rng, range(6), LENGTHS)
    train, val, out = samples[:9], samples[9:15], samples[15]
    offsets = []
    for labels in (val[0].target[TARGET], 256 - val[0].target[TARGET]):
        fitted = fitted_of(system="prior", prior_smoothing_s=1, prior_statistic="median")
        fitted.fit(train, val, no_features)
        before = fitted.offset(out, 20)
        fitted.refit([(sample_of(3, 0, labels), None), *[(item, None) for item in val[1:]]])
        assert np.abs(fitted.offset(out, 20) - before).max() > 0
        offsets.append(fitted.offset(val[0], 20))
    np.testing.assert_array_equal(*offsets)


# ---- lag


@pytest.mark.parametrize("system", ["ridge", "signal", "fused"])
@pytest.mark.parametrize("lag_s", [0, 2, 5])
def test_automatic_lag_is_the_lag_of_the_labels(rng: np.random.Generator, system: str, lag_s: int):
    train, val, _, features = lagged_data(rng, lag_s)
    fitted = fitted_of(system=system)
    fitted.fit(train, val, features)
    assert fitted.lag_s == lag_s


def test_configured_lag_is_kept(rng: np.random.Generator):
    train, val, _, features = lagged_data(rng, 2)
    for system, read in (("ridge", features), ("signal", no_features)):
        fitted = fitted_of(system=system, target_lag_s=4)
        fitted.fit(train, val, read)
        assert fitted.lag_s == 4


def test_automatic_lag_is_zero_for_a_network_without_feature_streams(rng: np.random.Generator):
    train, val, _, _ = lagged_data(rng, 3)
    fitted = fitted_of((), system="signal")
    fitted.fit(train, val, no_features)
    assert fitted.lag_s == 0


@pytest.mark.parametrize("system", ["signal", "fused"])
@pytest.mark.parametrize("lag_s", [0, 1, 3])
def test_perfect_output_gives_the_labels_back_after_the_lag(rng: np.random.Generator, system: str, lag_s: int):
    samples = random_samples(rng, range(5), LENGTHS)
    fitted = fitted_of(system=system, target_lag_s=lag_s, prior_smoothing_s=3)
    fitted.fit(samples[:12], samples[12:], no_features)
    for sample in samples:
        target = fitted.target(sample)[TARGET]
        num_known = len(target) - lag_s
        assert np.isfinite(target[:num_known]).all() and np.isnan(target[num_known:]).all()
        answer = fitted.apply(sample, output_of(sample, np.nan_to_num(target, nan=-999.0))).values[TARGET]
        np.testing.assert_allclose(answer[lag_s:], sample.target[TARGET][lag_s:], atol=1e-4)
        residual = sample.target[TARGET] - fitted.offset(sample, len(target))
        first = fitted.offset(sample, len(target))[:lag_s] + residual[lag_s]
        np.testing.assert_allclose(answer[:lag_s], first, atol=1e-4)


@pytest.mark.parametrize("num_seconds", [1, 4, 5, 6])
def test_trial_about_as_long_as_the_lag_has_what_targets_there_are(rng: np.random.Generator, num_seconds: int):
    sample = sample_of(1, 1, rng.integers(1, 256, size=(num_seconds, 2)))
    fitted = fitted_of(system="signal", target_lag_s=5)
    fitted.fit([sample], [sample], no_features)
    target = fitted.target(sample)[TARGET]
    assert target.shape == (num_seconds, 2)
    assert np.isfinite(target).all(axis=1).sum() == max(num_seconds - 5, 0)
    answer = fitted.apply(sample, output_of(sample, np.zeros((num_seconds, 2)))).values[TARGET]
    np.testing.assert_array_equal(answer, fitted.offset(sample, num_seconds))


# ---- ridge


def test_ridge_answers_people_it_never_saw_after_the_lag(rng: np.random.Generator):
    train, val, out, features = lagged_data(rng, 2)
    fitted = fitted_of(system="ridge")
    fitted.fit(train, val, features)
    for item in out:
        answer = fitted.apply(item, fitted.raw_output(item, features)).values[TARGET]
        assert np.abs(answer - item.target[TARGET])[2:].mean() < 2.0
    median = fitted_of(system="median")
    median.fit(train, val, no_features)
    assert (
        mae(fitted, [(i, fitted.raw_output(i, features)) for i in out]).mean()
        < 0.5 * mae(median, [(i, None) for i in out]).mean()
    )


def test_only_ridge_stands_in_for_a_network(rng: np.random.Generator):
    train, val, _, features = lagged_data(rng, 0)
    for system in SYSTEMS:
        fitted = fitted_of(system=system, target_lag_s=0)
        fitted.fit(train, val, features)
        assert (fitted.raw_output(val[0], features) is not None) is (system == "ridge")


@pytest.mark.parametrize("system", ["signal", "fused"])
def test_network_on_a_ridge_is_trained_on_what_ridge_leaves(rng: np.random.Generator, system: str):
    train, val, out, features = lagged_data(rng, 2)
    fitted = fitted_of(system=system, ridge_base=True)
    fitted.fit(train, val, features)
    assert fitted.lag_s == 2
    for item in train:
        left = fitted.target(item)[TARGET]
        linear = fitted.ridge.predict(item, features)
        residual = item.target[TARGET] - fitted.offset(item, len(left))
        np.testing.assert_allclose(left[:-2] + linear[:-2], residual[2:], atol=1e-4)
        assert np.isnan(left[-2:]).all()
    for item in out:
        zero = output_of(item, np.zeros_like(item.target[TARGET]))
        both = fitted.raw_output(item, features, zero)
        assert both is not None
        np.testing.assert_array_equal(both.values[TARGET], fitted.ridge.predict(item, features))


def test_ridge_without_feature_streams_is_refused(rng: np.random.Generator):
    train, val, _, _ = lagged_data(rng, 0)
    with pytest.raises(DataError, match=r"ridge: the model reads no feature stream; name one with ps\.ridge_streams"):
        fitted_of((), system="ridge").fit(train, val, no_features)


def test_ridge_without_validation_rows_is_refused(rng: np.random.Generator):
    train, _, _, features = lagged_data(rng, 0)
    with pytest.raises(DataError, match=r"ridge: there are .* training and 0 validation rows, need both"):
        fitted_of(system="ridge").fit(train, [], features)


def test_ridge_with_trials_shorter_than_the_lag_is_refused(rng: np.random.Generator):
    train, val, _, features = lagged_data(rng, 0)
    with pytest.raises(DataError, match=r"clips must be longer than the label lag \(set ps\.target_lag_s\)"):
        fitted_of(system="ridge", target_lag_s=30).fit(train, val, features)


# ---- honesty and keeping


@pytest.mark.parametrize("system", SYSTEMS)
def test_nothing_is_learned_from_other_rows_than_training_and_validation(rng: np.random.Generator, system: str):
    train, val, out, features = lagged_data(rng, 1)
    asked: list[str] = []

    def watched(clip_id: str, stream: str) -> Signal | None:
        asked.append(clip_id)
        return features(clip_id, stream)

    fitted = fitted_of(system=system)
    fitted.fit(train, val, watched)
    assert not {item.clip_id for item in out} & set(asked)
    states = []
    for labels in (out[0].target[TARGET], 256 - out[0].target[TARGET]):
        fitted.apply(sample_of(5, 0, labels), None)
        states.append(fitted.state())
    assert states[0][1] == states[1][1]
    for name, array in states[0][0].items():
        np.testing.assert_array_equal(array, states[1][0][name])


def test_answers_do_not_depend_on_the_labels_of_the_sample(rng: np.random.Generator):
    train, val, out, features = lagged_data(rng, 1)
    fitted = fitted_of(system="fused", target_lag_s=1)
    fitted.fit(train, val, features)
    blank = Sample(
        sample_id=out[0].sample_id, clip_id=out[0].clip_id, groups=out[0].groups, duration_s=out[0].duration_s
    )
    np.testing.assert_array_equal(fitted.apply(out[0], None).values[TARGET], fitted.apply(blank, None).values[TARGET])


@pytest.mark.parametrize("statistic", ["median", "midmean", "mean"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_state_gives_the_same_answers_to_the_last_bit(rng: np.random.Generator, system: str, statistic: str):
    train, val, out, features = lagged_data(rng, 3, noise=8.0)
    fitted = fitted_of(system=system, prior_statistic=statistic)
    fitted.fit(train, val, features)
    raw = {item.sample_id: fitted.raw_output(item, features) for item in (*val, *out)}
    for item in (*val, *out):
        if raw[item.sample_id] is None and system in ("signal", "fused"):
            raw[item.sample_id] = output_of(item, rng.normal(0, 10, size=(len(item.target[TARGET]), 2)))
    known = [(item, output) for item in val if (output := raw[item.sample_id]) is not None]
    on_train = [(item, output_of(item, rng.normal(0, 10, (len(item.target[TARGET]), 2)))) for item in train]
    fitted.calibrate(known, on_train)
    arrays, values = fitted.state()
    again = fitted_of((), system=system)
    again.load_state({name: array.copy() for name, array in arrays.items()}, json.loads(json.dumps(values)))
    for item in (*val, *out):
        own, other = fitted.raw_output(item, features), again.raw_output(item, features)
        assert (own is None) == (other is None)
        if own is not None and other is not None:
            assert own.values[TARGET].tobytes() == other.values[TARGET].tobytes()
        left, right = (part.apply(item, raw[item.sample_id]) for part in (fitted, again))
        assert left.key == right.key == (item.sample_id, 0.0, item.duration_s)
        assert left.values[TARGET].tobytes() == right.values[TARGET].tobytes()
    kept = again.state()
    assert kept[1] == values
    assert all(kept[0][name].tobytes() == array.tobytes() for name, array in arrays.items())


def test_state_holds_medians_and_nobodys_labels(rng: np.random.Generator):
    samples = random_samples(rng, range(5), LENGTHS, num_clips=2)
    fitted = fitted_of(system="prior")
    fitted.fit(samples[:8], samples[8:], no_features)
    arrays, _ = fitted.state()
    curves = {name: array for name, array in arrays.items() if name.startswith("prior/")}
    assert sorted(curves) == ["prior/video_0", "prior/video_1"]
    assert all(array.shape == (26, 2) and array.dtype == np.float32 for array in curves.values())
    for system in ("median", "signal", "ridge", "constant"):
        other = fitted_of(system=system, target_lag_s=0)
        other.prior.fit(samples)
        assert not [name for name in other.state()[0] if name.startswith("prior/")]


def test_one_subject_without_validation_rows_gets_the_median(rng: np.random.Generator):
    train = random_samples(rng, range(1))
    fitted = fitted_of((), system="fused")
    fitted.fit(train, [], no_features)
    fitted.calibrate([])
    np.testing.assert_array_equal(fitted.offset(train[0], 20), np.tile(fitted.prior.median, (20, 1)))
    answer = fitted.apply(train[0], output_of(train[0], np.ones((20, 2)))).values[TARGET]
    np.testing.assert_array_equal(answer, np.tile(fitted.prior.median, (20, 1)) + 1)
