"""The figures of a report: intervals, groups, learning curves, timelines, calibration, scalp maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mersuite.panels import Calibration, Timeline
from mersuite.report.scalp import HEAD_RADIUS_M
from mersuite.report.svg import INK, MAIN, MAIN_RGB, MUTED, OTHERS, PAPER, drawing, inline_svg

WIDTH = 9.6
NUM_BINS = 12
MIN_BIN_ROWS = 5


def intervals_chart(
    values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]], main: str, metric: str
) -> str:
    """Draws one metric of every evaluation with its interval, in the order given."""
    names = list(values)
    with drawing(1, 1, (WIDTH, 0.6 + 0.32 * len(names))) as (figure, axes):
        ax = axes[0, 0]
        for row, name in enumerate(names):
            color = MAIN if name == main else MUTED
            if name in intervals:
                ax.plot(intervals[name], (row, row), color=color, linewidth=2.2, alpha=0.75)
            ax.plot(values[name], row, "o", color=color, markersize=7, markeredgecolor=PAPER, markeredgewidth=1.2)
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(axis="y", length=0, labelcolor=INK)
        ax.set_ylim(len(names) - 0.5, -0.5)
        ax.set_xlabel(f"{metric} with 95 % interval")
        ax.spines["left"].set_visible(False)
        return inline_svg(figure, "intervals", f"{metric} of {', '.join(names)}")


def groups_chart(
    groups: Mapping[str, float], beside: Mapping[str, Mapping[str, float]], main: str, by: str, metric: str
) -> str:
    """Draws one metric of every member of a group for the main system, sorted, with other systems beside it."""
    names = sorted(groups, key=lambda name: (groups[name], name))
    with drawing(1, 1, (WIDTH, 2.6)) as (figure, axes):
        ax = axes[0, 0]
        places = np.arange(len(names))
        ax.bar(places, [groups[name] for name in names], color=MAIN, width=0.62, label=main)
        for index, (system, values) in enumerate(beside.items()):
            heights = [values.get(name, np.nan) for name in names]
            color = OTHERS[index % len(OTHERS)]
            marker = {"marker": "_", "markersize": max(6.0, min(18.0, 220 / len(names))), "markeredgewidth": 2.4}
            ax.plot(places, heights, linestyle="none", color=color, label=system, **marker)
        tilted = len(names) > 8
        ax.set_xticks(places, names, rotation=45 if tilted else 0, ha="right" if tilted else "center")
        ax.tick_params(axis="x", length=0)
        ax.grid(visible=False, axis="x")
        ax.set_xlim(-0.6, len(names) - 0.4)
        ax.set_ylabel(metric)
        legend_above(ax)
        return inline_svg(figure, f"by-{by}", f"{metric} by {by}, from {names[0]} to {names[-1]}")


def curves_chart(curves: Mapping[str, Mapping[str, Mapping[int, Sequence[tuple[int, float]]]]]) -> str:
    """Draws learning curves: a column a metric, a thin line a fold, a thick one their mean.

    Args:
        curves: Metric to evaluation to fold to (epoch, value) pairs.
    """
    with drawing(1, len(curves), (WIDTH, 2.7)) as (figure, axes):
        for ax, (metric, by_evaluation) in zip(axes[0], curves.items(), strict=True):
            for index, (evaluation, folds) in enumerate(by_evaluation.items()):
                color = MAIN if index == 0 else OTHERS[(index - 1) % len(OTHERS)]
                at: dict[int, list[float]] = {}
                for points in folds.values():
                    ax.plot(*zip(*points, strict=True), color=color, linewidth=0.7, alpha=0.45)
                    for epoch, value in points:
                        at.setdefault(epoch, []).append(value)
                # Why all folds: after an early stop the mean would be over fewer folds, and jump.
                whole = sorted(epoch for epoch, values in at.items() if len(values) == len(folds))
                style = {"marker": "o", "markersize": 3} if len(whole) < 3 else {}
                ax.plot(whole, [np.mean(at[epoch]) for epoch in whole], color=color, label=evaluation, **style)
            ax.set_title(metric)
            ax.set_xlabel("epoch")
            ax.xaxis.get_major_locator().set_params(integer=True)
        legend_above(axes[0, -1])
        return inline_svg(figure, "curves", f"Learning curves of {', '.join(curves)}")


def timeline_chart(panel: Timeline, name: str) -> str:
    """Draws answers over time beside the truth, one axis a dimension."""
    with drawing(1, len(panel.lines), (WIDTH, 2.5), sharey=True) as (figure, axes):
        for ax, (dimension, lines) in zip(axes[0], panel.lines.items(), strict=True):
            num_others = 0
            for line in lines:
                style: dict[str, Any] = {
                    "truth": {"color": INK, "linewidth": 1.3, "zorder": 3},
                    "main": {"color": MAIN, "linewidth": 2.2, "zorder": 4},
                }.get(
                    line.role, {"color": OTHERS[num_others % len(OTHERS)], "linewidth": 1.3, "linestyle": (0, (4, 2))}
                )
                num_others += line.role == "other"
                ax.plot(np.arange(len(line.values)) / panel.rate_hz, line.values, label=line.name, **style)
            ax.set_ylim(panel.low, panel.high)
            ax.set_yticks(_ticks(panel.low, panel.high))
            ax.margins(x=0.01)
            ax.set_title(dimension)
            ax.set_xlabel("seconds")
        legend_above(axes[0, -1])
        return inline_svg(figure, name, f"{panel.title}: {', '.join(panel.lines)} over time")


def calibration_chart(panel: Calibration, name: str) -> str:
    """Draws truth against prediction: a shaded count, the diagonal, and mean truth over slices of predictions."""
    from matplotlib.colors import LinearSegmentedColormap

    shade = LinearSegmentedColormap.from_list("shade", [(*MAIN_RGB, 0.0), (*MAIN_RGB, 0.85)])
    with drawing(1, len(panel.preds), (WIDTH, 4.0), sharey=True) as (figure, axes):
        for ax, (dimension, preds) in zip(axes[0], panel.preds.items(), strict=True):
            target = panel.target[dimension]
            edges = np.linspace(panel.low, panel.high, 52)
            counts = np.histogram2d(preds, target, bins=(edges, edges))[0]
            ax.pcolormesh(edges, edges, np.sqrt(counts).T, cmap=shade, rasterized=True)
            ax.plot((panel.low, panel.high), (panel.low, panel.high), color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
            means = binned_means(preds, target)
            ax.plot(means[:, 0], means[:, 1], "o-", color=INK, markersize=4, linewidth=1.3)
            ax.set_title(dimension)
            ax.set_xlabel("predicted")
            ax.set_aspect("equal")
            ax.set_xticks(_ticks(panel.low, panel.high))
            ax.set_yticks(_ticks(panel.low, panel.high))
        axes[0, 0].set_ylabel("true")
        return inline_svg(figure, name, f"{panel.title}: truth against prediction of {', '.join(panel.preds)}")


def binned_means(preds: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Gives (bin, 2) means of prediction and truth over slices of about equal counts, split between different values.

    >>> binned_means(np.array([1.0] * 10 + [5.0] * 10), np.array([2.0] * 10 + [4.0] * 10)).tolist()
    [[1.0, 2.0], [5.0, 4.0]]
    """
    edges = np.unique(np.quantile(preds, np.linspace(0, 1, NUM_BINS + 1)))
    part = np.clip(np.searchsorted(edges, preds, side="right") - 1, 0, len(edges) - 1)
    bins = [part == index for index in range(len(edges))]
    return np.array([(preds[bin].mean(), target[bin].mean()) for bin in bins if bin.sum() >= MIN_BIN_ROWS]).reshape(
        -1, 2
    )


