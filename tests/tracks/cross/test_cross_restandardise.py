"""Listeners whose inputs lie elsewhere as a whole, answered with statistics of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cross_files import candidate_name, config_of, write_folder

from mersuite import api, registry
from mersuite.config import RunConfig
from mersuite.errors import ConfigError
from mersuite.inference import answer, load_checkpoint
from mersuite.prepare.ready import ready_reader
from tracks.cross.submission import read_answers

QUICK = {
    "trainer__max_epochs": 20,
    "trainer__batch_size": 8,
    "optim__lr": 5e-3,
    "cv__folds": 2,
    "evaluate": ["listener"],
    "cross__silence": 0.3,
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Candidates with listeners' faces that are those of training clips, but stretched and moved."""
    place = write_folder(tmp_path_factory.mktemp("moved") / "mer", num_train=90, num_candidates=120)
    for folder in ("face-listener-UTT", "face-UTT"):
        for i in range(120):
            path = place / "features" / folder / f"{candidate_name(i)}.npy"
            if path.is_file():
                np.save(path, (np.load(path) * 3.0 + 40.0).astype(np.float32))
    return place


def accuracy(config: RunConfig, root: Path, run_dir: Path) -> float:
    track = registry.load("cross")
    data = track.read(config, "test")
    checkpoints = [load_checkpoint(path) for path in sorted(run_dir.glob("fold_*/best.ckpt"))]
    found = answer(checkpoints, data.samples, ready_reader(config, data))
    truth = read_answers(root / "track1_test.csv")
    return float(np.mean([item.answer == truth[item.sample_id] for item in found]))


def test_statistics_of_their_own_undo_what_moves_all_listeners(root: Path, tmp_path: Path):
    found = {}
    for name in ("plain", "own"):
        config = config_of(root, run__dir=str(tmp_path / name), cross__restandardise=name == "own", **QUICK)
        api.fit(config)
        found[name] = accuracy(config, root, tmp_path / name)
    assert found["plain"] < 0.5 < 0.8 < found["own"]


def test_few_listeners_are_refused_and_speakers_are_not_touched(root: Path, tmp_path: Path):
    config = config_of(root, run__dir=str(tmp_path / "run"), cross__restandardise=True, **QUICK)
    track = registry.load("cross")
    data = track.read(config, "test")
    api.fit(config)
    checkpoint = load_checkpoint(tmp_path / "run" / "fold_0" / "best.ckpt")
    reader = ready_reader(config, data)
    with pytest.raises(ConfigError, match=r"49 samples of kind 'other' are asked, too few .* need 50 or more"):
        answer([checkpoint], data.samples[:49], reader)
    train = track.read(config, "train")
    assert {track.standardised_among(config, sample) for sample in train.samples} == {""}
    assert track.traits(config)["transductive"] is True and track.traits(config)["restandardise"] is True
