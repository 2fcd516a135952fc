import itertools

import numpy as np
import pytest

from mersuite.errors import DataError
from mersuite.metrics.bootstrap import bootstrap_intervals, paired_bootstrap


def _mean_of(values):
    return lambda rows: {"mean": values[rows].mean()}


def test_interval_equals_enumeration_of_all_draws():
    values = np.array([1.0, 4.0, 9.0, 20.0])
    found = bootstrap_intervals(_mean_of(values), list("abcd"), seed=1, num_resamples=200_000)["mean"]
    means = [np.mean(draw) for draw in itertools.product(values, repeat=4)]
    assert found.value == values.mean()
    np.testing.assert_allclose([found.low, found.high], np.percentile(means, [2.5, 97.5]), atol=0.3)


def test_interval_of_many_groups_matches_the_normal_approximation():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 1, 400)
    found = bootstrap_intervals(_mean_of(values), [str(i) for i in range(400)], seed=0, num_resamples=4000)["mean"]
    half = 1.96 * values.std() / np.sqrt(400)
    np.testing.assert_allclose([found.low, found.high], values.mean() + half * np.array([-1, 1]), atol=0.15 * half)


def test_rows_of_a_group_stay_together():
    groups = ["a"] * 3 + ["b"] * 5
    seen = []

    def score(rows):
        seen.append(tuple(np.bincount(rows, minlength=8)))
        return {"num": 1.0}

    bootstrap_intervals(score, groups, seed=0, num_resamples=50)
    assert set(seen) == {(1,) * 8, (2,) * 3 + (0,) * 5, (0,) * 3 + (2,) * 5}


def test_same_draw_is_scored_once():
    calls = []
    bootstrap_intervals(lambda rows: calls.append(1) or {"x": 0.0}, list("abc"), seed=0, num_resamples=1000)
    assert len(calls) <= 1 + 10


def test_seed_decides_the_interval():
    values = np.random.default_rng(1).normal(size=30)
    groups = [str(i) for i in range(30)]
    first, again, other = (
        bootstrap_intervals(_mean_of(values), groups, seed=seed, num_resamples=100)["mean"] for seed in (0, 0, 1)
    )
    assert first == again and first != other


def test_one_group_has_no_interval():
    assert bootstrap_intervals(_mean_of(np.ones(3)), ["a"] * 3, seed=0) == {}
    assert paired_bootstrap(_mean_of(np.ones(3)), _mean_of(np.ones(3)), ["a"] * 3, seed=0) == {}


def test_paired_difference_is_narrow_where_groups_differ_and_systems_shift():
    rng = np.random.default_rng(2)
    people = rng.normal(0, 20, 24)
    first, second = people + rng.normal(-1.0, 0.1, 24), people
    found = paired_bootstrap(_mean_of(first), _mean_of(second), [f"s{i}" for i in range(24)], seed=0)["mean"]
    assert found.high - found.low < 0.2 and found.high < 0 and found.p_value < 0.01
    np.testing.assert_allclose(found.value, (first - second).mean(), atol=1e-12)


def test_equal_systems_have_p_value_one():
    values = np.arange(10.0)
    found = paired_bootstrap(_mean_of(values), _mean_of(values), [str(i) for i in range(10)], seed=0)["mean"]
    assert (found.value, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_paired_bootstrap_is_calibrated_under_the_null():
    rng = np.random.default_rng(3)
    groups = [str(i) for i in range(24)]
    small = 0
    for trial in range(60):
        gap = rng.normal(0, 1, 24)
        small += (
            paired_bootstrap(_mean_of(gap), _mean_of(np.zeros(24)), groups, seed=trial, num_resamples=200)[
                "mean"
            ].p_value
            < 0.05
        )
    assert small <= 11


@pytest.mark.parametrize(
    ("knobs", "message"), [({"level": 1.0}, "level: need"), ({"num_resamples": 0}, "num_resamples: need")]
)
def test_impossible_options_are_refused(knobs, message):
    with pytest.raises(DataError, match=message):
        bootstrap_intervals(_mean_of(np.ones(2)), ["a", "b"], seed=0, **knobs)
    with pytest.raises(DataError, match=message):
        paired_bootstrap(_mean_of(np.ones(2)), _mean_of(np.ones(2)), ["a", "b"], seed=0, **knobs)
