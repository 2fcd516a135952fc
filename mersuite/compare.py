"""Systems side by side on the same out-of-fold rows: paired bootstrap, mean and deviation over seeds, a LaTeX table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mersuite import registry
from mersuite.clip import Prediction
from mersuite.ensemble import sample_of
from mersuite.errors import ConfigError, DataError, did_you_mean
from mersuite.metrics.bootstrap import Difference, Interval, RowScorer, Score, bootstrap_intervals, paired_bootstrap
from mersuite.results import SELECTS, FinishedRun, read_run
from mersuite.run_folder import comparable
from mersuite.tables import check_same_ids
from mersuite.track import Track

NUM_RESAMPLES = 1000
SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One run, or one evaluation of it.

    Attributes:
        run: The run.
        evaluation: Name of the evaluation whose out-of-fold rows are compared.
    """

    run: FinishedRun
    evaluation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemScores:
    """One system: a run, or several that differ in their seed only.

    Attributes:
        name: For tables.
        runs: Folders, one a seed.
        values: Metric name to one value a seed, on all rows.
        intervals: Metric name to the percentile interval of the mean over seeds; {} where there is one group only.
        selects_on_reported: Whether it was chosen by the rows that are compared, so that its values are too high.
    """

    name: str
    runs: tuple[str, ...]
    values: Mapping[str, tuple[float, ...]]
    intervals: Mapping[str, Interval]
    selects_on_reported: bool = False

    def mean(self, metric: str) -> float:
        """Mean of a metric over seeds."""
        return float(np.mean(self.values[metric]))

    def deviation(self, metric: str) -> float | None:
        """Sample standard deviation of a metric over seeds; None for a single seed."""
        values = self.values[metric]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Systems on the same rows; the first one is what the others are compared with.

    Attributes:
        track: Name of the track.
        monitor: The metric that ranks.
        mode: "min" or "max": which direction of it is better.
        metrics: Metrics shown, in order.
        by: Group that was drawn in the bootstrap.
        num_groups: How many of them.
        num_samples: Samples that every system answered.
        systems: At least two.
        differences: One mapping a system after the first: metric name to that system minus the first one.
    """

    track: str
    monitor: str
    mode: str
    metrics: tuple[str, ...]
    by: str
    num_groups: int
    num_samples: int
    systems: tuple[SystemScores, ...]
    differences: tuple[Mapping[str, Difference], ...]

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Gives column names and rows of text: every metric, then the monitor's interval, difference and p-value.

        Intervals are bootstrap intervals of the monitor at 95 %, over the groups that `by` names.
        """
        columns = ["system", "seeds", *self.metrics, "95 % interval", "minus first", "p"]
        rows = []
        for index, system in enumerate(self.systems):
            row = [
                f"{system.name} ({SELECTS})" if system.selects_on_reported else system.name,
                str(len(system.runs)),
                *(_with_deviation(system, metric, "±") for metric in self.metrics),
            ]
            row.append(_range(system.intervals.get(self.monitor)))
            gap = self.differences[index - 1].get(self.monitor) if index else None
            row += ["", ""] if gap is None else [f"{gap.value:+.2f} ({_range(gap)})", f"{gap.p_value:.3f}"]
            rows.append(row)
        return columns, rows

    def summary(self) -> dict[str, Any]:
        """Gives everything as JSON types."""
        return {
            "track": self.track,
            "by": self.by,
            "num_groups": self.num_groups,
            "num_samples": self.num_samples,
            "systems": [
                {
                    "name": system.name,
                    "runs": list(system.runs),
                    "selects_on_reported": system.selects_on_reported,
                    "metrics": {
                        name: {"mean": system.mean(name), "deviation": system.deviation(name), "values": list(values)}
                        for name, values in system.values.items()
                    },
                    "interval": {name: [each.low, each.high] for name, each in system.intervals.items()},
                }
                for system in self.systems
            ],
            "differences": [
                {
                    "first": system.name,
                    "second": self.systems[0].name,
                    "metrics": {name: asdict(gap) for name, gap in differences.items()},
                }
                for system, differences in zip(self.systems[1:], self.differences, strict=True)
            ],
        }

    def latex(self) -> str:
        """Gives a table for the booktabs package; the best value of the monitor is bold.

        A dagger marks systems whose difference from the first one has an interval that leaves out zero.
        """
        sign = 1 if self.mode == "min" else -1
        best = min(self.systems, key=lambda system: sign * system.mean(self.monitor)).name
        arrow = r"$\downarrow$" if self.mode == "min" else r"$\uparrow$"
        head = [f"{_latex(name)}{f' {arrow}' if name == self.monitor else ''}" for name in self.metrics]
        lines = [
            f"% {self.num_samples} samples; intervals and daggers: {NUM_RESAMPLES} paired resamples of "
            f"{self.num_groups} {self.by} groups",
            rf"\begin{{tabular}}{{l{'r' * (len(self.metrics) + 1)}}}",
            r"\toprule",
            " & ".join(["System", *head, r"95\,\% interval"]) + r" \\",
            r"\midrule",
        ]
        for index, system in enumerate(self.systems):
            cells = [self._latex_cell(system, metric, bold=system.name == best) for metric in self.metrics]
            lines.append(
                " & ".join([_latex(system.name) + self._dagger(index), *cells, self._latex_range(system)]) + r" \\"
            )
            if system.selects_on_reported:
                lines.append(f"% {system.name} {SELECTS}: its scores are too high")
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])

    def _latex_cell(self, system: SystemScores, metric: str, *, bold: bool) -> str:
        mean, deviation = f"{system.mean(metric):.2f}", system.deviation(metric)
        mean = rf"\textbf{{{mean}}}" if bold and metric == self.monitor else mean
        return mean if deviation is None else rf"{mean} $\pm$ {deviation:.2f}"

    def _latex_range(self, system: SystemScores) -> str:
        interval = system.intervals.get(self.monitor)
        return "--" if interval is None else f"[{interval.low:.2f}, {interval.high:.2f}]"

    def _dagger(self, index: int) -> str:
        gap = self.differences[index - 1].get(self.monitor) if index else None
        return r"$^\dagger$" if gap is not None and not gap.low <= 0.0 <= gap.high else ""


