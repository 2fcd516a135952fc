"""Draws of hyper-parameters: what they are, which is best, and what a kill leaves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mersuite import api
from mersuite.clip import Sample, Signal
from mersuite.config import DrawnValue, DrawsConfig, RunConfig, with_overrides
from mersuite.data.splits import Fold
from mersuite.errors import ConfigError
from mersuite.models.base import StreamInfo
from mersuite.training.draws import DrawFolder, DrawResult, plan_draws, without_val
from mersuite.training.row_table import read_table

HIDDEN = {"keys": ["model.encoders.*.hidden", "model.encoders.*.width"], "choices": [64, 128, 256]}
RATE = {"keys": ["optim.lr"], "low": 1e-4, "high": 1e-3}


def config_of(num_draws: int, space: Mapping[str, Any], seed: int = 0) -> RunConfig:
    draws = {"num_draws": num_draws, "space": space}
    return with_overrides(api.config("cross"), {"draws": draws, "seed": seed})


def test_a_draw_sets_all_its_keys_for_every_stream():
    for draw in plan_draws(config_of(5, {"hidden": HIDDEN, "lr": RATE})):
        encoders = draw.config.model.encoders.values()
        assert {item.config.hidden for item in encoders} == {draw.values["hidden"]}
        assert {item.config.width for item in encoders} == {draw.values["hidden"]}
        assert draw.config.optim.lr == draw.values["lr"]
        assert 1e-4 <= draw.values["lr"] <= 1e-3


def test_a_draw_depends_on_seed_and_number_but_not_on_how_many_there_are():
    few, many = (plan_draws(config_of(count, {"hidden": HIDDEN, "lr": RATE})) for count in (3, 40))
    assert [draw.values for draw in few] == [draw.values for draw in many[:3]]
    assert [draw.config.seed for draw in few] == [draw.config.seed for draw in many[:3]]
    assert len({draw.config.seed for draw in many}) == 40
    assert {draw.values["hidden"] for draw in many} == {64, 128, 256}
    other = plan_draws(config_of(40, {"hidden": HIDDEN, "lr": RATE}, seed=1))
    assert [draw.values for draw in other] != [draw.values for draw in many]


def test_without_a_space_draws_differ_in_their_seed_alone():
    first, second = plan_draws(config_of(2, {}))
    assert first.values == second.values == {}
    assert first.config.seed != second.config.seed


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"keys": ["optim.rl"], "choices": [1]}, r"draws\.space: draw 0 \(x=1\) does not fit: optim\.rl: unknown key"),
        ({"keys": ["optim.lr"], "choices": [-1]}, r"does not fit: optim\.lr: need a rate above 0, got -1"),
        ({"keys": ["seed"], "choices": [1]}, r"draws\.space\.x\.keys: seed cannot be drawn; name keys of model"),
        ({"keys": ["cv.folds"], "choices": [3]}, r"draws\.space\.x\.keys: cv\.folds cannot be drawn"),
        ({"keys": ["optim.*"], "choices": [1]}, r"optim\.\*: \* stands for streams only"),
        ({"keys": [], "choices": [1]}, "keys: need at least one configuration key"),
        ({"keys": ["optim.lr"]}, "need choices, or low <= high, got choices=\\[\\], low=None, high=None"),
        ({"keys": ["optim.lr"], "low": 2.0, "high": 1.0}, "need choices, or low <= high"),
        ({"keys": ["optim.lr"], "choices": [1], "low": 1.0}, "need choices, or low <= high"),
    ],
)
def test_a_space_that_does_not_fit_is_refused(item, message):
    with pytest.raises(ConfigError, match=message):
        plan_draws(config_of(1, {"x": item}))


def test_at_least_one_draw_counts():
    with pytest.raises(ConfigError, match="num_draws: need 1 or more, got 0"):
        DrawsConfig(num_draws=0)
    assert DrawnValue(keys=("optim.lr",), choices=(1,)).low is None


def result(draw: int, waf: float) -> DrawResult:
    folds = [{"fold": fold, "best_epoch": fold + draw, "value": waf} for fold in range(2)]
    return DrawResult(draw=draw, values={"hidden": 64 * draw}, metrics={"waf": waf}, folds=folds)


def folder_with(path: Path, *results: DrawResult, mode: str = "max") -> DrawFolder:
    kept = DrawFolder(path=path, monitor="waf", mode=mode)
    for item in results:
        for fold in range(2):
            kept.fold(item.draw, fold).mkdir(parents=True)
            (kept.fold(item.draw, fold) / "best.ckpt").write_text(f"draw {item.draw}, fold {fold}", encoding="utf-8")
    return kept


def test_only_the_best_draws_checkpoints_stay_and_become_the_folds(tmp_path):
    results = result(0, 0.5), result(1, 0.7), result(2, 0.7)
    kept = folder_with(tmp_path, *results)
    kept.finish(results[:1])
    assert kept.is_better(results[1], kept.read()) and not kept.is_better(result(3, 0.5), kept.read())
    kept.finish(results[1:])
    assert [kept.fold(draw, 0).exists() for draw in range(3)] == [False, True, False], "the first of equal ones stays"
    kept.take_best({fold: tmp_path / f"fold_{fold}" for fold in range(2)})
    assert (tmp_path / "fold_1" / "best.ckpt").read_text(encoding="utf-8") == "draw 1, fold 1"
    kept.write_table()
    lines = (tmp_path / "draws.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "draw,hidden,fold,best_epoch,waf"
    assert lines[3] == "1,64,0,1,0.7" and len(lines) == 7
    assert not kept.fold(1, 0).exists()


def test_lower_is_better_where_the_metric_says_so(tmp_path):
    kept = folder_with(tmp_path, result(0, 0.5), result(1, 0.7), mode="min")
    assert kept.best({0: result(0, 0.5), 1: result(1, 0.7)}) == 0


def test_the_summary_is_of_the_best_draws(tmp_path):
    kept = folder_with(tmp_path)
    kept.finish([result(draw, waf) for draw, waf in enumerate([0.1, 0.5, 0.7])])
    told = kept.summary(2)
    assert (told["num_draws"], told["num_best"], told["best_draw"]) == (3, 2, 2)
    assert told["mean"]["waf"] == pytest.approx(0.6)
    assert told["deviation"]["waf"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert kept.summary(1)["deviation"]["waf"] == 0.0
    assert kept.summary(9)["num_best"] == 3


def test_a_fold_without_validation_rows_trains_on_all_that_shares_no_group_with_held_out_rows():
    samples = [
        Sample(sample_id=f"s{index}", clip_id=f"s{index}", groups={"dialogue": f"d{index // 2}"}) for index in range(8)
    ]
    fold = Fold(index=1, train=("s4", "s5"), val=("s6", "s7"), held_out=("s0", "s1"))
    found = without_val(fold, samples, ["dialogue"])
    assert (found.index, found.val, found.held_out) == (1, ("s0", "s1"), ("s0", "s1"))
    assert found.train == ("s2", "s3", "s4", "s5", "s6", "s7")


class _Reader:
    def __init__(self, rows: int) -> None:
        self._rows = rows

    def get(self, clip_id: str, stream: str) -> Signal | None:
        if clip_id == "b":
            return None
        return Signal(data=np.full((self._rows, 2), 3.0, dtype=np.float32), rate_hz=0.0, ch_names=())

    def example(self, stream: str) -> Signal | None:
        return self.get("a", stream)


def test_rows_in_memory_are_zero_and_absent_where_a_clip_lacks_a_stream():
    samples = [Sample(sample_id=name, clip_id=name, groups={}) for name in ("a", "b")]
    streams = {"face": StreamInfo(num_channels=2, rate_hz=0.0)}
    table = read_table(_Reader(1), samples, streams)
    assert table is not None
    assert table.vectors[0].tolist() == [[3.0, 3.0], [0.0, 0.0]] and table.there.tolist() == [[True], [False]]
    assert read_table(_Reader(2), samples, streams) is None, "more than one row is no vector"
