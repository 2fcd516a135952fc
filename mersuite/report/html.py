"""The little HTML that a report is made of."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1b2330; --muted: #667085; --grid: #e3e7ed; --soft: #f5f7fa;
  --main: #2a78d6; --other-1: #d9731a; --other-2: #12936f; --other-3: #8e5bd0; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171c; --ink: #e6e9ee; --muted: #98a2b3; --grid: #2d333c;
  --soft: #1b1f26; --main: #5aa2f5; --other-1: #f0954a; --other-2: #3fbf98; --other-3: #b48cf0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1000px; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .25rem; }
h3 { font-size: .95rem; margin: 1.4rem 0 .2rem; }
p { margin: .25rem 0 .75rem; max-width: 75ch; }
.muted, caption { color: var(--muted); }
.tiles { display: flex; flex-wrap: wrap; gap: .75rem; margin: 1.5rem 0 .5rem; }
.tile { flex: 1 1 11rem; background: var(--soft); border: 1px solid var(--grid); border-radius: 8px;
  padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.55rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tile span { display: block; color: var(--muted); font-size: .82rem; }
.tile.main { border-color: var(--main); }
.wide { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; width: 100%; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .34rem .6rem; text-align: right; border-bottom: 1px solid var(--grid); vertical-align: top; }
th { color: var(--muted); font-weight: 600; }
td.text, th.text { text-align: left; }
td small { display: block; color: var(--muted); font-weight: 400; font-size: .92em; }
td.range { white-space: nowrap; }
tr.main td { font-weight: 650; }
tr.main td:first-child { box-shadow: inset 3px 0 var(--main); }
figure { margin: .4rem 0 1rem; }
figcaption { color: var(--muted); font-size: .87rem; margin-bottom: .15rem; }
.pair { display: flex; flex-wrap: wrap; gap: 1rem; } .pair figure { flex: 1 1 20rem; max-width: 30rem; }
svg.figure { width: 100%; height: auto; fill: currentColor; color: var(--ink); }
svg.figure text { font-family: inherit; }
pre { background: var(--soft); border: 1px solid var(--grid); border-radius: 8px; padding: .8rem 1rem; overflow-x: auto;
  font-size: .8rem; line-height: 1.45; }
details summary { cursor: pointer; color: var(--muted); margin: .5rem 0; }
@media print { main { max-width: none; } h2 { break-after: avoid; } figure, .tile, tr { break-inside: avoid; } }
"""


def page(title: str, body: Sequence[str]) -> str:
    """Gives a whole page that asks for nothing from outside: its policy forbids it."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, text: str, parts: Sequence[str]) -> str:
    """Gives a part of the page with its heading and an explaining paragraph; parts are HTML."""
    words = f'<p class="muted">{escape(text)}</p>' if text else ""
    return "\n".join([f"<section>\n<h2>{escape(title)}</h2>{words}", *parts, "</section>"])


def figure(svg: str, caption: str = "") -> str:
    """Gives a figure with its caption above it."""
    return f"<figure>{f'<figcaption>{escape(caption)}</figcaption>' if caption else ''}{svg}</figure>"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, text_columns: Sequence[int], main: int = -1) -> str:
    """Gives a table of text; cells are escaped.

    Args:
        columns: Headings.
        rows: One cell a column; what follows a line break in a cell is set small below it.
        text_columns: Columns set to the left; the others hold numbers.
        main: Row that stands out; -1 for none.
    """

    def kind(column: int) -> str:
        return ' class="text"' if column in text_columns else ' class="range"'

    head = "".join(f"<th{kind(column)}>{escape(name)}</th>" for column, name in enumerate(columns))
    lines = []
    for index, row in enumerate(rows):
        cells = "".join(f"<td{kind(column)}>{_cell(cell)}</td>" for column, cell in enumerate(row))
        lines.append(f"<tr{' class=' + chr(34) + 'main' + chr(34) if index == main else ''}>{cells}</tr>")
    body = "\n".join(lines)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


def _cell(text: str) -> str:
    first, _, below = text.partition("\n")
    return escape(first) + (f"<small>{escape(below)}</small>" if below else "")


def tile(value: str, words: str, *, main: bool = False) -> str:
    """Gives a number with what it is."""
    return f'<div class="tile{" main" if main else ""}"><b>{escape(value)}</b><span>{escape(words)}</span></div>'


def preformatted(title: str, text: str) -> str:
    """Gives text as it stands behind a heading that opens it."""
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"
