"""Runs that see candidates without labels: what they learn from, what they never read, and how they go on."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from cross_files import candidate_name, config_of, train_name, write_csv, write_folder

from mersuite import api, registry
from mersuite.clip import Sample
from mersuite.config import RunConfig, with_overrides
from mersuite.data.splits import make_folds
from mersuite.errors import ConfigError, DataError
from mersuite.inference import load_checkpoint
from mersuite.predictions import read_predictions
from mersuite.prepare.ready import ready_reader
from mersuite.run_folder import read_curve
from mersuite.track import Track
from mersuite.training import rounds
from mersuite.training.folds import BEST, FoldRun, finished_fold, train_fold
from mersuite.training.rounds import ROUND
from mersuite.training.unlabelled import taught_lines, with_unlabelled
from tracks.cross.fitted import CrossFitted

QUICK: Mapping[str, Any] = {
    "cv__folds": 2,
    "trainer__max_epochs": 3,
    "trainer__batch_size": 8,
    "optim__lr": 0.02,
    "runtime__threads": 1,
}
LENIENT = {"min_accuracy": 0.01, "min_share": 0.2}
"""A rule that takes guesses of a network that has learned little."""
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "coral": {"cross__align": "coral"},
    "adversarial": {"cross__align": "adversarial", "cross__align_share": 0.3},
    "pseudo": {"cross__pseudo_labels": LENIENT},
    "all": {"cross__align": "coral", "cross__pseudo_labels": {**LENIENT, "rounds": 2}},
}


class Stop(Exception):
    """Stands for a kill."""


def config_for(root: Path, name: str, **overrides: Any) -> RunConfig:
    config = config_of(root, **{**QUICK, **OPTIONS[name], "store__path": str(root.parent / "store"), **overrides})
    return with_overrides(config, {"evaluate": ["listener"]})


def fold_of(folder: Path, config: RunConfig, **changes: Any) -> FoldRun:
    """The first fold of the configured system, as a run would have it."""
    track: Track = registry.load("cross")
    data = with_unlabelled(track, config, track.read(config, "train"))
    samples = {sample.sample_id: sample for sample in data.samples}
    fold = make_folds(data.samples, by=("clip",), num_folds=2, val_fraction=0.25, seed=0)[0]
    run = FoldRun(
        track=track,
        config=config,
        evaluation="listener",
        samples=samples,
        reader=ready_reader(config, data),
        fold=fold,
        folder=folder,
        unlabelled=data.unlabelled,
    )
    return replace(run, **changes)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("clips") / "data", num_train=36, num_candidates=12)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(folder / BEST)
    assert checkpoint.network is not None
    return checkpoint.network.state_dict()


def same_weights(one: Path, two: Path) -> bool:
    first, second = weights_of(one), weights_of(two)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def taken_of(folder: Path) -> Any:
    fitted = load_checkpoint(folder / BEST).fitted
    assert isinstance(fitted, CrossFitted)
    return fitted.taken


# ---- learning


@pytest.mark.parametrize("name", OPTIONS)
def test_candidates_change_what_is_learned_and_two_runs_agree_to_the_last_bit(
    name: str, root: Path, tmp_path: Path
) -> None:
    config = config_for(root, name)
    for folder in ("a", "b"):
        train_fold(fold_of(tmp_path / folder, config))
    assert same_weights(tmp_path / "a", tmp_path / "b")
    without = with_overrides(config, {"cross.align": "none", "cross.pseudo_labels": None})
    train_fold(fold_of(tmp_path / "without", without))
    shared = weights_of(tmp_path / "without")
    seen = weights_of(tmp_path / "a")
    assert any(not torch.equal(shared[key], seen[key]) for key in shared)
    assert ("head.role_classifier.layers.0.weight" in seen) == (name == "adversarial")


@pytest.mark.parametrize(("name", "at"), [("adversarial", 1), ("all", 1), ("all", 4), ("all", 7)])
def test_killed_fold_goes_on_with_exactly_the_same_numbers(name: str, at: int, root: Path, tmp_path: Path) -> None:
    """Epochs are counted on over the rounds: with three a round, 1, 4 and 7 lie in the first, second and third."""
    config = config_for(root, name)
    epochs: list[int] = []
    train_fold(fold_of(tmp_path / "whole", config, report=lambda epoch, value: epochs.append(epoch)))
    assert epochs == list(range(9 if name == "all" else 3))

    def stop(epoch: int, value: float) -> None:
        if epoch == at:
            raise Stop

    with pytest.raises(Stop):
        train_fold(fold_of(tmp_path / "killed", config, report=stop))
    torch.manual_seed(4321)  # what ran before must not matter
    resumed: list[int] = []
    train_fold(fold_of(tmp_path / "killed", config, report=lambda epoch, value: resumed.append(epoch)))
    assert resumed[0] in (at, at + 1) and resumed[-1] == epochs[-1]  # finished rounds and epochs are not done again
    assert same_weights(tmp_path / "whole", tmp_path / "killed")
    assert taken_of(tmp_path / "whole") == taken_of(tmp_path / "killed")
    files = [
        sorted(path.relative_to(tmp_path / kind) for path in (tmp_path / kind).rglob("*"))
        for kind in ("whole", "killed")
    ]
    assert files[0] == files[1]
    curves = [read_curve(tmp_path / kind / "curve.csv") for kind in ("whole", "killed")]
    assert curves[0] == curves[1] and curves[0]


def test_rounds_start_from_the_same_network_and_leave_their_curves(root: Path, tmp_path: Path) -> None:
    train_fold(fold_of(tmp_path / "with", config_for(root, "pseudo")))
    without = config_for(root, "pseudo", cross__pseudo_labels=None)
    train_fold(fold_of(tmp_path / "without", without))
    folders = [tmp_path / "with" / f"{ROUND}{number}" for number in (0, 1)]
    assert read_curve(folders[0] / "curve.csv") == read_curve(tmp_path / "without" / "curve.csv")
    assert read_curve(folders[1] / "curve.csv") == read_curve(tmp_path / "with" / "curve.csv")
    assert read_curve(folders[0] / "curve.csv") != read_curve(folders[1] / "curve.csv")
    assert [sorted(path.name for path in folder.iterdir()) for folder in folders] == [["curve.csv"], ["curve.csv"]]


def test_guessed_rows_are_learned_from_with_their_weight_and_no_longer_unlabelled(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[Sample], list[Sample], dict[str, float]]] = []
    train_network = rounds.train_network

    def spied(run: FoldRun, start: Any, network: Any) -> Any:
        fitted = start.fitted
        shares = dict(zip(fitted.classes, fitted.shares.tolist(), strict=True))
        seen.append((list(start.train), list(start.unlabelled), shares))
        return train_network(run, start, network)

    monkeypatch.setattr(rounds, "train_network", spied)
    checkpoint = train_fold(fold_of(tmp_path / "run", config_for(root, "all", cross__pseudo_labels=LENIENT)))
    (train, unlabelled, shares), (more, rest, shares_then) = seen
    candidates = {candidate_name(index) for index in range(12)}
    assert {row.sample_id for row in unlabelled} == candidates and all(not row.target for row in unlabelled)
    taught = [row for row in more if row.sample_id in candidates]
    assert taught and more[: len(train)] == train and all(row.weight == 0.5 for row in taught)
    assert {row.sample_id for row in taught} | {row.sample_id for row in rest} == candidates
    assert shares == shares_then  # guesses are not counted
    fitted = checkpoint.fitted
    assert isinstance(fitted, CrossFitted)
    assert sum(fitted.taken[0].labels.values()) == len(taught)
    assert taught_lines([checkpoint]) == [f"fold 0: {fitted.taught()[0]}"]


def test_where_no_guess_is_believed_the_first_network_stays(root: Path, tmp_path: Path) -> None:
    strict = config_for(root, "pseudo", cross__pseudo_labels={"min_accuracy": 1.0, "min_share": 1.0})
    train_fold(fold_of(tmp_path / "strict", strict))
    train_fold(fold_of(tmp_path / "without", config_for(root, "pseudo", cross__pseudo_labels=None)))
    assert same_weights(tmp_path / "strict", tmp_path / "without")
    (taken,) = taken_of(tmp_path / "strict")
    assert taken.threshold is None and not taken.labels
    assert not (tmp_path / "strict" / f"{ROUND}1").exists()


# ---- what is never read


def run_of(root: Path, out: Path, **overrides: Any) -> tuple[Any, list[dict[str, float]]]:
    """Fits a run and gives its metrics, notes and all its answers to candidates."""
    config = config_for(root, "all", run__dir=str(out), **overrides)
    result = api.fit(config)
    place = "data.manifest" if config.data.manifest else "data.root"
    places = [f"{place}={config.data.place}", f"store.path={config.store_path}", "runtime.progress=false"]
    told = api.predict(out, out=out / "test.jsonl", overrides=places)
    rows = read_predictions(out / "test.jsonl", track="cross")[1]
    answers = [{name: float(value) for name, value in row.outputs.items()} for row in rows]
    return (result.metrics, result.notes, told["traits"], told["notes"]), answers


@pytest.mark.parametrize("change", ["removed", "changed"])
def test_the_truth_of_candidates_is_never_read(change: str, root: Path, tmp_path: Path) -> None:
    before = run_of(root, tmp_path / "before")
    copy = tmp_path / "copy" / "data"
    shutil.copytree(root, copy)
    truth = copy / "track1_test.csv"
    truth.unlink()
    if change == "changed":
        write_csv(truth, ("name", "discrete"), [(candidate_name(index), "angry") for index in range(12)])
    assert run_of(copy, tmp_path / "after") == before


def write_manifest(folder: Path, root: Path, labels: Mapping[int, str]) -> Path:
    """Own clips: training rows as in the folder, test rows of role other with the labels given."""
    header = ("clip_id", "features/face-UTT", "features/voice-UTT", "target.emotion", "group.role", "split")
    train = dict(line.split(",") for line in (root / "track1_train.csv").read_text().splitlines()[1:])
    rows = [
        (
            name,
            *(str(root / "features" / kind / f"{name}.npy") for kind in ("face-UTT", "voice-UTT")),
            label,
            "own",
            "train",
        )
        for name, label in train.items()
    ]
    for index in range(12):
        files = (str(root / "features" / kind / f"{candidate_name(index)}.npy") for kind in ("face-UTT", "voice-UTT"))
        rows.append((candidate_name(index), *files, labels.get(index, ""), "other", "test"))
    return write_csv(folder / "clips.csv", header, rows)


@pytest.mark.parametrize("labels", [{}, dict.fromkeys(range(12), "sad")], ids=["removed", "changed"])
def test_labels_of_test_rows_in_a_manifest_are_never_read(labels: dict[int, str], root: Path, tmp_path: Path) -> None:
    own = {"cross__other": {"face": ["face-UTT"], "voice": []}, "features__l": None, "data__root": None}
    true = {index: ("neutral", "angry", "happy")[index % 3] for index in range(12)}
    found = []
    for name, given in (("before", true), ("after", labels)):
        manifest = write_manifest(tmp_path / name, root, given)
        found.append(run_of(root, tmp_path / f"run_{name}", data__manifest=str(manifest), **own))
    assert found[0] == found[1]
    assert any("training sees 12 samples of split test without their labels" in note for note in found[0][0][1])


def test_rows_of_the_other_role_alone_serve(root: Path, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, root, {})
    manifest.write_text(manifest.read_text().replace(",other,test", ",own,test"), encoding="utf-8")
    own = {"cross__other": {"face": ["face-UTT"], "voice": []}, "features__l": None, "data__root": None}
    with pytest.raises(DataError, match="it has none with role=other; add them, or switch the options off"):
        api.fit(config_for(root, "coral", data__manifest=str(manifest), run__dir=str(tmp_path / "run"), **own))


# ---- what a run says and compares


def test_a_run_says_that_it_is_transductive_and_what_it_guessed(root: Path, tmp_path: Path) -> None:
    (metrics, notes, traits, predicted), answers = run_of(root, tmp_path / "run")
    assert "transductive: candidates were seen in training" in metrics["listener"]["protocol"]
    assert metrics["listener"]["num_rows"] == 36 and len(answers) == 12
    assert any("training sees 12 samples of split test" in note for note in notes)
    told = [note for note in notes if "pseudo-labels, round" in note]
    assert {note.split(":")[0] for note in told} == {"listener, fold 0", "listener, fold 1"}
    assert traits["transductive"] is True and traits["align"] == "coral" and traits["pseudo_labels"]["rounds"] == 2
    assert [note for note in predicted if "pseudo-labels, round 1" in note]
    content = json.loads((tmp_path / "run" / "run.json").read_text())
    folds = content["evaluations"]["listener"]["folds"]
    rows = {row for fold in folds for side in ("train", "val", "held_out") for row in fold[side]}
    assert rows == {train_name(index) for index in range(36)}
    assert all(fold["taught"] for fold in folds)


@pytest.mark.parametrize("finished", [True, False])
def test_a_fold_that_saw_other_candidates_is_not_continued(finished: bool, root: Path, tmp_path: Path) -> None:
    config = config_for(root, "coral")
    run = fold_of(tmp_path / "run", config)
    train_fold(run)
    if not finished:
        (tmp_path / "run" / BEST).unlink()
    other = replace(run, unlabelled=run.unlabelled[1:])
    with pytest.raises(ConfigError, match="was made with other unlabelled rows"):
        finished_fold(other) if finished else train_fold(other)


def test_a_system_that_sees_nothing_is_not_bound_to_candidates(root: Path, tmp_path: Path) -> None:
    config = config_for(root, "coral", cross__align="none")
    run = fold_of(tmp_path / "run", config)
    assert run.unlabelled == () and run.unlabelled_rows() == []
    train_fold(replace(run, unlabelled=(Sample(sample_id="u", clip_id="u", groups={}),)))
    assert "unlabelled rows or labels" not in json.loads((tmp_path / "run" / "rows.json").read_text())


def test_options_that_need_candidates_cannot_be_switched_on_later(root: Path, tmp_path: Path) -> None:
    config = config_for(root, "coral", cross__align="none")
    late = replace(fold_of(tmp_path / "run", config), config=config_for(root, "coral"))
    with pytest.raises(ConfigError, match="sees split test without labels in training, and it was not read"):
        train_fold(late)


def test_candidates_of_held_out_groups_stay_away(root: Path, tmp_path: Path) -> None:
    run = fold_of(tmp_path / "run", with_overrides(config_for(root, "coral"), {"cv.by": ["dialogue"]}))
    held_out = run.fold.held_out[0]
    samples = {**run.samples, held_out: replace(run.samples[held_out], groups={"clip": held_out, "dialogue": "7"})}
    first, *others = run.unlabelled
    met = replace(first, groups={**first.groups, "dialogue": "7"})
    kept = replace(run, samples=samples, unlabelled=(met, *others)).unlabelled_rows()
    assert [row.sample_id for row in kept] == [row.sample_id for row in others]
    with pytest.raises(DataError, match="share a dialogue with rows that are held out"):
        replace(run, samples=samples, unlabelled=(met,)).unlabelled_rows()


def test_candidates_without_a_stream_of_the_model_are_left_out(root: Path, tmp_path: Path) -> None:
    run = fold_of(tmp_path / "run", config_for(root, "coral"))
    bare = tuple(replace(row, streams={"face": None, "voice": None}) for row in run.unlabelled)
    with pytest.raises(DataError, match="none of 12 unlabelled samples, such as 'samplenew_00000000', has one of"):
        train_fold(replace(run, folder=tmp_path / "bare", unlabelled=bare))
    train_fold(replace(run, folder=tmp_path / "some", unlabelled=(bare[0], *run.unlabelled[1:])))


def test_vectors_of_another_width_are_refused_before_training(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy" / "data"
    shutil.copytree(root, copy)
    for path in (copy / "features" / "face-listener-UTT").glob("*.npy"):
        np.save(path, np.zeros(9, np.float32))
    with pytest.raises(DataError, match=r"stream 'face': .* has 9 channels"):
        train_fold(fold_of(tmp_path / "run", config_for(copy, "coral")))
