from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, recall_score

from mersuite.errors import DataError
from mersuite.metrics.waf import confusion_counts, f1_of, label_metrics, waf_of

LABELS = ("neutral", "angry", "happy", "sad", "worried", "surprise")


def draw(seed: int, num_rows: int, num_labels: int) -> tuple[list[str], list[str]]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, num_labels, num_rows)
    answer = np.where(generator.random(num_rows) < 0.5, truth, generator.integers(0, num_labels, num_rows))
    return [LABELS[i] for i in answer], [LABELS[i] for i in truth]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("num_rows", [1, 7, 400])
def test_waf_accuracy_and_recall_equal_scikit_learn(seed: int, num_rows: int) -> None:
    pred, target = draw(seed, num_rows, 1 + seed % 6)
    found = label_metrics(pred, target, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found["waf"] == pytest.approx(f1_score(target, pred, average="weighted", zero_division=0), abs=1e-12)
        assert found["acc"] == pytest.approx(accuracy_score(target, pred), abs=1e-12)
        seen = sorted(set(target))
        expected = recall_score(target, pred, average="macro", labels=seen, zero_division=0)
        assert found["uar"] == pytest.approx(expected, abs=1e-12)
        each = f1_score(target, pred, average=None, labels=LABELS, zero_division=0)
    assert [found[f"f1_{name}"] for name in LABELS] == pytest.approx(each.tolist(), abs=1e-12)


def test_confusion_rows_are_truths() -> None:
    pred, target = draw(3, 200, 6)
    assert np.array_equal(confusion_counts(pred, target, LABELS), confusion_matrix(target, pred, labels=LABELS))


def test_labels_that_never_occur_change_nothing() -> None:
    pred, target = draw(1, 50, 2)
    assert label_metrics(pred, target, LABELS)["waf"] == label_metrics(pred, target)["waf"]


def test_f1_of_an_absent_label_is_zero() -> None:
    assert f1_of(np.array([[2, 0], [0, 0]])).tolist() == [1.0, 0.0]
    assert waf_of(np.array([[0, 2], [0, 0]])) == 0.0


@pytest.mark.parametrize(
    ("pred", "target", "message"),
    [
        (["a"], ["a", "b"], "need one answer a truth, got 1 answers for 2 truths"),
        ([], [], "got 0 answers for 0 truths"),
        (["c"], ["a"], "'c' is none of the labels a, b"),
    ],
)
def test_rows_that_do_not_fit_are_refused(pred: list[str], target: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        confusion_counts(pred, target, ["a", "b"])
