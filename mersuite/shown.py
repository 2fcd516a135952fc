"""What people see of results: tables, flat lists of nested values, lines on options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Any:
    """Gives a table; numbers stand on the right, columns without any entry are left out."""
    from rich.table import Table

    cells = [[f"{item:.4g}" if isinstance(item, float) else str(item) for item in row] for row in rows]
    kept = [index for index in range(len(columns)) if not rows or any(row[index] for row in cells)]
    table = Table(title=title, title_justify="left")
    for index in kept:
        is_text = index == 0 or any(row[index] and not row[index][0].isdecimal() for row in cells)
        table.add_column(columns[index], justify="left" if is_text else "right", overflow="fold")
    for row in cells:
        table.add_row(*[row[index] for index in kept])
    return table


def turned(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> tuple[list[str], list[list[object]]]:
    """Swaps rows and columns: for few rows with many columns that have long names."""
    first, *others = columns
    names = [f"{first} {row[0]}" for row in rows]
    return ["", *names], [[name, *[row[index] for row in rows]] for index, name in enumerate(others, 1)]


def flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Gives a row for each value of a nested mapping; bytes are shown in MB."""
    rows: list[tuple[str, object]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += flat(value, f"{prefix}{key} ")
        elif key.endswith("_bytes"):
            rows.append((f"{prefix}{key.removesuffix('_bytes')}", f"{value / 1e6:.1f} MB"))
        else:
            rows.append((f"{prefix}{key}", value))
    return rows


def options_of(values: Any, prefix: str = "") -> list[str]:
    """Lines on the fields of a dataclass: name, default, what its docstring says first."""
    said = dict(re.findall(r"^ +(\w+): (.+?)(?=^ +\w+: |\Z)", type(values).__doc__ or "", flags=re.M | re.S))
    pairs = [(item.name, getattr(values, item.name)) for item in fields(values)]
    shown = {name: f"{prefix}{name}={'null' if value is None else value}" for name, value in pairs}
    width = max(map(len, shown.values()))
    first = {name: re.split(r"(?<=[.;])\s", " ".join(said.get(name, "").split()))[0].rstrip(".;") for name in shown}
    return [f"    {text:<{width}}  {first[name]}" for name, text in shown.items()]
