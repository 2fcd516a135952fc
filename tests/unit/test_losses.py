import math

import numpy as np
import pytest
import torch

from mersuite.errors import ConfigError, DataError
from mersuite.losses import (
    LossConfig,
    ccc_loss,
    cross_entropy,
    huber_loss,
    l1_loss,
    mse_loss,
    quantile_loss,
    regression_loss,
)

NAMES = ["l1", "mse", "huber", "quantile", "ccc"]


def rows(seed=0, shape=(5, 7, 2)):
    generator = torch.Generator().manual_seed(seed)
    preds = torch.randn(shape, generator=generator, dtype=torch.float64) * 40 + 128
    target = torch.randn(shape, generator=generator, dtype=torch.float64) * 50 + 120
    return preds, target


def test_losses_equal_those_of_pytorch():
    preds, target = rows()
    torch.testing.assert_close(l1_loss(preds, target), torch.nn.functional.l1_loss(preds, target))
    torch.testing.assert_close(mse_loss(preds, target), torch.nn.functional.mse_loss(preds, target))
    expected = torch.nn.functional.huber_loss(preds, target, delta=20.0)
    torch.testing.assert_close(huber_loss(preds, target, delta=20.0), expected)


def test_quantile_loss_equals_that_of_scikit_learn():
    from sklearn.metrics import mean_pinball_loss

    preds, target = rows()
    expected = mean_pinball_loss(target.numpy().ravel(), preds.numpy().ravel(), alpha=0.9)
    assert quantile_loss(preds, target, quantile=0.9).item() == pytest.approx(expected, rel=1e-12)


def test_ccc_loss_equals_lins_formula_in_numpy():
    preds, target = rows()
    expected = []
    for dim in range(2):
        x, y = preds[..., dim].numpy().ravel(), target[..., dim].numpy().ravel()
        covariance = np.mean((x - x.mean()) * (y - y.mean()))
        expected.append(1 - 2 * covariance / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))
    assert ccc_loss(preds, target).item() == pytest.approx(np.mean(expected), rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_masked_and_unknown_rows_are_as_if_removed(name):
    config = LossConfig(name=name, ccc_weight=0.5, huber_delta=10.0, quantile=0.3)
    preds, target = rows()
    bare = regression_loss(config, preds[:3, :4], target[:3, :4])
    mask = torch.zeros(5, 7, dtype=torch.bool)
    mask[:3, :4] = True
    torch.testing.assert_close(regression_loss(config, preds, target, mask), bare)
    unknown = target.clone()
    unknown[~mask] = math.nan
    torch.testing.assert_close(regression_loss(config, preds, unknown), bare)


@pytest.mark.parametrize("name", NAMES)
def test_weight_two_is_as_the_sample_twice(name):
    config = LossConfig(name=name, ccc_weight=0.5)
    preds, target = rows()
    twice = [0, 1, 1, 2, 3, 4]
    weight = torch.tensor([1.0, 2.0, 1.0, 1.0, 1.0])
    expected = regression_loss(config, preds[twice], target[twice])
    torch.testing.assert_close(regression_loss(config, preds, target, weight=weight), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("case", ["nothing counts", "constant", "equal", "one dimension unknown"])
def test_value_and_gradient_stay_finite(name, case):
    preds, target = rows()
    preds, target = preds.float(), target.float()
    if case == "nothing counts":
        target[:] = math.nan
    elif case == "constant":
        preds[:], target[:] = 128.0, 100.0
    elif case == "equal":
        preds = target.clone()
    else:
        target[..., 1] = math.nan
    preds.requires_grad_(True)
    loss = regression_loss(LossConfig(name=name, ccc_weight=1.0), preds, target)
    loss.backward()
    assert loss.isfinite()
    assert preds.grad.isfinite().all()
    if case == "nothing counts":
        assert loss == 0


def test_ccc_loss_of_constants_is_one_and_of_equals_zero():
    constant = torch.full((4, 1), 3.0)
    assert ccc_loss(constant, constant).item() == 1.0
    varied = torch.arange(4.0).unsqueeze(1)
    assert ccc_loss(varied, varied).item() == pytest.approx(0.0, abs=1e-6)


def test_gradients_agree_with_finite_differences():
    preds, target = rows(shape=(3, 2))
    preds.requires_grad_(True)
    for name in NAMES:
        config = LossConfig(name=name, ccc_weight=0.3)
        assert torch.autograd.gradcheck(lambda x, config=config: regression_loss(config, x, target), (preds,))


def test_least_l1_is_the_median_and_least_pinball_the_quantile():
    target = torch.tensor([0.0, 1.0, 2.0, 3.0, 100.0])
    grid = torch.arange(0.0, 101.0)
    l1 = torch.stack([l1_loss(value.expand(5), target) for value in grid])
    assert grid[l1.argmin()] == 2.0
    pinball = torch.stack([quantile_loss(value.expand(5), target, quantile=0.7) for value in grid])
    assert grid[pinball.argmin()] == 3.0


def test_auxiliary_term_is_added_with_its_weight():
    preds, target = rows()
    both = regression_loss(LossConfig(name="l1", ccc_weight=2.0), preds, target)
    torch.testing.assert_close(both, l1_loss(preds, target) + 2.0 * ccc_loss(preds, target))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_equals_pytorchs_mean_over_known_rows(smoothing, weighted):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 4, 3, generator=generator)
    target = torch.randint(0, 3, (6, 4), generator=generator)
    class_weights = torch.tensor([1.0, 2.0, 0.5]) if weighted else None
    known, mask = target.clone(), torch.ones(6, 4, dtype=torch.bool)
    known[0, 1] = -1
    mask[2] = False
    kept = (known >= 0) & mask
    expected = torch.nn.functional.cross_entropy(
        logits[kept], target[kept], weight=class_weights, label_smoothing=smoothing
    )
    result = cross_entropy(logits, known, mask, class_weights=class_weights, label_smoothing=smoothing)
    torch.testing.assert_close(result, expected)


def test_cross_entropy_of_no_known_row_is_zero():
    logits = torch.randn(2, 3, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([-1, -1]), class_weights=torch.ones(3))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_shapes_that_do_not_fit_are_refused():
    preds, target = rows()
    with pytest.raises(DataError, match=r"predictions \(5, 7, 2\) and target \(5, 7, 1\) differ in shape"):
        l1_loss(preds, target[..., :1])
    with pytest.raises(DataError, match=r"mask \(7,\) does not fit the first axes of \(5, 7, 2\)"):
        l1_loss(preds, target, torch.ones(7, dtype=torch.bool))
    with pytest.raises(DataError, match=r"logits \(2, 3\) need a target \(2,\), got \(3,\)"):
        cross_entropy(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quantile": 1.0}, "quantile: need 0 < quantile < 1, got 1.0"),
        ({"huber_delta": 0.0}, "huber_delta: need an error above 0, got 0.0"),
        ({"ccc_weight": -1.0}, "ccc_weight: need 0 or more, got -1.0"),
    ],
)
def test_values_out_of_range_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        LossConfig(**values)
