"""Fixtures that every test may use. One thread a process: the test run itself is parallel."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch and numpy load; subprocesses inherit it
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _same_seed() -> None:
    """Seeds the global generators before each test, so that a test does not depend on those before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  code under test may use the global generator; tests pass their own
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    """A fresh generator with a fixed seed."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder with real recordings and the organisers' tables; tests that need it are skipped without it."""
    value = os.environ.get("MERSUITE_TEST_DATA")
    if not value:
        pytest.skip("MERSUITE_TEST_DATA is not set")
    folder = Path(value)
    if not folder.is_dir():
        pytest.fail(f"MERSUITE_TEST_DATA names no folder: {folder}")
    return folder


@pytest.fixture(scope="session")
def fake_ps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small ps data: test_1 to test_3 and predict1, three clips of 8 to 12 s, EEG at 1000 Hz.

    It is written once a process; tests read it and never write into it.
    """
    fake = pytest.importorskip("tracks.ps.fake")
    out = tmp_path_factory.mktemp("fake_ps")
    config = fake.FakeConfig(
        num_subjects=3, num_leaderboard_subjects=1, num_clips=3, min_clip_s=8, max_clip_s=12, seed=0
    )
    fake.write_fake(config, out)
    return out
