import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from mersuite.clip import Prediction
from mersuite.compare import compare
from mersuite.errors import ConfigError, DataError
from mersuite.predictions import PredictionHeader, write_predictions


def _compare(track, runs, **options):
    return compare(runs, track=track, **options)


class Levels:
    name, monitor, monitor_mode, reports_by, token_rate_hz = "levels", "mae", "min", "subject", 1.0
    metric_names = ("mae", "bias_mean")

    def answer_of(self, sample):
        return sample.target["level"]

    def metrics(self, answers, targets):
        gap = np.concatenate(answers) - np.concatenate(targets)
        return {"mae": float(np.abs(gap).mean()), "bias_mean": float(gap.mean()), "num_rows": float(len(gap))}


class Labels(Levels):
    name, monitor, monitor_mode, token_rate_hz = "labels", "accuracy", "max", None
    metric_names = ("accuracy",)

    def answer_of(self, sample):
        return str(sample.target["level"].shape[0])

    def metrics(self, answers, targets):
        return {"accuracy": float(np.mean([answer == target for answer, target in zip(answers, targets, strict=True)]))}


def _rows(bias, seed, *, subjects=12, truth_seed=0):
    truth_rng, rng = np.random.default_rng(truth_seed), np.random.default_rng(seed)
    rows = []
    for subject in range(subjects):
        hard = truth_rng.uniform(5, 40)
        for clip in range(3):
            truth = truth_rng.uniform(60, 190, (5, 2)).astype(np.float32)
            shared = truth_rng.normal(0, hard, truth.shape)
            answer = truth + np.sign(shared) * (np.abs(shared) + bias) + rng.normal(0, 0.2, truth.shape)
            rows.append(
                Prediction(
                    sample_id=f"s{subject}/{clip}",
                    groups={"subject": f"s{subject}", "clip": f"c{clip}"},
                    outputs={},
                    answer=answer.tolist(),
                    target={"level": truth},
                )
            )
    return rows


def _run(folder, rows, *, seed=0, lr=0.1, others=(), track="levels"):
    folder.mkdir()
    evaluations = {"fused": {"main": True}, **{name: {"main": False} for name, _ in others}}
    (folder / "run.json").write_text(json.dumps({"track": track, "evaluations": evaluations}))
    (folder / "metrics.json").write_text("{}")
    places = {"run": {"dir": str(folder)}, "data": {"root": str(folder), "window_s": 10}}
    config = {"track": track, "seed": seed, "optim": {"lr": lr}, **places}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    for path, name, table in [(folder / "oof.jsonl", "fused", rows)] + [
        (folder / name / "oof.jsonl", name, table) for name, table in others
    ]:
        header = PredictionHeader(track=track, run=str(folder), evaluation=name, split="oof")
        write_predictions(path, header, table)
    return str(folder)


@pytest.fixture
def runs(tmp_path):
    return [_run(tmp_path / "base", _rows(2.0, 1)), _run(tmp_path / "better", _rows(1.0, 2), lr=0.2)]


def test_small_difference_stands_out_of_large_spread_between_people(runs):
    found = _compare(Levels(), runs)
    base, better = found.systems
    gap = found.differences[0]["mae"]
    assert abs(gap.value - (better.mean("mae") - base.mean("mae"))) < 1e-12
    assert gap.high < 0 and gap.p_value < 0.01 and gap.high - gap.low < 0.2
    assert base.intervals["mae"].high - base.intervals["mae"].low > 4
    assert (found.by, found.num_groups, found.num_samples) == ("subject", 12, 36)


def test_score_of_a_run_is_the_metric_of_all_its_rows(runs):
    rows = _rows(2.0, 1)
    expected = np.abs(np.concatenate([np.array(r.answer) - r.target["level"] for r in rows])).mean()
    assert abs(_compare(Levels(), runs).systems[0].mean("mae") - expected) < 1e-9


def test_rows_may_stand_in_another_order(tmp_path, runs):
    turned = _run(tmp_path / "turned", _rows(1.0, 2)[::-1], lr=0.3)
    first, second = _compare(Levels(), runs), _compare(Levels(), [runs[0], turned])
    assert first.differences[0]["mae"].value == pytest.approx(second.differences[0]["mae"].value, abs=1e-12)


def test_runs_that_differ_in_seed_are_one_system(tmp_path, runs):
    again = _run(tmp_path / "better_1", _rows(1.5, 3), lr=0.2, seed=1)
    found = _compare(Levels(), [*runs, again])
    assert [system.runs for system in found.systems] == [(runs[0],), (runs[1], again)]
    values = found.systems[1].values["mae"]
    assert found.systems[1].deviation("mae") == pytest.approx(abs(values[0] - values[1]) / np.sqrt(2))
    assert found.systems[1].mean("mae") == pytest.approx(sum(values) / 2)
    assert found.systems[0].deviation("mae") is None


def test_same_seed_twice_is_two_systems(tmp_path, runs):
    again = _run(tmp_path / "again", _rows(1.5, 3), lr=0.2, seed=0)
    assert len(_compare(Levels(), [*runs, again]).systems) == 3


def test_plus_joins_runs_by_hand(tmp_path, runs):
    again = _run(tmp_path / "other", _rows(1.5, 3), lr=0.7, seed=5)
    found = _compare(Levels(), [runs[0], f"{runs[1]}+{again}"])
    assert [len(system.runs) for system in found.systems] == [1, 2]


