"""Figures of answers that are labels: confusion matrices, and values by label."""

from __future__ import annotations

import numpy as np

from mersuite.panels import Bars, Confusion
from mersuite.report.charts import WIDTH, legend_above
from mersuite.report.svg import INK, MAIN, MAIN_RGB, MUTED, OTHERS, drawing, inline_svg

SHADED = 0.85
"""Opacity of a cell that holds all rows of its truth."""


def confusion_chart(panel: Confusion, name: str) -> str:
    """Draws a square a system: rows are truths, shade is the share of the row, figures are counts."""
    from matplotlib.colors import LinearSegmentedColormap

    shade = LinearSegmentedColormap.from_list("shade", [(*MAIN_RGB, 0.0), (*MAIN_RGB, SHADED)])
    size = len(panel.labels)
    height = 0.9 + WIDTH / max(2, len(panel.counts))  # squares, and room for names below and above them
    with drawing(1, len(panel.counts), (WIDTH, height), sharey=True) as (figure, axes):
        for ax, (system, counts) in zip(axes[0], panel.counts.items(), strict=True):
            share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
            edges = np.arange(size + 1) - 0.5
            ax.pcolormesh(edges, edges, share, cmap=shade, vmin=0.0, vmax=1.0, rasterized=True)
            for row, column in np.argwhere(counts > 0):
                style = {"color": INK, "fontweight": "bold"} if row == column else {"color": MUTED}
                ax.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=8, **style)
            ax.set_title(system)
            ax.set_xlabel("answer")
            ax.set_xticks(range(size), panel.labels, rotation=40, ha="right")
            ax.set_yticks(range(size), panel.labels)
            ax.set_xlim(-0.5, size - 0.5)
            ax.set_ylim(size - 0.5, -0.5)
            ax.tick_params(length=0)
            ax.grid(visible=False)
            ax.set_box_aspect(1)
        axes[0, 0].set_ylabel("truth")
        return inline_svg(figure, name, f"{panel.title}: truth against answer of {', '.join(panel.counts)}")


def bars_by_name_chart(panel: Bars, name: str) -> str:
    """Draws bars of the main system, and a mark for each other one, at every name."""
    main, *others = panel.values
    with drawing(1, 1, (WIDTH, 2.4)) as (figure, axes):
        ax = axes[0, 0]
        places = np.arange(len(panel.names))
        ax.bar(places, panel.values[main], color=MAIN, width=0.62, label=main)
        for index, system in enumerate(others):
            color = OTHERS[index % len(OTHERS)]
            ax.plot(places, panel.values[system], "_", color=color, markersize=22, markeredgewidth=2.4, label=system)
        ax.set_xticks(places, panel.names)
        ax.tick_params(axis="x", length=0)
        ax.grid(visible=False, axis="x")
        ax.set_ylabel(panel.axis)
        legend_above(ax)
        return inline_svg(figure, name, f"{panel.title}: {panel.axis} by {panel.names[0]} to {panel.names[-1]}")
