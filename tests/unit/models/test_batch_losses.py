"""Terms that compare the rows of a batch, against plain rewrites of their equations in numpy."""

import itertools
import math

import numpy as np
import pytest
import torch

from mersuite.models.batch_losses import (
    VARIANCE_FLOOR,
    contrast,
    information_bound,
    moment_discrepancy,
    normal_discrepancy,
    squared_error,
    subspace_overlap,
)

ROWS = torch.tensor([True, True, False, True, True, True, False, True])


def draw(seed, *, num_rows=8, width=3):
    return torch.rand(num_rows, width, generator=torch.Generator().manual_seed(seed))


def normal(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TERMS = {
    "squared_error": lambda x, y, rows: squared_error(x, y, rows),
    "moment_discrepancy": lambda x, y, rows: moment_discrepancy(x, y, rows),
    "subspace_overlap": lambda x, y, rows: subspace_overlap(x, y, rows),
    "normal_discrepancy": lambda x, y, rows: normal_discrepancy(x + y, rows),
    "contrast": lambda x, y, rows: contrast(x, y, rows, 0.5),
    "information_bound": lambda x, y, rows: information_bound(x, y, x * y, rows),
}
each_term = pytest.mark.parametrize("term", TERMS.values(), ids=TERMS)


# ---- what all of them keep to


@each_term
def test_rows_that_do_not_count_have_no_influence(term):
    one, other = draw(1), draw(2)
    expected = term(one[ROWS], other[ROWS], ROWS[ROWS])
    held = [torch.where(ROWS.unsqueeze(1), item, 50 * draw(3)).requires_grad_() for item in (one, other)]
    result = term(*held, ROWS)
    torch.testing.assert_close(result, expected)
    result.backward()
    for item in held:
        assert (item.grad[~ROWS] == 0).all()
        assert item.grad[ROWS].abs().max() > 0


@each_term
@pytest.mark.parametrize("num_rows", [0, 1, 2])
def test_value_and_gradient_are_finite_for_few_rows(term, num_rows):
    rows = torch.arange(8) < num_rows
    one, other = draw(1).requires_grad_(), draw(2).requires_grad_()
    value = term(one, other, rows)
    value.backward()
    assert value.isfinite()
    assert one.grad.isfinite().all()
    assert other.grad.isfinite().all()
    if num_rows == 0:
        assert value == 0


@each_term
def test_gradient_is_finite_where_all_rows_are_equal(term):
    one = torch.full((8, 3), 0.5, requires_grad=True)
    other = torch.full((8, 3), 0.5, requires_grad=True)
    term(one, other, ROWS).backward()
    assert one.grad.isfinite().all()
    assert other.grad.isfinite().all()


@each_term
def test_autocast_does_not_coarsen_a_term(term):
    one, other = draw(1), draw(2)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = term(one, other, ROWS)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, term(one, other, ROWS), rtol=1e-6, atol=1e-6)
    assert term(one.double(), other.double(), ROWS).dtype == torch.float64
    assert term(one.bfloat16(), other.bfloat16(), ROWS).dtype == torch.float32


# ---- squared error


def test_squared_error_is_the_mean_over_real_tokens_and_features():
    one, other, mask = normal(1, 2, 3, 4), normal(2, 2, 3, 4), torch.tensor([[True, False, False], [True, True, False]])
    expected = np.mean((one.numpy()[mask.numpy()] - other.numpy()[mask.numpy()]) ** 2)
    assert squared_error(one, other, mask).item() == pytest.approx(expected, rel=1e-6)


# ---- CMD


def plain_cmd(one, other, num_moments, span):
    mean_one, mean_other = one.mean(0), other.mean(0)
    total = np.sqrt(((mean_one - mean_other) ** 2).sum()) / span
    for k in range(2, num_moments + 1):
        moments = ((one - mean_one) ** k).mean(0) - ((other - mean_other) ** k).mean(0)
        total += np.sqrt((moments**2).sum()) / span**k
    return total


@pytest.mark.parametrize(("num_moments", "span"), [(1, 1.0), (5, 1.0), (5, 2.0), (3, 0.5)])
def test_moment_discrepancy_follows_its_formula(num_moments, span):
    one, other = draw(1).double(), draw(2).double() ** 2
    kept = ROWS.numpy()
    expected = plain_cmd(one.numpy()[kept], other.numpy()[kept], num_moments, span)
    assert moment_discrepancy(one, other, ROWS, num_moments, span).item() == pytest.approx(expected, rel=1e-12)


