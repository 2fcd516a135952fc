from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

from cross_files import config_of, write_folder

from mersuite import api
from mersuite.inference import load_checkpoint


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed"])
def test_a_network_trained_in_bfloat16_is_scored_and_kept_in_float32(tmp_path: Path, precision: str):
    root = write_folder(tmp_path / "mer", num_train=36)
    config = config_of(
        root,
        run__dir=str(tmp_path / "run"),
        trainer__precision=precision,
        trainer__max_epochs=2,
        cv__folds=2,
        evaluate=["listener"],
    )
    assert 0 <= api.fit(config).metrics["listener"]["waf"] <= 1
    network = load_checkpoint(tmp_path / "run" / "fold_0" / "best.ckpt").network
    assert network is not None
    assert {value.dtype for value in network.parameters()} == {torch.float32}
