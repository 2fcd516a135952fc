"""Channel importance: names the channel that the answers follow, and nothing for systems without a network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / "training"))

from ps_setup import make_config, make_run

from mersuite.importance import channel_importance, mean_importance
from mersuite.training.folds import train_fold


def test_channel_that_labels_follow_is_the_most_important(tmp_path: Path) -> None:
    config = make_config("ps.system=signal", "ps.ridge_base=false", "trainer.max_epochs=20", "optim.lr=0.01")
    run = make_run(tmp_path, config)
    checkpoint = train_fold(run)
    found = channel_importance(checkpoint, run.rows(run.fold.val), run.reader)
    assert set(found) == {"eeg_bands", "fnirs_stats"}
    assert set(found["eeg_bands"]) == {"C0", "C1", "C2", "C3", "C4"}
    assert max(found["eeg_bands"], key=found["eeg_bands"].get) == "C0"


def test_looking_changes_no_weight_and_leaves_no_gradient(tmp_path: Path) -> None:
    run = make_run(tmp_path, make_config("ps.system=signal", "trainer.max_epochs=1"))
    checkpoint = train_fold(run)
    assert checkpoint.network is not None
    before = {name: tensor.clone() for name, tensor in checkpoint.network.state_dict().items()}
    channel_importance(checkpoint, run.rows(run.fold.val), run.reader)
    assert all(torch.equal(before[name], tensor) for name, tensor in checkpoint.network.state_dict().items())
    assert all(parameter.grad is None for parameter in checkpoint.network.parameters())


def test_system_without_network_has_none(tmp_path: Path) -> None:
    run = make_run(tmp_path, make_config("ps.system=ridge"))
    assert channel_importance(train_fold(run), run.rows(run.fold.val), run.reader) == {}


def test_mean_counts_a_channel_that_a_fold_lacks_as_zero() -> None:
    assert mean_importance([{"eeg": {"CZ": 4.0}}, {"eeg": {"PZ": 2.0}}]) == {
        "eeg": {"CZ": 2.0, "PZ": pytest.approx(1.0)}
    }
