"""What the report shows for ps alone: ratings over time beside the truth, and how well they are calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mersuite.clip import Prediction
from mersuite.errors import DataError, did_you_mean
from mersuite.panels import Calibration, Line, Section, Timeline
from tracks.ps.head import TARGET
from tracks.ps.layout import LABEL_MAX, LABEL_MIN
from tracks.ps.scores import DIMENSIONS

BESIDE = ("prior", "signal", "median", "constant")
MAX_BESIDE = 2
OVER_TIME = (
    "One person watching one film clip, held out when the system was trained. Chosen by the main system's mean "
    "absolute error over the clip, unless named."
)
CALIBRATED = (
    "Shade: how many seconds; line: mean truth of seconds with about the same prediction. On the diagonal, a "
    "prediction can be taken at its word; a flat line means that predictions say little about the truth."
)


def ps_sections(rows: Mapping[str, Sequence[Prediction]], clips: Sequence[str]) -> list[Section]:
    """Gives timelines of chosen trials and the calibration of the main system.

    Args:
        rows: Evaluation name to its out-of-fold rows with targets, the main one first.
        clips: Trials to draw over time; () takes the best, the median and the worst one.

    Raises:
        DataError: If a named trial is not among the rows.
    """
    main, *others = rows
    errors = {row.sample_id: float(np.abs(_values(row) - _truth(row)).mean()) for row in rows[main]}
    titles = _chosen(errors, clips)
    beside = [name for name in BESIDE if name in others][:MAX_BESIDE]
    tables = {name: {row.sample_id: row for row in rows[name]} for name in (main, *beside)}
    timelines = tuple(
        _timeline(f"{title}: mean absolute error {errors[sample_id]:.1f}", sample_id, tables, main)
        for sample_id, title in titles.items()
    )
    preds = np.concatenate([_values(row) for row in rows[main]])
    target = np.concatenate([_truth(row) for row in rows[main]])
    calibration = Calibration(
        title=f"{main}: {len(preds)} seconds",
        low=LABEL_MIN,
        high=LABEL_MAX,
        preds={name: preds[:, column] for column, name in enumerate(DIMENSIONS)},
        target={name: target[:, column] for column, name in enumerate(DIMENSIONS)},
    )
    return [
        Section(title="Valence and arousal over time", text=OVER_TIME, panels=timelines),
        Section(title="Predicted against true ratings", text=CALIBRATED, panels=(calibration,)),
    ]


def _chosen(errors: Mapping[str, float], clips: Sequence[str]) -> dict[str, str]:
    """Gives trial to title."""
    for name in clips:
        if name not in errors:
            raise DataError(
                f"clips: no trial {name!r} among the {len(errors)} held-out ones; {did_you_mean(name, errors)}"
            )
    if clips:
        return {name: name for name in clips}
    ranked = sorted(errors, key=lambda name: (errors[name], name))
    places = {"best": 0, "median": len(ranked) // 2, "worst": len(ranked) - 1}
    return {ranked[place]: f"{ranked[place]} ({which} of {len(ranked)})" for which, place in places.items()}


def _timeline(title: str, sample_id: str, tables: Mapping[str, Mapping[str, Prediction]], main: str) -> Timeline:
    truth = _truth(tables[main][sample_id])
    lines = {}
    for column, dimension in enumerate(DIMENSIONS):
        curves = [Line(name="truth", role="truth", values=truth[:, column])]
        curves += [
            Line(name=name, role="main" if name == main else "other", values=_values(table[sample_id])[:, column])
            for name, table in tables.items()
            if sample_id in table
        ]
        lines[dimension] = tuple(curves)
    return Timeline(title=title, rate_hz=1.0, low=LABEL_MIN, high=LABEL_MAX, lines=lines)


def _values(row: Prediction) -> np.ndarray:
    return np.asarray(row.answer, dtype=np.float64)


def _truth(row: Prediction) -> np.ndarray:
    return np.asarray(row.target[TARGET], dtype=np.float64)
