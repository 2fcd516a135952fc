"""Progress bars on stderr, shown only where a person watches."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping

Advance = Callable[[str, int], None]
"""(what, how many more of it are done); may be called from any thread."""


@contextlib.contextmanager
def progress_bars(totals: Mapping[str, int], *, enabled: bool = True) -> Iterator[Advance]:
    """Shows one bar for each thing that is counted, and takes them away at the end.

    Args:
        totals: What is counted to how many there are.
        enabled: False shows nothing; nor is anything shown where stderr is no terminal.
    """
    if not (enabled and totals and sys.stderr is not None and sys.stderr.isatty()):
        yield lambda name, count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = {name: bars.add_task(name, total=total) for name, total in totals.items()}
        yield lambda name, count: bars.advance(tasks[name], count)
