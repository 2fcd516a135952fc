"""The search itself: what it looks at, how many trials it runs, and what is left when workers die."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent / "training"))

from ps_setup import MadeFeatures, make_config, make_samples

from mersuite import api, registry, sweep
from mersuite.clip import Sample, Signal
from mersuite.config import RunConfig
from mersuite.errors import ConfigError
from mersuite.run_folder import RunWriter
from mersuite.search_space import read_space
from mersuite.sweep import SweepResult, open_storage, run_sweep
from mersuite.track import TrackData
from mersuite.training.run import plan_folds, run_evaluations

SPACE = """
optim.lr: {type: float, low: 1.0e-4, high: 1.0e-2, log: true}
model.encoders.eeg_bands.hidden: {type: categorical, choices: [4, 8]}
"""


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return config_in(tmp_path)


def config_in(folder: Path, *words: str) -> RunConfig:
    (folder / "space.yaml").write_text(SPACE)
    own = [f"sweep.space={folder / 'space.yaml'}", f"run.dir={folder / 'sweep'}", "sweep.num_trials=2"]
    return make_config(*own, "trainer.max_epochs=1", "cv.folds=2", "ps.refine_prior=false", *words)


def data_of(samples: Sequence[Sample]) -> TrackData:
    return TrackData(clips=(), samples=tuple(samples))


def search(config: RunConfig, samples=None, reader=None) -> SweepResult:
    if samples is None:
        samples, reader = make_samples(np.random.default_rng(0))
    return run_sweep(registry.load("ps"), config, data_of(samples), reader)


def trials(folder: Path, fold: int, url: str = "") -> list[optuna.trial.FrozenTrial]:
    storage = open_storage(url or f"sqlite:///{folder / 'sweep/sweep.db'}")
    return optuna.load_study(study_name=f"ps-fused-fold{fold}", storage=storage).trials


# ---- what it looks at


class Watching:
    """Features that note which clips are read."""

    def __init__(self, features: MadeFeatures) -> None:
        self._features = features
        self.seen: set[str] = set()

    def example(self, stream: str) -> Signal | None:
        return self._features.example(stream)

    def signature(self, clip_ids: Collection[str]) -> str:
        return self._features.signature(clip_ids)

    def get(self, clip_id: str, stream: str) -> Signal | None:
        self.seen.add(clip_id)
        return self._features.get(clip_id, stream)


def test_held_out_rows_change_no_trial_and_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    before = config_in(tmp_path / "a", "cv.held_out=test_1,test_2", "ps.system=fused")
    after = config_in(tmp_path / "b", "cv.held_out=test_1,test_2", "ps.system=fused")
    samples, features = make_samples(np.random.default_rng(0))
    search(before, samples, features)

    fold = plan_folds(after, registry.load("ps").evaluations(after)[0], samples)[0]
    assert {item.partition("/")[0] for item in fold.held_out} == {"test_1", "test_2"}
    garbage, signals = [], {}
    rng = np.random.default_rng(1)
    for sample in samples:
        is_held_out = sample.sample_id in fold.held_out
        target = {name: rng.uniform(1, 255, item.shape).astype(np.float32) for name, item in sample.target.items()}
        garbage.append(replace(sample, target=target) if is_held_out else sample)
        for stream in ("eeg_bands", "fnirs_stats"):
            signal = features.get(sample.clip_id, stream)
            noise = 1e6 * rng.normal(size=signal.data.shape).astype(np.float32)
            signals[sample.clip_id, stream] = replace(signal, data=noise) if is_held_out else signal
    watching = Watching(MadeFeatures(signals))
    search(after, garbage, watching)

    first, second = trials(tmp_path / "a", 0), trials(tmp_path / "b", 0)
    assert [item.params for item in first] == [item.params for item in second]
    assert [item.value for item in first] == [item.value for item in second]
    assert watching.seen == {*fold.train, *fold.val}


# ---- how many


def test_search_gives_num_trials_each_fold_and_goes_on_from_there(tmp_path: Path, config: RunConfig) -> None:
    result = search(config)
    assert [item["complete"] + item["pruned"] for item in result.folds] == [2, 2]
    values = [item.value for item in trials(tmp_path, 0)]
    assert len(set(values)) == 2
    search(config)
    assert [len(trials(tmp_path, fold)) for fold in (0, 1)] == [2, 2]
    more = search(replace(config, sweep=replace(config.sweep, num_trials=3)))
    assert [item["complete"] + item["pruned"] for item in more.folds] == [3, 3]
    assert [item.value for item in trials(tmp_path, 0)][:2] == values


def test_resumed_search_draws_what_an_uninterrupted_one_draws(tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    search(config_in(tmp_path / "whole", "sweep.num_trials=3"))
    for count in (1, 3):
        search(config_in(tmp_path / "parts", f"sweep.num_trials={count}"))
    for fold in (0, 1):
        whole, parts = trials(tmp_path / "whole", fold), trials(tmp_path / "parts", fold)
        assert [(item.params, item.value) for item in whole] == [(item.params, item.value) for item in parts]


def test_search_stops_when_its_time_is_up(tmp_path: Path) -> None:
    result = search(config_in(tmp_path, "sweep.num_trials=50", "sweep.timeout_s=0.001"))
    assert [item["complete"] for item in result.folds] == [1, 1]


def test_study_of_another_configuration_is_refused(config: RunConfig) -> None:
    search(config)
    other = replace(config, trainer=replace(config.trainer, max_epochs=2))
    with pytest.raises(ConfigError, match=r"study 'ps-fused-fold0' searched other data, folds, ranges or another"):
        search(other)


def test_trial_that_came_too_late_for_the_last_place_is_given_up(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, calls = sweep.FoldSearch._taken, []

    def late(self) -> list[optuna.trial.FrozenTrial]:
        calls.append(self)
        found = taken(self)
        if self._run.fold.index == 0 and len(calls) == 2:  # another worker has just begun the last two
            for _ in range(2):
                other = self._study.ask()
                self._study.tell(other, 1.0)
            return [replace_start(item) for item in taken(self)]
        return found

    def replace_start(item: optuna.trial.FrozenTrial) -> optuna.trial.FrozenTrial:
        if item.state.is_finished():
            item.datetime_start = item.datetime_start.replace(year=2000)
        return item

    monkeypatch.setattr(sweep.FoldSearch, "_taken", late)
    result = search(config)
    assert [item["complete"] for item in result.folds] == [2, 2]
    assert [item.state.name for item in trials(tmp_path, 0)] == ["FAIL", "COMPLETE", "COMPLETE"]


# ---- pruning, storages, what stays behind


def test_bad_trial_is_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def train(run):
        bad = len(steps) >= 4 * 4
        for epoch in range(4):
            steps.append(epoch)
            run.report(epoch, 100.0 if bad else 10.0)
        return None

    monkeypatch.setattr(sweep, "train_fold", train)
    monkeypatch.setattr(sweep, "_val_score", lambda run, checkpoint: 10.0)
    words = ("sweep.num_trials=5", "cv.held_out=test_1")
    result = search(config_in(tmp_path, *words))
    assert (result.folds[0]["complete"], result.folds[0]["pruned"]) == (4, 1)
    assert steps[16:] == [0, 1], "stopped at the second epoch, the first that is judged"
    (tmp_path / "off").mkdir()
    steps.clear()
    assert search(config_in(tmp_path / "off", *words, "sweep.prune=false")).folds[0]["complete"] == 5


def test_real_training_is_stopped_by_pruning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optuna.Trial, "should_prune", lambda self: self.number == 1 and len(reports(self)) == 2)

    def reports(trial: optuna.Trial) -> dict[int, float]:
        return trial.study.trials[trial.number].intermediate_values

    search(config_in(tmp_path, "cv.held_out=test_1", "trainer.max_epochs=5"))
    found = trials(tmp_path, 0)
    assert [item.state.name for item in found] == ["COMPLETE", "PRUNED"]
    assert [len(item.intermediate_values) for item in found] == [5, 2]
    assert not list((tmp_path / "sweep").glob("fold_*"))


def test_journal_file_keeps_trials(tmp_path: Path) -> None:
    url = str(tmp_path / "sweep.log")
    config = config_in(tmp_path, f"sweep.storage={url}", "cv.held_out=test_1")
    search(config)
    optuna.load_study(study_name="ps-fused-fold0", storage=open_storage(url)).ask()  # its worker dies
    more = search(replace(config, sweep=replace(config.sweep, num_trials=3)))
    assert more.folds[0]["complete"] == 3
    assert [item.state.name for item in trials(tmp_path, 0, url)] == ["COMPLETE", "COMPLETE", "RUNNING", "COMPLETE"]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_trial_of_a_dead_worker_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "HEARTBEAT_S", 1)
    monkeypatch.setattr(sweep, "POLL_S", 0.2)
    config = config_in(tmp_path, "cv.held_out=test_1")
    search(replace(config, sweep=replace(config.sweep, num_trials=1)))
    storage = open_storage(f"sqlite:///{tmp_path / 'sweep/sweep.db'}")
    study = optuna.load_study(study_name="ps-fused-fold0", storage=storage)
    dead = study.ask(optuna_space())
    dead.set_user_attr(sweep.BEGUN, True)
    storage.record_heartbeat(dead._trial_id)
    (tmp_path / "sweep/fold_0/trial_1").mkdir(parents=True)
    study.ask()  # another one, that died before its first sign of life
    result = search(config)
    assert result.folds[0]["complete"] == 2
    states = {item.number: item.state.name for item in trials(tmp_path, 0)}
    assert states[0] == "COMPLETE" and states[1] == "FAIL" and states[2] == "RUNNING"
    assert not list((tmp_path / "sweep").glob("fold_*"))


def optuna_space() -> dict[str, optuna.distributions.BaseDistribution]:
    return {
        "optim.lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
        "model.encoders.eeg_bands.hidden": optuna.distributions.CategoricalDistribution([4, 8]),
    }


def test_failing_trial_ends_the_search_and_leaves_nothing(tmp_path: Path, monkeypatch, config: RunConfig) -> None:
    def train(run):
        run.folder.mkdir(parents=True)
        raise RuntimeError("no memory")

    monkeypatch.setattr(sweep, "train_fold", train)
    with pytest.raises(RuntimeError, match="no memory"):
        search(config)
    assert not list((tmp_path / "sweep").glob("fold_*/trial_*"))


def test_search_without_a_finished_trial_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(run):
        raise optuna.TrialPruned

    monkeypatch.setattr(sweep, "train_fold", train)
    with pytest.raises(ConfigError, match=r"no trial of study 'ps-fused-fold0' finished; raise sweep\.num_trials"):
        search(config_in(tmp_path))


WORKER = """
import sys
from pathlib import Path

