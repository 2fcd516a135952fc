"""Weights on a simplex for any score: greedy selection, then exchanges of ever smaller shares."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations

import numpy as np

NUM_ROUNDS = 20
SMALLEST_STEP = 1 / 64
"""Why no finer: a hundredth of a weight is far below what some tens of people can tell."""


def fit_weights(score: Callable[[np.ndarray], float], num_members: int) -> np.ndarray:
    """Gives weights (member,) float64, each 0 or more with sum 1, that make score small.

    First members are added one at a time, repeats allowed, always the one that helps most; the best stage is kept. Then
    shares move between pairs of members as long as that helps, in steps from 1/8 down to 1/64. Only values of the
    score are used, so any metric of decoded answers will do. The order of members breaks ties.

    Args:
        score: Weights to a number; lower is better.
        num_members: How many members.

    Source:
        Caruana et al. (2004), Ensemble selection from libraries of models, ICML; the exchanges are a pattern search.

    >>> fit_weights(lambda w: abs(w @ [0.0, 1.0] - 0.25), 2).tolist()
    [0.75, 0.25]
    """
    known: dict[tuple[float, ...], float] = {}

    def cached(weights: np.ndarray) -> float:
        key = tuple(np.round(weights, 9))
        if key not in known:
            known[key] = float(score(weights))
        return known[key]

    return _exchange(cached, _select(cached, num_members))


def _select(score: Callable[[np.ndarray], float], num_members: int) -> np.ndarray:
    counts = np.zeros(num_members)
    best, best_score = np.full(num_members, 1.0 / num_members), np.inf
    since = 0
    for _ in range(NUM_ROUNDS):
        trials = [(counts + unit) / (counts.sum() + 1) for unit in np.eye(num_members)]
        scores = [score(trial) for trial in trials]
        chosen = int(np.argmin(scores))
        counts[chosen] += 1
        since += 1
        if scores[chosen] < best_score:
            best, best_score, since = trials[chosen], scores[chosen], 0
        if since > num_members + 2:
            break
    return best


def _exchange(score: Callable[[np.ndarray], float], weights: np.ndarray) -> np.ndarray:
    current, step = score(weights), 1 / 8
    while step >= SMALLEST_STEP:
        improved = False
        for giver, taker in permutations(range(len(weights)), 2):
            trial = _moved(weights, giver, taker, step)
            if trial is not None and (found := score(trial)) < current - 1e-12 * abs(current):
                current, weights, improved = found, trial, True
        if not improved:
            step /= 2
    return weights


def _moved(weights: np.ndarray, giver: int, taker: int, step: float) -> np.ndarray | None:
    """Gives the weights with a share moved, or None where the giver has none."""
    share = min(step, weights[giver])
    if share <= 0:
        return None
    trial = weights.copy()
    trial[giver] -= share
    trial[taker] += share
    return trial