def scalp_chart(values: Mapping[str, float], positions: Mapping[str, np.ndarray], stream: str) -> str:
    """Draws values on a head seen from above.

    Args:
        values: Channel name to value.
        positions: Channel name to (2,) in metres, as MNE lays heads out.
        stream: Name of the stream, for the description.
    """
    from mne.viz import plot_topomap

    names = list(values)
    with drawing(1, 1, (4.6, 3.9)) as (figure, axes):
        ax = axes[0, 0]
        ax.grid(visible=False)
        layout = np.array([positions[name] for name in names])
        image, _ = plot_topomap(
            np.array([values[name] for name in names]),
            layout,
            axes=ax,
            show=False,
            sensors=False,
            contours=4,
            cmap="viridis",
            sphere=(0.0, 0.0, 0.0, HEAD_RADIUS_M),
            vlim=(min(values.values()), max(values.values())),
        )
        for name in sorted(names, key=lambda each: -values[each])[:8]:
            box = {"boxstyle": "round,pad=0.15", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.8}
            ax.annotate(name, positions[name], ha="center", va="center", fontsize=7, color=INK, bbox=box)
        bar = figure.colorbar(image, ax=ax, shrink=0.62, label="importance")
        bar.outline.set_visible(False)
        return inline_svg(figure, f"scalp-{stream}", f"Scalp map of channel importance of {stream}")


def bars_chart(values: Mapping[str, float], stream: str) -> str:
    """Draws the largest values by name, for channels that have no place on a map."""
    names = sorted(values, key=lambda name: (-values[name], name))[:20]
    with drawing(1, 1, (4.6, 0.5 + 0.2 * len(names))) as (figure, axes):
        ax = axes[0, 0]
        ax.barh(range(len(names)), [values[name] for name in names], color=MAIN, height=0.68)
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0)
        ax.grid(visible=False, axis="y")
        ax.set_xlabel("importance")
        return inline_svg(figure, f"bars-{stream}", f"Channel importance of {stream}, largest first")


def _ticks(low: float, high: float) -> np.ndarray:
    return np.unique(np.linspace(low, high, 5).round(0 if high - low > 10 else 2))


def legend_above(ax: Any) -> None:
    """Puts the legend above the axes where there is more than one entry."""
    handles, labels = ax.get_legend_handles_labels()
    if len(labels) > 1:
        ax.legend(
            handles,
            labels,
            loc="lower right",
            bbox_to_anchor=(1.0, 1.0),
            ncols=len(labels),
            borderaxespad=0.1,
            handlelength=1.6,
        )