sys.path[:0] = sys.argv[2:4]
import test_sweep

test_sweep.search(test_sweep.config_in(Path(sys.argv[1]), "sweep.num_trials=6", "cv.held_out=test_1"))
"""


def test_two_workers_share_the_trials(tmp_path: Path) -> None:
    config_in(tmp_path)
    here = Path(__file__).parent
    command = [sys.executable, "-c", WORKER, str(tmp_path), str(here), str(here.parent.parent)]
    workers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [worker.communicate(timeout=120)[1] for worker in workers if worker.wait(timeout=120)] == []
    found = trials(tmp_path, 0)
    assert sorted(item.state.name for item in found if item.state.name != "FAIL") == ["COMPLETE"] * 6
    assert len({item.params["optim.lr"] for item in found if item.state.name == "COMPLETE"}) == 6
    best = yaml.safe_load((tmp_path / "sweep/best.yaml").read_text())
    winner = min((item for item in found if item.value is not None), key=lambda item: item.value)
    assert best["fold_overrides"]["0"] == winner.params


# ---- the space


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("cv.folds", "cannot be searched: every trial of a study has the same folds"),
        ("features.eeg.rate_hz", "cannot be searched: the store is read as it was prepared"),
        ("seed", "cannot be searched: folds go by it"),
        ("ps.system", "cannot be searched: the searched system sets it"),
    ],
)
def test_key_that_is_no_hyper_parameter_is_refused(key: str, message: str, tmp_path: Path, config: RunConfig) -> None:
    path = tmp_path / "other.yaml"
    path.write_text(f"{key}: {{type: int, low: 2, high: 3}}\n")
    with pytest.raises(ConfigError, match=message):
        read_space(path, config, taken=("ps.system",))


# ---- what it gives


def test_best_file_is_a_configuration_whose_folds_have_their_own_values(tmp_path: Path, config: RunConfig) -> None:
    result = search(config)
    assert result.best_config == tmp_path / "sweep/best.yaml"
    words = [f"run.dir={tmp_path / 'run'}", "runtime.accelerator=cpu", "runtime.progress=false", "evaluate=fused"]
    best = api.config("ps", files=[str(result.best_config)], overrides=words)
    assert [best.fold_overrides[str(item["fold"])] for item in result.folds] == [
        item["params"] for item in result.folds
    ]
    samples, reader = make_samples(np.random.default_rng(0))
    folder = RunWriter(path=tmp_path / "run")
    run_evaluations(registry.load("ps"), best, data_of(samples), reader, folder)
    from mersuite.inference import load_checkpoint

    for item in result.folds:
        trained = load_checkpoint(tmp_path / f"run/fold_{item['fold']}/best.ckpt").config
        assert trained.optim.lr == item["params"]["optim.lr"]
        assert trained.model.encoders["eeg_bands"].config.hidden == item["params"]["model.encoders.eeg_bands.hidden"]


def test_summary_and_table_tell_each_folds_best(config: RunConfig) -> None:
    result = search(config)
    columns, rows = result.table()
    assert columns == ["fold", "finished", "pruned", "best val/mae", "optim.lr", "model.encoders.eeg_bands.hidden"]
    assert [row[0] for row in rows] == [0, 1] and [row[3] for row in rows] == [item["value"] for item in result.folds]
    assert result.summary()["monitor"] == "val/mae"