def test_moment_discrepancy_is_zero_for_equal_distributions_and_sees_every_moment():
    one, rows = draw(1, num_rows=64).double(), torch.ones(64, dtype=torch.bool)
    assert moment_discrepancy(one, one.flip(0), rows) < 1e-12
    moved, widened = one + 0.1, one.mean(0) + 1.5 * (one - one.mean(0))
    assert moment_discrepancy(one, moved, rows).item() == pytest.approx(0.1 * math.sqrt(3), rel=1e-9)
    assert moment_discrepancy(one, widened, rows) > 0.05
    assert moment_discrepancy(one, widened, rows, 1) < 1e-12
    skewed = torch.tensor([[0.0], [0.0], [0.0], [4.0]], dtype=torch.float64) / 4
    mirrored = 2 * skewed.mean() - skewed  # equal mean and variance, third moment turned round
    assert moment_discrepancy(skewed, mirrored, rows[:4], 2) < 1e-12
    assert moment_discrepancy(skewed, mirrored, rows[:4], 3) > 0.1


# ---- difference


def plain_overlap(one, other):
    total = 0.0
    parts = []
    for values in (one, other):
        centred = values - values.mean(0)
        parts.append(centred / np.linalg.norm(centred, axis=1, keepdims=True))
    for i in range(one.shape[1]):
        for j in range(other.shape[1]):
            total += (parts[0][:, i] * parts[1][:, j]).sum() ** 2
    return total / len(one) ** 2


def test_overlap_follows_its_formula():
    one, other = draw(1).double(), draw(2).double()
    kept = ROWS.numpy()
    expected = plain_overlap(one.numpy()[kept], other.numpy()[kept])
    assert subspace_overlap(one, other, ROWS).item() == pytest.approx(expected, rel=1e-9)


def test_overlap_is_zero_for_orthogonal_and_largest_for_equal_subspaces():
    rows = torch.ones(8, dtype=torch.bool)
    one = torch.tensor([1.0, 1, 1, 1, -1, -1, -1, -1], dtype=torch.float64)
    other = torch.tensor([1.0, 1, -1, -1, 1, 1, -1, -1], dtype=torch.float64)  # orthogonal to it, over the batch
    none = torch.zeros_like(one)
    fixed = torch.stack([one, none, none], dim=1)
    found = []
    for angle in np.linspace(0, np.pi / 2, 7):
        turned = torch.stack([none, np.cos(angle) * one, np.sin(angle) * other], dim=1)
        found.append(subspace_overlap(fixed, turned, rows).item())
        assert found[-1] == pytest.approx(np.cos(angle) ** 2, abs=1e-9)
    assert all(near > far for near, far in itertools.pairwise(found))


def test_overlap_in_many_directions_is_at_most_that_with_itself():
    rows = torch.ones(16, dtype=torch.bool)
    for seed in range(20):
        one, other = normal(seed, 16, 5).double(), normal(100 + seed, 16, 5).double()
        bound = (subspace_overlap(one, one, rows) * subspace_overlap(other, other, rows)).sqrt()
        assert 0 < subspace_overlap(one, other, rows) < bound <= 1


# ---- MMD


def test_normal_discrepancy_agrees_with_draws_from_the_prior():
    vectors = normal(1, 6, 3).double() * 0.7 + 0.4
    x, rng = vectors.numpy(), np.random.default_rng(0)
    z, other = rng.normal(size=(200_000, 3)), rng.normal(size=(200_000, 3))

    def kernel(a, b):
        return np.exp(-((a - b) ** 2).sum(-1) / (2 * 3))

    among = np.mean([kernel(a, b) for a in x for b in x])
    across = np.mean([kernel(a, z).mean() for a in x])
    expected = among - 2 * across + kernel(z, other).mean()
    found = normal_discrepancy(vectors, torch.ones(6, dtype=torch.bool)).item()
    assert found == pytest.approx(expected, abs=2e-3)
    assert found > 0.05  # so that the tolerance means something


