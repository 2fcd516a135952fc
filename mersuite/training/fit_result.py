"""What a run came to, as tables and lines for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mersuite.results import SELECTS
from mersuite.track import Track


@dataclass(frozen=True, slots=True, kw_only=True)
class FitResult:
    """What a run came to.

    Attributes:
        folder: The run folder.
        track: The track.
        metrics: What metrics.json holds.
        notes: Lines for people, shown under the table.
    """

    folder: Path
    track: Track
    metrics: Mapping[str, Mapping[str, Any]]
    notes: Sequence[str] = field(default_factory=tuple)

    def summary(self) -> dict[str, Any]:
        """JSON form: the run folder and its metrics."""
        return {"run": str(self.folder), "metrics": self.metrics}

    def table(self) -> tuple[list[str], list[list[object]]]:
        """Columns and rows: one evaluation a row, the monitored metric with its interval."""
        names = self.track.metric_names
        columns = ["system", *names, "95 % interval", "rows"]
        rows: list[list[object]] = []
        for name, item in self.metrics.items():
            low, high = item["interval"].get(self.track.monitor, (float("nan"), float("nan")))
            values = [f"{item[metric]:.2f}" if metric in item else "" for metric in names]
            interval = f"{low:.2f} to {high:.2f}" if low == low else "one group"
            told = f"{name} ({SELECTS})" if item.get("selects_on_reported") else name
            rows.append([told, *values, interval, item["num_rows"]])
        return columns, rows

    def lines(self) -> list[str]:
        """What stands under the table: each system's protocol, what its draws came to, then the reader's notes."""
        told = [f"{name}: {item['protocol']}" for name, item in self.metrics.items()]
        told += [self._told_draws(name, item["draws"]) for name, item in self.metrics.items() if "draws" in item]
        return told + list(self.notes)

    def _told_draws(self, name: str, draws: Mapping[str, Any]) -> str:
        monitor = self.track.monitor
        mean, deviation = draws["mean"][monitor], draws["deviation"][monitor]
        values = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
            for key, value in draws["best_values"].items()
        )
        return (
            f"{name}: {monitor} {mean:.4f}, deviation {deviation:.4f}, of the {draws['num_best']} best of "
            f"{draws['num_draws']} draws, chosen on the rows that are reported; the table has the best one "
            f"({values or 'as configured'})"
        )
