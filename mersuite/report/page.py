"""One self-contained page about a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mersuite import registry
from mersuite.clip import Prediction
from mersuite.compare import Comparison, compare
from mersuite.errors import ConfigError, DataError
from mersuite.panels import Calibration, Confusion, Panel, Section, Timeline
from mersuite.report import charts, html, labels, parts
from mersuite.results import FinishedRun, read_run
from mersuite.track import Track
from mersuite.whole_files import whole_file


def write_report(run: Path, out: Path, *, clips: Sequence[str] = (), track: Track | None = None) -> dict[str, Any]:
    """Writes the page and gives {"report", "size_bytes", "evaluations"}.

    It holds metrics, out-of-fold answers and truths, and nothing of the recordings.

    Args:
        run: A finished run's folder.
        out: The html file.
        clips: Samples to draw; () leaves the choice to the track.
        track: The run's track; None finds it by its name.

    Raises:
        ConfigError: If out is no html file.
        DataError: If the folder is no finished run, or a named sample is not in it.
        SubmissionError: If out-of-fold rows are missing or malformed.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"out: need a file that ends in .html, got {out}")
    folder = read_run(run)
    track = track or registry.load(folder.track)
    names = [name for name in folder.info["evaluations"] if name in folder.metrics]
    if folder.main not in names:
        raise DataError(f"{run}: metrics.json has no {folder.main!r} yet; finish the run with run.resume=true")
    names = [folder.main, *(name for name in names if name != folder.main)]
    tables = {name: folder.read_oof(name) for name in names}
    rows = {name: predictions for name, (_, predictions) in tables.items()}
    # Read before anything is drawn, so that faults show in the first second.
    curves, importance = parts.read_curves(folder, track), parts.read_importance(folder)
    sections = track.report_sections(rows, clips)
    comparison = _compare(folder, rows, track)
    body = [
        parts.headline(folder, track),
        parts.evaluations(folder, track, comparison),
        parts.published(folder, track),
        *(_section(number, section) for number, section in enumerate(sections)),
        parts.errors_by_group(folder, track),
        parts.learning_curves(curves),
        parts.importance(importance),
        parts.provenance(folder, tables[folder.main][0].traits),
    ]
    text = html.page(f"{folder.path.resolve().name}: {track.name}", [part for part in body if part])
    _write(out, text)
    return {"report": str(out), "size_bytes": len(text.encode()), "evaluations": names}


def _compare(folder: FinishedRun, rows: Mapping[str, Sequence[Prediction]], track: Track) -> Comparison | None:
    """Compares the evaluations that answer the same samples as the main one, which comes first."""
    main, *others = rows
    asked = {row.sample_id for row in rows[main]}
    same = [name for name in others if {row.sample_id for row in rows[name]} == asked]
    return compare([f"{folder.path}:{name}" for name in (main, *same)], track=track) if same else None


def _section(number: int, section: Section) -> str:
    drawn = []
    for index, panel in enumerate(section.panels):
        name = f"own-{number}-{index}"
        drawn.append(html.figure(_chart(panel, name), panel.title))
    return html.section(section.title, section.text, drawn)


def _chart(panel: Panel, name: str) -> str:
    if isinstance(panel, Timeline):
        return charts.timeline_chart(panel, name)
    if isinstance(panel, Calibration):
        return charts.calibration_chart(panel, name)
    if isinstance(panel, Confusion):
        return labels.confusion_chart(panel, name)
    return labels.bars_by_name_chart(panel, name)


def _write(out: Path, text: str) -> None:
    with whole_file(out) as stream:
        stream.write(text.encode())