def compare(
    runs: Sequence[str], *, by: str | None = None, evaluation: str | None = None, track: Track | None = None
) -> Comparison:
    """Compares runs on their out-of-fold rows.

    Args:
        runs: One entry a system: a run folder; `A1+A2+A3` for runs that differ in their seed; `A:signal` for another
            evaluation than the main one. Where no entry has a `+`, runs whose configurations are equal but for the seed
            (and places and speed) are one system.
        by: Group that is drawn in the bootstrap; None takes the one that the first run's own intervals go by (such as
            subject).
        evaluation: Evaluation of entries that name none; None means the main one of each run.
        track: The track of all runs; None takes that of the first one.

    Raises:
        DataError: If a folder is no finished run, runs are of other tracks or rows, or there are fewer than two
            systems.
        ConfigError: If rows have no such group.
        SubmissionError: If out-of-fold rows are missing or malformed.
    """
    systems = _systems(runs, evaluation)
    if len(systems) < 2:
        raise DataError(f"compare: need two systems or more, got {len(systems)} ({', '.join(systems)}); give run=A,B")
    leader = next(iter(systems.values()))[0]
    track = track or registry.load(leader.run.track)
    first = _table(track, leader)
    truths = [track.answer_of(sample_of(prediction, track)) for prediction in first]
    group = by or _facts(leader).get("resampled_by", track.reports_by)
    groups = _groups(first, group)
    scorers: dict[str, Score] = {}
    scores: list[SystemScores] = []
    for name, members in systems.items():
        each = [_Scorer(track, _answers(track, member, first), truths) for member in members]
        scorers[name] = _Mean(each)
        scores.append(
            SystemScores(
                name=name,
                runs=tuple(str(member.run.path) for member in members),
                values=_values(each, len(first)),
                intervals=bootstrap_intervals(scorers[name], groups, seed=SEED, num_resamples=NUM_RESAMPLES),
                selects_on_reported=any(_facts(member).get("selects_on_reported", False) for member in members),
            )
        )
    baseline, *others = scorers.values()
    return Comparison(
        track=track.name,
        monitor=track.monitor,
        mode=track.monitor_mode,
        metrics=tuple(name for name in track.metric_names if all(name in system.values for system in scores)),
        by=group,
        num_groups=len(set(groups)),
        num_samples=len(first),
        systems=tuple(scores),
        differences=tuple(
            paired_bootstrap(other, baseline, groups, seed=SEED, num_resamples=NUM_RESAMPLES) for other in others
        ),
    )


class _Scorer:
    """Metrics of one run on chosen rows.

    Each draw is scored once. Why: a system is drawn for its interval and again for its difference.
    """

    def __init__(self, track: Track, answers: Sequence[Any], truths: Sequence[Any]) -> None:
        self.score = RowScorer(track.metrics, answers, truths)
        self.known: dict[bytes, Mapping[str, float]] = {}

    def __call__(self, rows: np.ndarray) -> Mapping[str, float]:
        key = rows.tobytes()
        if key not in self.known:
            self.known[key] = self.score(rows)
        return self.known[key]


