"""What a track wants drawn in the report of a run or shown by `mersuite check`, as plain data.

Why data and not figures: tracks then need no plotting package, and every track's report looks alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckRow:
    """One line of `mersuite check`.

    Attributes:
        name: What was counted or tested.
        found: What is there.
        expected: The published figure or the rule; "" where there is none.
        ok: True, False for a fault that stops a run, None for a remark.
        hint: What cures it; "" when nothing needs curing.
    """

    name: str
    found: str
    expected: str = ""
    ok: bool | None = True
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One curve of a timeline.

    Attributes:
        name: For the legend.
        role: "truth", "main" (the run's own system) or "other"; decides its look.
        values: (row,) float, in the unit of the axis.
    """

    name: str
    role: str
    values: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """Answers over time beside the truth, one axis a dimension.

    Attributes:
        title: What is shown, such as the clip and its error.
        rate_hz: Rows per second.
        low: Lower end of the value axis.
        high: Upper end of the value axis.
        lines: Dimension name to its curves.
    """

    title: str
    rate_hz: float
    low: float
    high: float
    lines: Mapping[str, tuple[Line, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """How truth goes with predictions, one axis a dimension.

    Attributes:
        title: What is shown.
        low: Lower end of both axes.
        high: Upper end of both axes.
        preds: Dimension name to (row,) predictions.
        target: Dimension name to (row,) truth.
    """

    title: str
    low: float
    high: float
    preds: Mapping[str, np.ndarray]
    target: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """Which label was answered for which, a square a system.

    Attributes:
        title: What is shown.
        labels: Names, in the order of rows and columns.
        counts: System to (label, label) whole numbers; entry [i, j] counts rows of truth i answered as j.
    """

    title: str
    labels: tuple[str, ...]
    counts: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """One value for each name and system, side by side.

    Attributes:
        title: What is shown.
        axis: What the values are.
        names: Along the axis.
        values: System to (name,) values, the main one first.
    """

    title: str
    axis: str
    names: tuple[str, ...]
    values: Mapping[str, np.ndarray]


Panel = Timeline | Calibration | Confusion | Bars


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the page.

    Attributes:
        title: Its heading.
        text: A sentence or two on how to read it.
        panels: What is drawn, in order.
    """

    title: str
    text: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFigure:
    """A result that others published, to set a run beside.

    Attributes:
        system: What was run.
        protocol: On whom, and how it was split.
        metrics: The track's metric names to values.
        source: Who says so.
    """

    system: str
    protocol: str
    metrics: Mapping[str, float]
    source: str
