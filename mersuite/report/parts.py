"""The parts of a report that every track has."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from mersuite.compare import Comparison
from mersuite.config import DATA_PLACES
from mersuite.errors import DataError
from mersuite.report import charts, html
from mersuite.report.scalp import head_positions
from mersuite.results import SELECTS, FinishedRun
from mersuite.track import Track

BESIDE = ("constant", "prior")
MAX_CURVES = 4
MIN_PLACES = 8
"""Why: a map between fewer channels is mostly invention."""
Curves = Mapping[str, Mapping[str, Mapping[int, Sequence[tuple[int, float]]]]]
"""Metric -> evaluation -> fold -> (epoch, value) pairs."""


def headline(run: FinishedRun, track: Track) -> str:
    """Gives the name of the run and its main numbers."""
    main, metric = run.metrics[run.main], track.monitor
    low_high = main.get("interval", {}).get(metric)
    words = f"{metric} of {run.main}" + (f", 95 % interval {_range(low_high)}" if low_high else "")
    tiles = [html.tile(f"{main[metric]:.2f}", words, main=True)]
    for name in [each for each in BESIDE if each in run.metrics and each != run.main]:
        gap = main[metric] - run.metrics[name][metric]
        tiles.append(html.tile(f"{run.metrics[name][metric]:.2f}", f"{name}; {run.main} differs by {gap:+.2f}"))
    tiles.append(
        html.tile(
            f"{int(main['num_rows']):,}",
            "held-out rows" + (f" of {_counted(run, track)}" if track.groups_shown else ""),
        )
    )
    facts = [
        f"track {run.track}",
        f"main system: {run.main}",
        f"{len(run.info['evaluations'][run.main]['folds'])} folds",
    ]
    facts += [f"seed {run.info['seed']}"] if "seed" in run.info else []
    title = escape(f"{run.path.resolve().name}")
    return f'<h1>{title}</h1><p class="muted">{escape(" · ".join(facts))}</p><div class="tiles">{"".join(tiles)}</div>'


def evaluations(run: FinishedRun, track: Track, comparison: Comparison | None) -> str:
    """Gives every evaluation with its protocol, interval and difference from the main one."""
    names = list(run.metrics)
    shown = [name for name in track.metric_names if all(name in run.metrics[each] for each in names)]
    gaps = _gaps(comparison, track.monitor)
    columns = ["system", *shown, f"minus {run.main}", "rows"]
    rows = []
    for name in names:
        facts, about = run.metrics[name], run.info["evaluations"].get(name, {})
        unseen = f"; unseen {' and '.join(about['split_by'])}" if about.get("split_by") else ""
        cells = {metric: f"{facts[metric]:.2f}" for metric in shown}
        if track.monitor in facts.get("interval", {}):
            cells[track.monitor] += f"\n{_range(facts['interval'][track.monitor])}"
        told = f"{name} ({SELECTS})" if facts.get("selects_on_reported") else name
        words = f"{told}\n{facts.get('protocol', '')}{unseen}"
        rows.append([words, *cells.values(), gaps.get(name, ""), f"{int(facts['num_rows']):,}"])
    values = {name: run.metrics[name][track.monitor] for name in names}
    ranges = {name: run.metrics[name].get("interval", {}).get(track.monitor) for name in names}
    by = run.metrics[run.main].get("resampled_by", track.reports_by)
    better = "Lower" if track.monitor_mode == "min" else "Higher"
    text = (
        f"{better} is better in {track.monitor}. Every number is on rows that the system never saw in training. "
        f"Small: 95 % bootstrap intervals over {by}s; differences use the same draws for both systems."
    )
    chart = charts.intervals_chart(values, {key: each for key, each in ranges.items() if each}, run.main, track.monitor)
    parts = [html.table(columns, rows, text_columns=(0,), main=names.index(run.main))]
    return html.section("Evaluations", text, [*parts, html.figure(chart)])


def published(run: FinishedRun, track: Track) -> str:
    """Gives what others published beside the run's main number; "" where the track has no such figures."""
    figures = track.published()
    if not figures:
        return ""
    metrics = [name for name in track.metric_names if any(name in figure.metrics for figure in figures)]
    main = run.metrics[run.main]
    protocol = f"{_counted(run, track)}, {len(run.info['evaluations'][run.main]['folds'])} folds"
    own = [f"{run.main} (this run)", protocol, *(f"{main[name]:.2f}" if name in main else "" for name in metrics), ""]
    rows = [own] + [
        [
            figure.system,
            figure.protocol,
            *(f"{figure.metrics[name]:.2f}" if name in figure.metrics else "" for name in metrics),
            figure.source,
        ]
        for figure in figures
    ]
    text = "People, splits and protocols differ, so these set the scale; they are no ranking."
    columns = ["system", "protocol", *metrics, "source"]
    return html.section(
        "Beside published figures", text, [html.table(columns, rows, text_columns=(0, 1, len(columns) - 1), main=0)]
    )


def errors_by_group(run: FinishedRun, track: Track) -> str:
    """Gives the monitored metric of every member of every group that metrics.json tells apart."""
    main = run.metrics[run.main].get("groups", {})
    parts = []
    for by, members in sorted(main.items(), key=lambda item: item[0] != track.reports_by):
        values = {name: facts[track.monitor] for name, facts in members.items() if track.monitor in facts}
        beside = {
            other: {name: facts[track.monitor] for name, facts in run.metrics[other]["groups"].get(by, {}).items()}
            for other in BESIDE
            if other in run.metrics and other != run.main
        }
        if len(values) > 1:
            parts.append(
                html.figure(charts.groups_chart(values, beside, run.main, by, track.monitor), f"By {by}, sorted")
            )
    words = "Bars: the main system; marks: others on the same rows."
    return html.section("Where the errors are", words, parts) if parts else ""


