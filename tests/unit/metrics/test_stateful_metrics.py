import numpy as np
import pytest
import torch

from mersuite.metrics.ccc import ccc
from mersuite.metrics.mae import mae, mse
from mersuite.metrics.pearson import pearson
from mersuite.metrics.stateful import Concordance, Correlation, MeanAbsolute, MeanSquared

CASES = [
    (MeanAbsolute, mae),
    (MeanSquared, mse),
    (lambda: Concordance(2, center=128.0), ccc),
    (lambda: Correlation(2), pearson),
]


def _rows():
    rng = np.random.default_rng(0)
    target = rng.uniform(1, 255, size=(1000, 2)).astype(np.float32)
    return torch.from_numpy(0.5 * target + rng.normal(60, 20, target.shape).astype(np.float32)), torch.from_numpy(
        target
    )


@pytest.mark.parametrize(("build", "pure"), CASES)
def test_batches_give_the_number_of_all_rows(build, pure):
    pred, target = _rows()
    metric = build()
    for start, stop in [(0, 7), (7, 600), (600, 1000)]:
        metric.update(pred[start:stop], target[start:stop])
    np.testing.assert_allclose(metric.compute().numpy(), pure(pred.numpy(), target.numpy()), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("build", "pure"), CASES)
def test_two_processes_reduce_to_the_number_of_all_rows(build, pure):
    pred, target = _rows()
    parts = [build(), build()]
    parts[0].update(pred[:300], target[:300])
    parts[1].update(pred[300:], target[300:])
    whole = build()
    for name, reduce in whole._reductions.items():
        setattr(whole, name, reduce(torch.stack([getattr(part, name) for part in parts])))
    whole._update_count = 1
    np.testing.assert_allclose(whole.compute().numpy(), pure(pred.numpy(), target.numpy()), rtol=0, atol=1e-9)


def test_reset_forgets_earlier_rows():
    pred, target = _rows()
    metric = Concordance(2)
    metric.update(pred, target)
    metric.reset()
    metric.update(target, target)
    np.testing.assert_allclose(metric.compute().numpy(), [1.0, 1.0], atol=1e-9)


def test_constant_predictions_score_zero_across_batches():
    _, target = _rows()
    metric = Correlation(2)
    for part in target.split(100):
        metric.update(torch.full_like(part, 0.1), part)
    assert metric.compute().tolist() == [0.0, 0.0]


def test_half_precision_models_keep_float64_sums():
    metric = MeanAbsolute().half()
    assert metric.total.dtype == torch.float64


def test_directions_are_facts_of_the_class():
    assert MeanAbsolute.higher_is_better is False and MeanSquared.higher_is_better is False
    assert Concordance.higher_is_better is True and Correlation.higher_is_better is True
