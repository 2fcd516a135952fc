"""Weighted F1 (WAF), accuracy and what explains them, for one label a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mersuite.errors import DataError


def confusion_counts(pred: Sequence[str], target: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Counts rows by their truth and their answer.

    Args:
        pred: (row,) labels.
        target: (row,) labels.
        labels: Every label that may occur, each once.

    Returns:
        (label, label) int64; entry [i, j] counts rows whose truth is labels[i] and whose answer is labels[j].

    Raises:
        DataError: If the lengths differ, there is no row, or a label is none of labels.

    >>> confusion_counts(["a", "b", "b"], ["a", "a", "b"], ["a", "b"]).tolist()
    [[1, 1], [0, 1]]
    """
    if len(pred) != len(target) or not len(target):
        raise DataError(f"waf: need one answer a truth, got {len(pred)} answers for {len(target)} truths")
    place = {label: index for index, label in enumerate(labels)}
    unknown = sorted({*pred, *target} - place.keys())
    if unknown:
        raise DataError(f"waf: {unknown[0]!r} is none of the labels {', '.join(labels)}")
    rows = [place[label] for label in target]
    columns = [place[label] for label in pred]
    flat = np.bincount(np.asarray(rows) * len(place) + np.asarray(columns), minlength=len(place) ** 2)
    return flat.reshape(len(place), len(place))


def f1_of(counts: np.ndarray) -> np.ndarray:
    """Gives each label's F1, 2 TP / (2 TP + FP + FN), 0 where it is undefined; (label,) float64.

    Args:
        counts: (..., label, label), as confusion_counts gives.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    divisor = counts.sum(-1) + counts.sum(-2)
    return np.divide(2 * hits, divisor, out=np.zeros_like(hits), where=divisor > 0)


def waf_of(counts: np.ndarray) -> float:
    """Gives the weighted F1: the F1 of each label, weighted by its share of the truth.

    Source: the organisers' metric of MER-Cross; scikit-learn's f1_score(average="weighted", zero_division=0) agrees.

    >>> round(waf_of(np.array([[1, 1], [0, 1]])), 4)
    0.6667
    """
    share = counts.sum(-1) / counts.sum()
    return float((share * f1_of(counts)).sum())


def accuracy_of(counts: np.ndarray) -> float:
    """Gives the share of rows whose answer is the truth."""
    return float(np.trace(counts) / counts.sum())


def label_metrics(pred: Sequence[Any], target: Sequence[Any], labels: Sequence[str] = ()) -> dict[str, float]:
    """Gives WAF, accuracy, unweighted recall and every label's F1 over rows with one label each.

    Args:
        pred: (row,) labels.
        target: (row,) labels.
        labels: Labels that may occur; () takes those that do, sorted.

    Returns:
        waf, acc, uar (mean recall over labels that occur in the truth), f1_<label> of each, and num_rows.

    Raises:
        DataError: As confusion_counts does.

    >>> found = label_metrics(["happy", "sad", "sad"], ["happy", "happy", "sad"])
    >>> round(found["waf"], 4), round(found["acc"], 4), found["num_rows"]
    (0.6667, 0.6667, 3.0)
    """
    names = tuple(labels) or tuple(sorted({*pred, *target}))
    counts = confusion_counts(pred, target, names)
    there = counts.sum(-1) > 0
    recall = np.diagonal(counts)[there] / counts.sum(-1)[there]
    return {
        "waf": waf_of(counts),
        "acc": accuracy_of(counts),
        "uar": float(recall.mean()),
        **{f"f1_{name}": float(value) for name, value in zip(names, f1_of(counts), strict=True)},
        "num_rows": float(counts.sum()),
    }