def test_evaluations_of_one_run_are_compared(tmp_path):
    folder = _run(tmp_path / "run", _rows(1.0, 1), others=[("prior", _rows(3.0, 2))])
    found = _compare(Levels(), [folder, f"{folder}:prior"])
    assert [system.name for system in found.systems] == ["run:fused", "run:prior"]
    assert found.differences[0]["mae"].low > 1.5
    other = _compare(Levels(), [f"{folder}:fused", folder], evaluation="prior")
    assert [system.name for system in other.systems] == ["run:fused", "run:prior"]


def test_groups_may_be_clips(runs):
    found = _compare(Levels(), runs, by="clip")
    assert (found.by, found.num_groups) == ("clip", 3)


def test_labels_and_higher_is_better_work_the_same(tmp_path):
    right = [
        Prediction(sample_id=r.sample_id, groups=r.groups, outputs={}, answer="5", target=r.target) for r in _rows(0, 0)
    ]
    wrong = [
        Prediction(sample_id=r.sample_id, groups=r.groups, outputs={}, answer="5" if i % 2 else "4", target=r.target)
        for i, r in enumerate(right)
    ]
    runs = [_run(tmp_path / n, t, lr=i, track="labels") for i, (n, t) in enumerate([("bad", wrong), ("good", right)])]
    found = _compare(Labels(), runs)
    assert found.differences[0]["accuracy"].value == 0.5
    assert r"\textbf{1.00}" in found.latex() and r"\uparrow" in found.latex()


def test_table_and_summary_hold_the_numbers(runs):
    found = _compare(Levels(), runs)
    columns, rows = found.table()
    assert len(columns) == len(rows[0]) == len(rows[1]) and rows[0][0] == "base" and rows[0][-1] == ""
    gap = found.differences[0]["mae"]
    assert rows[1][columns.index("minus first")] == f"{gap.value:+.2f} ({gap.low:.2f} to {gap.high:.2f})"
    summary = json.loads(json.dumps(found.summary()))
    assert summary["differences"][0]["first"] == "better" and summary["differences"][0]["second"] == "base"
    assert summary["systems"][1]["metrics"]["mae"]["values"] == [found.systems[1].mean("mae")]


def test_latex_is_a_booktabs_table_with_escaped_names(tmp_path, runs):
    text = _compare(Levels(), [*runs, _run(tmp_path / "a_b", _rows(2.0, 1), lr=9)]).latex()
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert all(line.count("&") == body[0].count("&") for line in body) and len(body) == 4
    assert [rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [True] * 3
    assert r"bias\_mean" in text and r"a\_b" in text and "a_b" not in text
    assert text.count(r"\textbf") == 1 and text.count(r"$^\dagger$") == 1


def test_track_of_the_first_run_is_taken(tmp_path):
    rows = [_rows(1.0, seed) for seed in (1, 2)]
    for table in rows:
        for row in table:
            row.target["valence_arousal"] = row.target.pop("level")
    runs = [_run(tmp_path / str(i), table, lr=i, track="ps") for i, table in enumerate(rows)]
    found = compare(runs)
    assert found.track == "ps" and "mae_valence" in found.metrics


def test_one_group_gives_no_interval(tmp_path):
    runs = [_run(tmp_path / str(i), _rows(i, i, subjects=1), lr=i) for i in range(2)]
    found = _compare(Levels(), runs)
    assert found.systems[0].intervals == {} and found.differences == ({},)
    assert found.table()[1][1][-1] == "" and "--" in found.latex()


def test_what_cannot_be_compared_is_refused(tmp_path, runs):
    with pytest.raises(DataError, match="need two systems or more, got 1"):
        _compare(Levels(), runs[:1])
    with pytest.raises(ConfigError, match="no group 'subjet'; did you mean 'subject'"):
        _compare(Levels(), runs, by="subjet")
    with pytest.raises(DataError, match="no evaluation 'prior'"):
        _compare(Levels(), runs, evaluation="prior")
    with pytest.raises(DataError, match="lacks 3 samples"):
        _compare(Levels(), [runs[0], _run(tmp_path / "few", _rows(1, 1, subjects=11), lr=3)])
    with pytest.raises(DataError, match="'s0/0' has another target"):
        _compare(Levels(), [runs[0], _run(tmp_path / "moved", _rows(1, 1, truth_seed=5), lr=4)])
    with pytest.raises(DataError, match="a run of track 'fg', the first one of 'levels'"):
        _compare(Levels(), [runs[0], _run(tmp_path / "fg", _rows(1, 1), lr=5, track="fg")])
    with pytest.raises(DataError, match="is given twice"):
        _compare(Levels(), [runs[0], runs[0]])
    with pytest.raises(DataError, match="need the folder of a finished run"):
        _compare(Levels(), [runs[0], str(tmp_path / "none")])


def test_groups_are_those_of_the_runs_own_intervals_and_choices_on_reported_rows_are_told(runs):
    facts = {"fused": {"resampled_by": "clip", "selects_on_reported": True}}
    (Path(runs[0]) / "metrics.json").write_text(json.dumps(facts))
    found = _compare(Levels(), runs)
    assert (found.by, found.num_groups) == ("clip", 3)
    assert [row[0] for row in found.table()[1]] == ["base (selects on these rows)", "better"]
    assert [item["selects_on_reported"] for item in found.summary()["systems"]] == [True, False]
    assert "% base selects on these rows: its scores are too high" in found.latex()
