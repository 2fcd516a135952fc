import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk_metrics

from mersuite.errors import DataError
from mersuite.metrics.ccc import ccc
from mersuite.metrics.mae import mae, mse
from mersuite.metrics.pearson import pearson


def _rows(seed=0, num_rows=501):
    rng = np.random.default_rng(seed)
    target = rng.uniform(1, 255, size=(num_rows, 2))
    return 0.4 * target + rng.normal(40, 30, size=(num_rows, 2)), target


def _ccc_by_definition(pred, target):
    num_rows = len(pred)
    mean_pred, mean_target = sum(pred) / num_rows, sum(target) / num_rows
    var_pred = sum((value - mean_pred) ** 2 for value in pred) / num_rows
    var_target = sum((value - mean_target) ** 2 for value in target) / num_rows
    cov = sum((p - mean_pred) * (t - mean_target) for p, t in zip(pred, target, strict=True)) / num_rows
    return 2 * cov / (var_pred + var_target + (mean_pred - mean_target) ** 2)


def test_mae_and_mse_agree_with_scikit_learn():
    pred, target = _rows()
    assert abs(mae(pred, target) - sk_metrics.mean_absolute_error(target, pred)) < 1e-9
    assert abs(mse(pred, target) - sk_metrics.mean_squared_error(target, pred)) < 1e-9


def test_pearson_agrees_with_scipy_per_column():
    pred, target = _rows(1)
    expected = [stats.pearsonr(pred[:, column], target[:, column]).statistic for column in (0, 1)]
    np.testing.assert_allclose(pearson(pred, target), expected, rtol=0, atol=1e-9)


def test_ccc_agrees_with_the_definition_in_plain_python():
    pred, target = _rows(2)
    expected = [_ccc_by_definition(pred[:, column].tolist(), target[:, column].tolist()) for column in (0, 1)]
    np.testing.assert_allclose(ccc(pred, target), expected, rtol=0, atol=1e-9)


def test_ccc_equals_pearson_times_bias_correction():
    pred, target = _rows(3)
    ratio = pred.std(0) / target.std(0)
    shift = (pred.mean(0) - target.mean(0)) / np.sqrt(pred.std(0) * target.std(0))
    bias = 2 / (ratio + 1 / ratio + shift**2)
    np.testing.assert_allclose(ccc(pred, target), pearson(pred, target) * bias, rtol=0, atol=1e-9)


@pytest.mark.parametrize("metric", [mae, mse, ccc, pearson])
def test_tensors_give_the_numbers_of_arrays(metric):
    pred, target = _rows(4)
    found = metric(torch.from_numpy(pred), torch.from_numpy(target))
    assert isinstance(found, torch.Tensor)
    np.testing.assert_allclose(found.numpy(), metric(pred, target), rtol=0, atol=1e-9)


@pytest.mark.parametrize("value", [0.1, 128.0, 1 / 3])
@pytest.mark.parametrize("num_rows", [3, 10, 997])
def test_constants_give_zero_and_identical_constants_agree(value, num_rows):
    constant = np.full(num_rows, value)
    varying = np.linspace(1, 255, num_rows)
    assert ccc(constant, varying) == 0 and ccc(varying, constant) == 0
    assert pearson(constant, varying) == 0 and pearson(constant, constant) == 0
    assert ccc(constant, constant) == 1
    assert ccc(constant, constant + 1e-3) == 0


def test_gradient_flows_through_ccc():
    pred = torch.tensor([1.0, 2.0, 4.0], requires_grad=True)
    ccc(pred, torch.tensor([1.0, 3.0, 4.0])).backward()
    assert torch.isfinite(pred.grad).all() and pred.grad.abs().sum() > 0


def test_rows_in_any_order_give_the_same_score():
    pred, target = _rows(5)
    order = np.random.default_rng(0).permutation(len(pred))
    np.testing.assert_allclose(ccc(pred[order], target[order]), ccc(pred, target), rtol=0, atol=1e-12)


def test_shapes_that_differ_are_refused():
    with pytest.raises(DataError, match=r"predictions have shape \(3,\), targets \(2,\)"):
        mae([1, 2, 3], [1, 2])


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="need at least one row"):
        ccc(np.empty((0, 2)), np.empty((0, 2)))
