"""Folds: learning, exact resume, what is kept."""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from ps_setup import make_config, make_run

from mersuite.errors import ConfigError
from mersuite.inference import answer_with, load_checkpoint
from mersuite.run_folder import read_curve
from mersuite.training.folds import BEST, finished_fold, seed_of, train_fold
from tracks.ps.fitted import PsFitted
from tracks.ps.track import PsTrack


class Stop(Exception):
    """Stands for a kill."""


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = load_checkpoint(folder / BEST)
    assert checkpoint.network is not None
    return checkpoint.network.state_dict()


@pytest.mark.parametrize("extra", [(), ("trainer.ema_decay=0.9",)])
def test_killed_fold_goes_on_with_exactly_the_same_numbers(tmp_path: Path, extra: tuple[str, ...]) -> None:
    config = make_config("ps.system=signal", *extra)
    train_fold(make_run(tmp_path / "whole", config))

    def stop_in_third_epoch(epoch: int, value: float) -> None:
        if epoch == 2:
            raise Stop

    with pytest.raises(Stop):
        train_fold(make_run(tmp_path / "killed", config, stop_in_third_epoch))
    assert not (tmp_path / "killed" / BEST).exists()
    torch.manual_seed(12345)  # what ran before must not matter
    train_fold(make_run(tmp_path / "killed", config))

    whole, resumed = _weights(tmp_path / "whole"), _weights(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    for name in whole:
        assert torch.equal(whole[name], resumed[name]), name
    assert read_curve(tmp_path / "whole" / "curve.csv") == read_curve(tmp_path / "killed" / "curve.csv")


def test_fold_killed_after_early_stopping_does_not_train_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config("ps.system=signal", "trainer.max_epochs=30", "trainer.patience=2", "optim.lr=0.05")
    train_fold(make_run(tmp_path / "whole", config))

    def stop(*_: object) -> None:
        raise Stop

    with monkeypatch.context() as patch, pytest.raises(Stop):
        patch.setattr("mersuite.training.folds.known_outputs", stop)
        train_fold(make_run(tmp_path / "killed", config))
    train_fold(make_run(tmp_path / "killed", config))

    whole, resumed = _weights(tmp_path / "whole"), _weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert read_curve(tmp_path / "whole" / "curve.csv") == read_curve(tmp_path / "killed" / "curve.csv")
    files = [sorted(item.name for item in (tmp_path / name).iterdir()) for name in ("whole", "killed")]
    assert files[0] == files[1]


def test_two_runs_of_one_config_agree_to_the_last_bit(tmp_path: Path) -> None:
    config = make_config("ps.system=signal")
    for name in ("a", "b"):
        train_fold(make_run(tmp_path / name, config))
    first, second = _weights(tmp_path / "a"), _weights(tmp_path / "b")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_network_learns_what_the_signals_carry(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_config("ps.system=signal", "trainer.max_epochs=30", "optim.lr=0.01"))
    checkpoint = train_fold(run)
    held_out = run.rows(run.fold.held_out)
    targets = [run.track.answer_of(item) for item in held_out]
    signal = run.track.metrics([item.answer for item in answer_with(checkpoint, held_out, run.reader)], targets)
    median = np.median(np.concatenate([run.track.answer_of(item) for item in run.rows(run.fold.train)]), axis=0)
    constant = run.track.metrics([np.tile(median, (len(item), 1)) for item in targets], targets)
    assert signal["mae_valence"] < 0.6 * constant["mae_valence"]


def test_reloaded_checkpoint_answers_like_the_trained_one(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_config("ps.system=fused"))
    trained = train_fold(run)
    held_out = run.rows(run.fold.held_out)
    before = answer_with(trained, held_out, run.reader)
    after = answer_with(load_checkpoint(tmp_path / "run" / BEST), held_out, run.reader)
    assert [item.answer for item in before] == [item.answer for item in after]


def test_ridge_baseline_walks_the_same_way(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", make_config("ps.system=ridge"))
    predictions = answer_with(train_fold(run), run.rows(run.fold.held_out), run.reader)
    targets = [run.track.answer_of(item) for item in run.rows(run.fold.held_out)]
    assert run.track.metrics([item.answer for item in predictions], targets)["mae_valence"] < 5


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("changed", ["rows", "labels"])
def test_fold_of_other_data_is_not_continued(tmp_path: Path, finished: bool, changed: str) -> None:
    """With other people in data.root the same fold holds out other rows; its old answers must not join the new ones."""
    config = make_config("ps.system=median")
    run = make_run(tmp_path / "run", config)
    train_fold(run)
    if not finished:
        (tmp_path / "run" / BEST).unlink()
    if changed == "rows":
        swapped = replace(run.fold, train=run.fold.held_out, held_out=run.fold.train)
        other = replace(run, fold=swapped)
    else:
        name = run.fold.train[0]
        truth = {key: array + 1 for key, array in run.samples[name].target.items()}
        other = replace(run, samples={**run.samples, name: replace(run.samples[name], target=truth)})
    with pytest.raises(ConfigError, match="was made with other train"):
        finished_fold(other) if finished else train_fold(other)
    assert (finished_fold(run) is not None) == finished


def test_seed_depends_on_seed_evaluation_and_fold() -> None:
    seeds = {seed_of(seed, name, fold) for seed in (0, 1) for name in ("signal", "fused") for fold in (0, 1)}
    assert len(seeds) == 8


def test_head_loss_and_context_see_the_fitted_parts_after_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def classes(fitted: PsFitted) -> tuple[str, ...]:
        return ("low", "high") if fitted.prior.median[0] != 0 else ()

    def spy(name: str) -> None:
        method = getattr(PsTrack, name)
        fitted_at = list(inspect.signature(method).parameters).index("fitted")

        def spied(*given):
            seen.append((name, given[fitted_at].classes))
            return method(*given)

        monkeypatch.setattr(PsTrack, name, spied)

    monkeypatch.setattr(PsFitted, "classes", property(classes))
    spy("build_head")
    spy("loss")
    train_fold(make_run(tmp_path / "fold", make_config("ps.system=signal", "trainer.max_epochs=1")))
    assert set(seen) == {("build_head", ("low", "high")), ("loss", ("low", "high"))}
    seen.clear()
    checkpoint = load_checkpoint(tmp_path / "fold" / BEST)
    assert seen == [("build_head", ("low", "high"))]
    assert checkpoint.context is not None
    assert checkpoint.context.classes == ("low", "high")


def test_memory_of_the_device_that_does_not_suffice_names_the_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(PsTrack, "loss", full)
    run = make_run(tmp_path, make_config("ps.system=signal", "trainer.batch_size=6"))
    with pytest.raises(
        ConfigError, match=r"trainer\.batch_size: .* batches of 6 does not fit .* lower it to 3 or less"
    ):
        train_fold(run)
