from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge as Reference
from sklearn.preprocessing import StandardScaler

from mersuite.errors import DataError
from tracks.ps.ridge import ALPHAS, Ridge, lagged_rows


def rows(rng: np.random.Generator, num_rows: int, weights: np.ndarray, noise: float = 1.0):
    scales = np.array([1e-6, 1.0, 40.0, 1e4])
    inputs = rng.normal(3.0, 1.0, size=(num_rows, 4)) * scales
    targets = (inputs / scales) @ weights + 5.0 + noise * rng.normal(size=(num_rows, 2))
    return inputs.astype(np.float32), targets.astype(np.float32)


@pytest.fixture
def weights(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(4, 2))


@pytest.mark.parametrize("num_train", [3, 200])
def test_ridge_agrees_with_scikit_learn_and_takes_the_best_penalty(
    rng: np.random.Generator, weights: np.ndarray, num_train: int
):
    train, val = rows(rng, num_train, weights, noise=3.0), rows(rng, 50, weights, noise=3.0)
    ridge = Ridge()
    best = ridge.fit(train, val)
    scaler = StandardScaler().fit(train[0].astype(np.float64))
    standard, val_standard = (scaler.transform(part[0].astype(np.float64)) for part in (train, val))
    preds = {
        alpha: Reference(alpha=alpha * num_train).fit(standard, train[1].astype(np.float64)).predict(val_standard)
        for alpha in ALPHAS
    }
    errors = {alpha: float(np.abs(item - val[1]).mean()) for alpha, item in preds.items()}
    assert ridge.alpha == min(errors, key=lambda alpha: errors[alpha])
    assert best == pytest.approx(errors[ridge.alpha], rel=1e-6)
    np.testing.assert_allclose(ridge.predict(val[0]), preds[ridge.alpha], rtol=1e-5, atol=1e-4)


def test_ridge_finds_an_exact_linear_relation(rng: np.random.Generator, weights: np.ndarray):
    train, val = rows(rng, 100, weights, noise=0.0), rows(rng, 30, weights, noise=0.0)
    ridge = Ridge()
    assert ridge.fit(train, val) < 0.01
    assert ridge.alpha == min(ALPHAS)


def test_feature_that_never_changes_has_no_weight(rng: np.random.Generator, weights: np.ndarray):
    train, val = rows(rng, 60, weights), rows(rng, 20, weights)
    train[0][:, 2] = 1000.1
    val[0][:, 2] = 5.0
    ridge = Ridge()
    ridge.fit(train, val)
    assert np.abs(ridge.weights[2]).max() < 1e-9
    assert np.isfinite(ridge.predict(val[0])).all()


@pytest.mark.parametrize(("num_train", "num_val"), [(0, 4), (4, 0)])
def test_ridge_without_rows_of_one_side_is_refused(num_train: int, num_val: int):
    sides = [(np.zeros((n, 3)), np.zeros((n, 2))) for n in (num_train, num_val)]
    with pytest.raises(DataError, match=f"ridge: there are {num_train} training and {num_val} validation rows"):
        Ridge().fit(*sides)


@pytest.mark.parametrize("lag_s", [0, 1, 3])
def test_features_meet_the_labels_that_follow_by_the_lag(lag_s: int):
    inputs = [np.arange(5.0)[:, None], 100 + np.arange(4.0)[:, None]]
    targets = [np.stack([x[:, 0], -x[:, 0]], axis=1) for x in inputs]
    found_inputs, found_targets = lagged_rows(inputs, targets, lag_s)
    assert len(found_inputs) == len(found_targets) == 9 - 2 * lag_s
    np.testing.assert_array_equal(found_targets[:, 0] - found_inputs[:, 0], lag_s)


def test_samples_not_longer_than_the_lag_give_no_rows():
    inputs, targets = lagged_rows([np.zeros((3, 1)), np.zeros((2, 1))], [np.zeros((3, 2)), np.zeros((2, 2))], 3)
    assert inputs.shape == (0, 0) and targets.shape == (0, 0)
