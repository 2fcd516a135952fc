"""The metrics of cross: WAF ranks, the rest explains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mersuite.errors import SubmissionError
from mersuite.metrics.waf import label_metrics
from tracks.cross.options import LABELS


def emotion_metrics(answers: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
    """Gives waf, acc, uar and num_rows; f1_<label> too where all labels are the challenge's six.

    Why not always: resampled rows need the same names as all rows have, and other label sets are not fixed.

    >>> found = emotion_metrics(["sad", "sad"], ["sad", "happy"])
    >>> round(found["waf"], 4), found["f1_happy"], found["num_rows"]
    (0.3333, 0.0, 2.0)
    """
    is_six = {*answers, *targets} <= set(LABELS)
    found = label_metrics(answers, targets, LABELS if is_six else ())
    return {name: value for name, value in found.items() if is_six or not name.startswith("f1_")}


def score_tables(pred: Mapping[str, str], target: Mapping[str, str]) -> dict[str, float]:
    """Scores answers against truths, joined by name; names without a truth are not counted, as the organisers do.

    Raises:
        SubmissionError: If a name with a truth has no answer.

    >>> score_tables({"b": "sad", "a": "happy", "c": "sad"}, {"a": "happy", "b": "sad"})["waf"]
    1.0
    """
    missing = [name for name in target if name not in pred]
    if missing:
        raise SubmissionError(
            f"{len(missing)} of {len(target)} names have no prediction: {', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}; predict the same split of the same data"
        )
    return emotion_metrics([pred[name] for name in target], list(target.values()))
