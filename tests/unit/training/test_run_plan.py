"""Which evaluations a run consists of, given what the data can have."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ps_setup import MadeFeatures, make_config, make_samples

from mersuite import registry
from mersuite.clip import Prediction, Sample
from mersuite.errors import ConfigError, DataError
from mersuite.metrics.bootstrap import bootstrap_intervals
from mersuite.run_folder import open_run, read_run_json
from mersuite.track import TrackData
from mersuite.training.run import FitResult, RunPlan, plan_run, run_evaluations, score_rows


def _samples(change: Callable[[Sample], dict[str, str]] = lambda sample: dict(sample.groups)) -> list[Sample]:
    return [replace(sample, groups=change(sample)) for sample in make_samples(np.random.default_rng(0))[0]]


def _plan(samples: list[Sample], *words: str) -> RunPlan:
    return plan_run(registry.load("ps"), make_config("cv.folds=3", *words), samples)


def _names(plan: RunPlan) -> list[str]:
    return [item.name for item in plan.evaluations]


def _own_stimulus(sample: Sample) -> dict[str, str]:
    return {**sample.groups, "clip": sample.sample_id}


def test_shared_stimuli_allow_everything():
    plan = _plan(_samples(), "cv.folds=2")
    assert _names(plan) == [
        "fused",
        "signal",
        "constant",
        "median",
        "ridge",
        "prior",
        "unseen_clips",
        "unseen_clips_median",
    ]
    assert set(plan.folds) == set(_names(plan))
    assert plan.notes == ()


@pytest.mark.parametrize("change", [_own_stimulus, lambda sample: {"subject": sample.groups["subject"]}])
def test_data_without_shared_stimuli_have_no_prior(change: Callable[[Sample], dict[str, str]]):
    plan = _plan(_samples(change))
    assert _names(plan) == ["signal", "constant", "median", "ridge"]
    left_out = ["fused", "prior", "unseen_clips", "unseen_clips_median"]
    assert [note.partition(" was left out")[0] for note in plan.notes[:4]] == left_out
    assert plan.notes[4] == "the main system is therefore signal"


def test_one_stimulus_that_two_people_had_is_enough():
    change = {"test_1/video_01": "film", "test_2/video_01": "film"}
    plan = _plan(_samples(lambda sample: {**sample.groups, "clip": change.get(sample.sample_id, sample.sample_id)}))
    assert "prior" in _names(plan)


def _two_clips(samples: list[Sample]) -> list[Sample]:
    return [sample for sample in samples if sample.groups["clip"] in ("video_01", "video_02")]


def test_comparison_split_otherwise_has_as_many_folds_as_its_rarest_group_allows():
    plan = _plan(_samples(), "cv.folds=6")
    assert len(plan.folds["fused"]) == 6
    assert len(plan.folds["unseen_clips"]) == len({item.groups["clip"] for item in _samples()}) == 4


def test_folds_that_only_a_comparison_cannot_have_leave_it_out():
    plan = _plan(_two_clips(_samples()), "cv.folds=6")
    assert "unseen_clips" not in _names(plan)
    assert [note.partition(": cv.by: 1 clip left")[0] for note in plan.notes] == [
        "unseen_clips was left out",
        "unseen_clips_median was left out",
    ]


def test_folds_that_the_main_system_cannot_have_are_refused():
    with pytest.raises(ConfigError, match="7 folds by subject need as many of them, the data have 6"):
        _plan(_samples(), "cv.folds=7")


def test_evaluation_asked_for_by_name_is_refused_rather_than_left_out():
    with pytest.raises(ConfigError, match="evaluate: prior cannot be had: no two subjects have a clip in common"):
        _plan(_samples(_own_stimulus), "evaluate=prior")
    with pytest.raises(ConfigError, match=r"evaluate: unseen_clips cannot be had: .*1 clip left beside"):
        _plan(_two_clips(_samples()), "cv.folds=6", "evaluate=unseen_clips")


def test_nothing_left_to_evaluate_is_refused(monkeypatch: pytest.MonkeyPatch):
    track = registry.load("ps")
    first = track.evaluations(make_config())[0]
    monkeypatch.setattr(track, "evaluations", lambda config: [replace(first, unfit="the moon is full")])
    with pytest.raises(ConfigError, match="nothing can be evaluated: fused was left out: the moon is full"):
        plan_run(track, make_config("cv.folds=3"), _samples())


def test_ridge_is_left_out_of_a_model_without_features():
    encoders = "model.encoders={eeg: {name: eegnet}, eeg_bands: null, fnirs_stats: null}"
    plan = _plan(_samples(), encoders, "ps.target_lag_s=0")
    assert "ridge" not in _names(plan)
    assert any(note.startswith("ridge was left out: the model reads no features") for note in plan.notes)


def test_sample_shorter_than_a_window_is_refused():
    with pytest.raises(DataError, match=r"lasts 12 s, shorter than data\.window_s=13"):
        _plan(_samples(), "data.window_s=13", "data.stride_s=13")


def test_stream_that_no_clip_has_is_refused(tmp_path: Path):
    samples, reader = make_samples(np.random.default_rng(0))
    config = make_config(f"run.dir={tmp_path / 'run'}", "cv.folds=3", "model.encoders.eeg_hjorth={name: mlp}")
    with pytest.raises(DataError, match=r"stream 'eeg_hjorth': no clip has it; .*model\.encoders\.eeg_hjorth=null"):
        run_evaluations(
            registry.load("ps"), config, TrackData(clips=(), samples=tuple(samples)), reader, open_run(config)
        )


def test_caveat_of_the_data_stands_in_every_protocol(tmp_path: Path):
    samples, reader = make_samples(np.random.default_rng(0))
    config = make_config(f"run.dir={tmp_path / 'run'}", "cv.folds=3", "ps.system=median", "evaluate=constant")
    data = TrackData(clips=(), samples=tuple(samples), caveat="targets: simulated (24)")
    result = run_evaluations(registry.load("ps"), config, data, reader, open_run(config))
    assert {name: item["protocol"].partition("; ")[2] for name, item in result.metrics.items()} == {
        "median": "targets: simulated (24)",
        "constant": "targets: simulated (24)",
    }


def _run(folder: Path, samples: list[Sample], *words: str) -> FitResult:
    _, reader = make_samples(np.random.default_rng(0))
    config = make_config(f"run.dir={folder}", "cv.folds=3", "ps.system=median", *words)
    data = TrackData(clips=(), samples=tuple(samples))
    return run_evaluations(registry.load("ps"), config, data, reader, open_run(config))


def test_resuming_with_fewer_evaluations_keeps_those_that_are_finished(tmp_path: Path):
    whole = _run(tmp_path / "run", _samples(), "evaluate=constant,prior")
    before = {name: (tmp_path / "run" / name).read_text() for name in ("metrics.json", "metrics.csv")}
    entries = read_run_json(tmp_path / "run")["evaluations"]
    again = _run(tmp_path / "run", _samples(), "evaluate=prior", "run.resume=true")
    assert list(again.metrics) == ["median", "constant", "prior"]
    assert again.metrics == whole.metrics
    assert read_run_json(tmp_path / "run")["evaluations"] == entries
    assert {name: (tmp_path / "run" / name).read_text() for name in before} == before


def test_resuming_with_another_main_system_is_refused(tmp_path: Path):
    bare = _samples(lambda sample: {"subject": sample.groups["subject"]})
    _run(tmp_path / "run", bare, "ps.system=prior", "evaluate=constant")
    with pytest.raises(ConfigError, match="has constant as its main system, and this would be median; add constant"):
        _run(tmp_path / "run", bare, "ps.system=prior", "evaluate=median", "run.resume=true")


def test_resuming_with_other_signals_is_refused(tmp_path: Path):
    samples, reader = make_samples(np.random.default_rng(0))
    config = make_config(f"run.dir={tmp_path / 'run'}", "cv.folds=3", "ps.system=median", "evaluate=constant")
    data = TrackData(clips=(), samples=tuple(samples))
    run_evaluations(registry.load("ps"), config, data, reader, open_run(config))
    louder = {key: replace(signal, data=2 * signal.data) for key, signal in reader._signals.items()}
    resumed = replace(config, run=replace(config.run, resume=True))
    with pytest.raises(ConfigError, match=r"fold_0 was made with other signals than the data have now"):
        run_evaluations(registry.load("ps"), resumed, data, MadeFeatures(louder), open_run(resumed))


def _predictions() -> list[Prediction]:
    rng = np.random.default_rng(1)
    return [
        Prediction(
            sample_id=sample.sample_id,
            groups={**sample.groups, "row": sample.sample_id},
            outputs={},
            answer=rng.integers(1, 256, size=sample.target["valence_arousal"].shape).tolist(),
            target=sample.target,
        )
        for sample in make_samples(np.random.default_rng(0))[0]
    ]


def test_scores_are_those_of_the_metric_on_plain_answers():
    track, rows = registry.load("ps"), _predictions()

    def plain(chosen: list[Prediction]) -> dict[str, float]:
        return track.metrics([row.answer for row in chosen], [row.target["valence_arousal"] for row in chosen])

    found = score_rows(track, make_config("seed=3"), rows, "as planned")
    assert {name: found[name] for name in plain(rows)} == plain(rows)
    subjects = [row.groups["subject"] for row in rows]
    expected = bootstrap_intervals(lambda index: plain([rows[i] for i in index]), subjects, seed=3)
    assert found["interval"] == {name: [expected[name].low, expected[name].high] for name in track.metric_names}
    second = plain([row for row in rows if row.groups["clip"] == "video_02"])
    assert found["groups"]["clip"]["video_02"] == {name: second[name] for name in track.metric_names}


def test_only_groups_that_the_track_shows_are_scored_member_by_member():
    found = score_rows(registry.load("ps"), make_config(), _predictions(), "")
    assert {name: len(members) for name, members in found["groups"].items()} == {"subject": 6, "clip": 4}