def test_normal_discrepancy_is_least_for_the_prior_and_never_negative():
    rows = torch.ones(1000, dtype=torch.bool)
    base = normal(2, 1000, 4)
    found = {
        "prior": normal_discrepancy(base, rows),
        "moved": normal_discrepancy(base + 0.5, rows),
        "narrow": normal_discrepancy(base * 0.5, rows),
        "wide": normal_discrepancy(base * 2.0, rows),
    }
    assert 0 <= found["prior"] < 2e-3
    assert all(found[name] > 10 * found["prior"] for name in ("moved", "narrow", "wide"))
    assert normal_discrepancy(normal(3, 4, 8), rows[:4]) >= 0


# ---- InfoNCE


def test_contrast_follows_its_formula():
    seen, wanted, temperature = normal(1, 8, 3).double(), normal(2, 8, 3).double(), 0.3
    s, w = seen.numpy()[ROWS.numpy()], wanted.numpy()[ROWS.numpy()]
    terms = []
    for i in range(len(w)):
        scores = [s[i] @ w[j] / np.linalg.norm(s[i]) / np.linalg.norm(w[j]) / temperature for j in range(len(w))]
        terms.append(np.log(np.exp(scores).sum()) - scores[i])
    assert contrast(seen, wanted, ROWS, temperature).item() == pytest.approx(np.mean(terms), rel=1e-9)


def test_information_counted_by_contrast_stays_below_the_log_of_the_batch():
    rows = torch.ones(32, dtype=torch.bool)
    for seed, temperature in itertools.product(range(5), (0.01, 0.1, 1.0)):
        wanted = normal(seed, 32, 16)
        assert math.log(32) - contrast(wanted, wanted, rows, temperature) <= math.log(32)
    told = math.log(32) - contrast(wanted, wanted, rows, 0.01)
    untold = math.log(32) - contrast(normal(9, 32, 16), wanted, rows, 1.0)
    assert told == pytest.approx(math.log(32), abs=1e-3)
    assert untold < 0.2
    assert contrast(wanted, wanted, torch.arange(32) == 5) == 0


# ---- Barber-Agakov


def correlated(rho, num_rows=20_000, width=3):
    """y = rho x + sqrt(1 - rho^2) e in every feature: I(x; y) = -width / 2 log(1 - rho^2)."""
    x, noise = normal(1, num_rows, width).double(), normal(2, num_rows, width).double()
    return x, rho * x + math.sqrt(1 - rho**2) * noise, -width / 2 * math.log(1 - rho**2)


def test_information_bound_follows_its_formula():
    y, mean, log_variance = (normal(seed, 8, 3).double() for seed in (1, 2, 3))
    kept = ROWS.numpy()
    a, m, v = y.numpy()[kept], mean.numpy()[kept], np.exp(log_variance.numpy()[kept])
    density = np.prod(np.exp(-((a - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v), axis=1)
    covariance = np.cov(a.T, bias=True) + VARIANCE_FLOOR * np.eye(3)
    entropy = 0.5 * np.log(np.linalg.det(2 * np.pi * np.e * covariance))
    expected = np.log(density).mean() + entropy
    assert information_bound(y, mean, log_variance, ROWS).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6, 0.9])
def test_information_bound_reaches_the_truth_with_the_true_density_and_lies_below_with_any_other(rho):
    x, y, truth = correlated(rho)
    rows = torch.ones(len(x), dtype=torch.bool)
    best = torch.full_like(x, math.log(1 - rho**2))
    reached = information_bound(y, rho * x, best, rows)
    assert reached.item() == pytest.approx(truth, abs=0.03)
    for mean, log_variance in [
        (rho * x + 0.2, best),
        (rho * x, best + 0.5),
        (rho * x, best - 0.5),
        ((rho - 0.3) * x, best),
    ]:
        assert information_bound(y, mean, log_variance, rows) < truth - 0.03


def test_information_bound_grows_with_the_correlation():
    found = []
    for rho in (0.1, 0.3, 0.5, 0.7, 0.9):
        x, y, _ = correlated(rho)
        log_variance = torch.full_like(x, math.log(1 - rho**2))
        found.append(information_bound(y, rho * x, log_variance, torch.ones(len(x), dtype=torch.bool)).item())
    assert all(less < more for less, more in itertools.pairwise(found))


def test_information_bound_stays_finite_with_fewer_rows_than_features():
    vectors = normal(1, 4, 16).requires_grad_()
    value = information_bound(vectors, torch.zeros(4, 16), torch.zeros(4, 16), torch.ones(4, dtype=torch.bool))
    value.backward()
    assert value.isfinite()
    assert vectors.grad.isfinite().all()
