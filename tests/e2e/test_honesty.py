"""Honesty on made-up data of known effect: what can be learned is learned, what is not there is not found."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mersuite import api
from mersuite.metrics.bootstrap import paired_bootstrap
from mersuite.predictions import read_predictions

pytestmark = pytest.mark.slow
QUIET = ["runtime.accelerator=cpu", "runtime.progress=false"]


def _fit(folder: Path, fake: list[str], *words: str, seed: int = 3) -> tuple[Mapping[str, Mapping[str, Any]], Path]:
    """Writes data, fits, and gives the metrics and the run folder."""
    data, run = folder / "data", folder / "run"
    api.fake("ps", data, overrides=[*fake, "rate_hz=200", "num_leaderboard_subjects=0", f"seed={seed}"])
    places = [f"data.root={data}", f"store.path={folder / 'store'}", f"run.dir={run}"]
    return api.fit(api.config("ps", overrides=[*places, *QUIET, *words])).metrics, run


def _difference(run: Path, first: str, second: str, main: str = "fused") -> tuple[float, float, float]:
    """Paired bootstrap over people of the MAE difference first - second: value, low, high."""

    def rows(name: str) -> list:
        return read_predictions(run / ("" if name == main else name) / "oof.jsonl")[1]

    sides = [{row.sample_id: row for row in rows(name)} for name in (first, second)]
    ids = sorted(sides[0])
    assert ids == sorted(sides[1])

    def score(side: dict):
        gaps = [np.abs(np.asarray(side[i].answer) - side[i].target["valence_arousal"]).mean(axis=1) for i in ids]
        return lambda index: {"mae": float(np.concatenate([gaps[i] for i in index]).mean())}

    groups = [sides[0][i].groups["subject"] for i in ids]
    found = paired_bootstrap(score(sides[0]), score(sides[1]), groups, seed=0)["mae"]
    return found.value, found.low, found.high


def test_strong_effect_is_found_on_people_never_seen(tmp_path: Path) -> None:
    fake = ["num_subjects=12", "num_clips=6", "snr=8", "clip_strength=15"]
    metrics, run = _fit(tmp_path, fake, "cv.folds=3", "evaluate=median,signal,prior")
    value, _, high = _difference(run, "signal", "median")
    assert high < 0 and value < -0.15 * metrics["median"]["mae"]
    _, _, high = _difference(run, "fused", "prior")
    assert high < 0


def test_no_effect_is_found_where_there_is_none(tmp_path: Path) -> None:
    """snr=0, label means away from 128, strong clips of unequal lengths: nothing leaks through length, time or ids.

    Why three draws: with 12 people chance alone moves one draw by about 1 %; the bound is on their mean.
    """
    fake = ["num_subjects=12", "num_clips=8", "snr=0", "min_clip_s=12", "max_clip_s=40", "label_mean=[90,165]"]
    gains: dict[str, list[float]] = {"signal": [], "ridge": []}
    for seed in (3, 4, 5):
        words = ["cv.folds=3", "evaluate=constant,median,signal,ridge,prior"]
        metrics, run = _fit(tmp_path / str(seed), fake, *words, seed=seed)
        for system in gains:
            value, _, high = _difference(run, system, "median")
            assert high > 0, f"{system} beats the median beyond noise"
            gains[system].append(value / metrics["median"]["mae"])
        # the same data would betray a leak: who knows the clip is much better than who does not
        assert metrics["prior"]["mae"] < 0.75 * metrics["median"]["mae"]
        assert metrics["constant"]["mae"] > 1.1 * metrics["median"]["mae"]
    assert all(np.mean(values) > -0.01 for values in gains.values()), gains


def test_signals_of_noise_do_not_tell_when_a_clip_began(tmp_path: Path) -> None:
    fake = ["num_subjects=12", "num_clips=8", "snr=0", "min_clip_s=12", "max_clip_s=40", "onset_points=40"]
    _, run = _fit(tmp_path, fake, "cv.folds=3", "ps.system=signal", "evaluate=signal", "runtime.prepare_workers=1")
    answers = [np.asarray(row.answer) for row in read_predictions(run / "oof.jsonl")[1]]
    early, late = (np.concatenate([answer[part] for answer in answers]) for part in (slice(0, 4), slice(10, None)))
    assert np.abs(early.mean(axis=0) - late.mean(axis=0)).max() < 4, "ratings are 25 points lower early on"


def test_default_model_comes_within_ten_percent_of_the_best_possible_error(tmp_path: Path) -> None:
    metrics, run = _fit(tmp_path, ["num_subjects=24", "num_clips=15", "snr=1"], "evaluate=median,signal,prior")
    bayes = json.loads((tmp_path / "data" / "bayes.json").read_text(encoding="utf-8"))
    assert metrics["fused"]["mae"] < 1.10 * bayes["fused"]["mae"]
    assert metrics["signal"]["mae"] < 1.10 * bayes["signal"]["mae"]
    assert metrics["prior"]["mae"] < 1.10 * bayes["prior"]["mae"]
    assert _difference(run, "signal", "median")[2] < 0
    assert _difference(run, "fused", "prior")[2] < 0
