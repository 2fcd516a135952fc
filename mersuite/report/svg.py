"""Matplotlib figures as inline SVG that follows the page's light or dark colours."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#010203"
"""Drawn colours that stand for the page's own: they are replaced by CSS variables when a figure is saved."""
MUTED = "#040506"
GRID = "#070809"
PAPER = "#0a0b0c"
MAIN = "#0d0e0f"
OTHERS = ("#101112", "#131415", "#161718")
_VARIABLES = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    GRID: "var(--grid)",
    PAPER: "var(--paper)",
    MAIN: "var(--main)",
    OTHERS[0]: "var(--other-1)",
    OTHERS[1]: "var(--other-2)",
    OTHERS[2]: "var(--other-3)",
    "#000000": "currentColor",
}
MAIN_RGB = (0.16, 0.47, 0.84)
"""The main colour as numbers, for pictures, which CSS cannot recolour; reads on white and on near-black."""
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mersuite",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


@contextmanager
def drawing(num_rows: int, num_columns: int, size: tuple[float, float], **options: Any) -> Iterator[tuple[Figure, Any]]:
    """Gives a figure and its (row, column) array of axes in the report's look; no display and no global state is used.

    Args:
        num_rows: Rows of axes.
        num_columns: Columns of axes.
        size: Width and height in inches.
        **options: Of `Figure.subplots`, such as sharey.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):  # type: ignore[arg-type, unused-ignore]
        figure = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(figure)
        yield figure, figure.subplots(num_rows, num_columns, squeeze=False, **options)


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """Gives a figure as an <svg> element that scales with the page and takes its colours from it.

    Args:
        figure: Drawn with `drawing`, and still inside of it.
        name: Distinguishes the ids of this figure from those of others on the page.
        description: What a reader who does not see it is told.
    """
    from html import escape

    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    for drawn, variable in _VARIABLES.items():
        text = text.replace(drawn, variable)
    text = re.sub(r" font-family: [^;\"]*;?", "", text)
    head = f'<svg role="img" aria-label="{escape(description, quote=True)}" class="figure"'
    return re.sub(r'^<svg([^>]*?) width="[^"]*"', rf"{head}\1", re.sub(r' height="[^"]*pt"', "", text, count=1))