class _Mean:
    """Mean of every metric over the seeds of a system, on chosen rows."""

    def __init__(self, scorers: Sequence[_Scorer]) -> None:
        self.scorers = scorers

    def __call__(self, rows: np.ndarray) -> Mapping[str, float]:
        each = [scorer(rows) for scorer in self.scorers]
        return {name: float(np.mean([scores[name] for scores in each])) for name in each[0]}


def _values(scorers: Sequence[_Scorer], num_rows: int) -> dict[str, tuple[float, ...]]:
    each = [scorer(np.arange(num_rows)) for scorer in scorers]
    return {name: tuple(float(scores[name]) for scores in each) for name in each[0]}


def _systems(runs: Sequence[str], evaluation: str | None) -> dict[str, list[Member]]:
    """Gives system name to its members, in the order given."""
    entries = [[_member(item, evaluation) for item in entry.split("+") if item] for entry in runs if entry]
    if all(len(entry) == 1 for entry in entries):
        entries = _by_config([entry[0] for entry in entries])
    return {_name(entry, entries): entry for entry in entries}


def _member(text: str, evaluation: str | None) -> Member:
    path, named = text, evaluation
    if not Path(text).is_dir() and ":" in text:
        path, _, named = text.rpartition(":")
    run = read_run(Path(path))
    member = Member(run=run, evaluation=named or run.main)
    run.oof_path(member.evaluation)
    return member


def _by_config(members: Sequence[Member]) -> list[list[Member]]:
    """Joins members of one configuration and evaluation whose seeds differ; a repeated seed is its own system."""
    found: dict[str, list[Member]] = {}
    for position, member in enumerate(members):
        system = {key: item for key, item in comparable(member.run.config).items() if key != "seed"}
        key = json.dumps([member.evaluation, system], sort_keys=True, default=str)
        seeds = [each.run.config.get("seed") for each in found.get(key, [])]
        repeated = not member.run.config or member.run.config.get("seed") in seeds
        found.setdefault(f"{key}{position}" if repeated else key, []).append(member)
    return list(found.values())


def _name(entry: Sequence[Member], entries: Sequence[Sequence[Member]]) -> str:
    """Gives the shortest of folder name, folder and evaluation, or path and evaluation that no other entry has."""
    forms = (
        lambda member: member.run.path.name,
        lambda member: f"{member.run.path.name}:{member.evaluation}",
        lambda member: f"{member.run.path}:{member.evaluation}",
    )
    for form in forms:
        if [form(other[0]) for other in entries].count(form(entry[0])) == 1:
            return form(entry[0])
    raise DataError(f"compare: {forms[-1](entry[0])} is given twice")


def _facts(member: Member) -> Mapping[str, Any]:
    """Gives what metrics.json says of a member's evaluation."""
    return member.run.metrics.get(member.evaluation, {})


def _table(track: Track, member: Member) -> list[Prediction]:
    if member.run.track != track.name:
        raise DataError(
            f"compare: {member.run.path} is a run of track {member.run.track!r}, the first one of {track.name!r}"
        )
    return member.run.read_oof(member.evaluation)[1]


def _answers(track: Track, member: Member, first: Sequence[Prediction]) -> list[Any]:
    """Gives a member's answers in the order of the first one's rows, after checking that both have the same truth."""
    by_id = {prediction.sample_id: prediction for prediction in _table(track, member)}
    where = f"{member.run.path}:{member.evaluation}"
    check_same_ids((prediction.sample_id for prediction in first), by_id, where)
    for prediction in first:
        found = by_id[prediction.sample_id].target
        same = found.keys() == prediction.target.keys() and all(
            np.array_equal(found[name], truth) for name, truth in prediction.target.items()
        )
        if not same:
            raise DataError(
                f"{where}: {prediction.sample_id!r} has another target than in the first run; use the same data"
            )
    return [by_id[prediction.sample_id].answer for prediction in first]


def _groups(predictions: Sequence[Prediction], by: str) -> list[str]:
    for prediction in predictions:
        if by not in prediction.groups:
            raise ConfigError(f"by: samples have no group {by!r}; {did_you_mean(by, prediction.groups)}")
    return [prediction.groups[by] for prediction in predictions]


def _with_deviation(system: SystemScores, metric: str, sign: str) -> str:
    deviation = system.deviation(metric)
    return f"{system.mean(metric):.2f}" + ("" if deviation is None else f" {sign} {deviation:.2f}")


def _range(interval: Interval | Difference | None) -> str:
    return "" if interval is None else f"{interval.low:.2f} to {interval.high:.2f}"


def _latex(text: str) -> str:
    for character in "_&%#":
        text = text.replace(character, f"\\{character}")
    return text