def read_curves(run: FinishedRun, track: Track) -> Curves:
    """Gives training loss and validation metric over epochs from metrics.csv; {} where no network was trained.

    Raises:
        DataError: If the file is no such table.
    """
    path = run.path / "metrics.csv"
    if not path.is_file():
        return {}
    wanted = ("train/loss", f"val/{track.monitor}")
    curves: dict[str, dict[str, dict[int, list[tuple[int, float]]]]] = {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["metric"] in wanted:
                    folds = curves.setdefault(row["metric"], {}).setdefault(row["evaluation"], {})
                    folds.setdefault(int(row["fold"]), []).append((int(row["epoch"]), float(row["value"])))
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not a table of learning curves ({error!r}); `mersuite fit` writes it") from error
    return {metric: curves[metric] for metric in wanted if metric in curves}


def learning_curves(curves: Curves) -> str:
    """Draws what read_curves gave."""
    if not curves:
        return html.section("Learning curves", "The run has none: no system of it trains a network.", [])
    text = "Thin lines: folds; thick lines: their mean while all folds train. Validation rows are never held-out rows."
    shown = {metric: dict(list(systems.items())[:MAX_CURVES]) for metric, systems in curves.items()}
    num_left = max(map(len, curves.values())) - MAX_CURVES
    more = f" {num_left} more systems are in metrics.csv." if num_left > 0 else ""
    return html.section("Learning curves", text + more, [html.figure(charts.curves_chart(shown))])


def read_importance(run: FinishedRun) -> dict[str, dict[str, float]]:
    """Gives stream to channel to importance from importance.json; {} where there is none.

    Raises:
        DataError: If the file holds something else.
    """
    path = run.path / "importance.json"
    if not path.is_file():
        return {}
    try:
        streams: Mapping[str, Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
        return {
            stream: {name: float(value) for name, value in channels.items()} for stream, channels in streams.items()
        }
    except (ValueError, AttributeError, TypeError) as error:
        raise DataError(f"{path}: need {{stream: {{channel: value}}}}, got something else ({error})") from error


def importance(values: Mapping[str, Mapping[str, float]]) -> str:
    """Draws what read_importance gave: a scalp map where the channels have places, else bars."""
    if not values:
        text = "The run folder holds no importance.json: no system of it listens to channels, or it was not computed."
        return html.section("Channel importance", text, [])
    parts = []
    silent = [stream for stream, channels in values.items() if not any(channels.values())]
    for stream, channels in values.items():
        if stream in silent:
            continue
        places = head_positions(channels)
        placed = {name: value for name, value in channels.items() if name in places}
        if len(placed) >= MIN_PLACES:
            off_map = [f"{name} {value:.3g}" for name, value in channels.items() if name not in places]
            note = f"; not on the map: {', '.join(off_map)}" if off_map else ""
            svg = charts.scalp_chart(placed, places, stream)
            parts.append(html.figure(svg, f"{stream}, the eight largest named{note}"))
        elif channels:
            parts.append(html.figure(charts.bars_chart(channels, stream), f"{stream}, the largest of {len(channels)}"))
    text = "How far answers move with a channel. It says what the network uses, not what is the cause."
    text += f" Hidden from the rows that were asked: {', '.join(silent)}." if silent else ""
    return html.section("Channel importance", text, [f'<div class="pair">{"".join(parts)}</div>'])


def provenance(run: FinishedRun, traits: Mapping[str, Any]) -> str:
    """Gives traits, command, versions and configuration; places on this machine are left out of the configuration."""
    import yaml

    rows = [[f"trait: {name}", str(value)] for name, value in traits.items()]
    command = run.info.get("command", "")
    rows.append(["command", command if isinstance(command, str) else " ".join(str(word) for word in command)])
    rows.append(["git commit", str(run.info.get("git_commit") or "unknown")])
    rows += [[name, str(version)] for name, version in run.info.get("versions", {}).items()]
    config = {key: value for key, value in run.config.items() if key not in ("run", "store")}
    if isinstance(config.get("data"), Mapping):
        config["data"] = {key: value for key, value in config["data"].items() if key not in DATA_PLACES}
    parts = [html.table(["what", "value"], rows, text_columns=(0, 1))]
    parts.append(html.preformatted("Configuration", yaml.safe_dump(config, sort_keys=False, allow_unicode=True)))
    return html.section("How it was made", "", parts)


def _counted(run: FinishedRun, track: Track) -> str:
    """Gives "24 subjects"."""
    members = run.metrics[run.main].get("groups", {}).get(track.reports_by)
    if members is None:  # every member is a row
        return f"{int(run.metrics[run.main]['num_rows']):,} {track.reports_by}s"
    return f"{len(members)} {track.reports_by}{'' if len(members) == 1 else 's'}"


def _gaps(comparison: Comparison | None, metric: str) -> dict[str, str]:
    """Gives evaluation to its difference from the main one, as text."""
    if comparison is None:
        return {}
    return {
        system.name.rpartition(":")[2]: f"{gaps[metric].value:+.2f}\n{_range((gaps[metric].low, gaps[metric].high))}"
        for system, gaps in zip(comparison.systems[1:], comparison.differences, strict=True)
        if metric in gaps
    }


def _range(ends: Sequence[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.2f} to {ends[1]:.2f}"
