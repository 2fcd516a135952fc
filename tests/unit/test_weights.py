import numpy as np
from scipy.optimize import linprog

from mersuite.weights import fit_weights


def _members(seed=0, num_members=4, num_rows=400):
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 30, num_rows)
    noise = rng.normal(0, 1, (num_members, num_rows)) * np.array([10, 14, 25, 60])[:num_members, None]
    return truth + noise + np.array([3, -4, 0, 20])[:num_members, None], truth


def _exact_l1(members, truth):
    """The least mean absolute error over the simplex, as a linear programme."""
    num_members, num_rows = members.shape
    cost = np.concatenate([np.zeros(num_members), np.full(num_rows, 1 / num_rows)])
    slack = -np.eye(num_rows)
    upper = np.block([[members.T, slack], [-members.T, slack]])
    found = linprog(
        cost,
        A_ub=upper,
        b_ub=np.concatenate([truth, -truth]),
        A_eq=[[1.0] * num_members + [0.0] * num_rows],
        b_eq=[1.0],
        bounds=(0, None),
    )
    return found.fun


def test_weights_reach_the_exact_minimum_of_the_absolute_error():
    for seed in range(4):
        members, truth = _members(seed)
        score = lambda weights: np.abs(weights @ members - truth).mean()  # noqa: E731, B023
        weights = fit_weights(score, 4)
        assert abs(weights.sum() - 1) < 1e-9 and (weights >= 0).all()
        assert score(weights) <= 1.005 * _exact_l1(members, truth)


def test_single_good_member_takes_all():
    members, truth = _members()
    members[1:] = 300.0
    members[0] = truth
    np.testing.assert_array_equal(fit_weights(lambda w: np.abs(w @ members - truth).mean(), 4), [1, 0, 0, 0])


def test_flat_score_is_decided_the_same_way_each_time():
    np.testing.assert_array_equal(fit_weights(lambda w: 1.0, 3), fit_weights(lambda w: 1.0, 3))


def test_same_weights_are_scored_once():
    seen = []
    fit_weights(lambda w: seen.append(tuple(np.round(w, 9))) or float(w @ [3.0, 1.0, 2.0]), 3)
    assert len(seen) == len(set(seen))
