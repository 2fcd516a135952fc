"""Samples without truth: which training may see, how they come along in batches, and what is guessed of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from mersuite.clip import Batch, Sample, Signal, WindowKey
from mersuite.config import DataConfig, ModelConfig, RunConfig, RuntimeConfig, TrainerConfig
from mersuite.data.datamodule import MixedBatches, ShuffledWindows, WindowDataModule, train_loader
from mersuite.data.unlabelled import Guess, Unlabelled, apart_from, with_guesses, without_truth
from mersuite.errors import DataError
from mersuite.schema import Named

USE = Unlabelled(split="test", where={"role": "other"})


def sample_of(name: str, *, clip: str | None = None, label: str = "", **groups: str) -> Sample:
    target = {"emotion": np.asarray(label)} if label else {}
    return Sample(sample_id=name, clip_id=clip or name, groups=groups, target=target, weight=3.0 if label else 1.0)


class Vectors:
    """A stream in memory: one vector of three a clip."""

    def get(self, clip_id: str, stream: str) -> Signal | None:
        return Signal(data=np.full((1, 3), float(clip_id[1:]), np.float32), rate_hz=0.0, ch_names=())

    def example(self, stream: str) -> Signal | None:
        return self.get("u0", stream)


def config_of(batch_size: int = 4) -> RunConfig:
    return RunConfig(
        track="probe",
        options=None,
        data=DataConfig(),
        model=ModelConfig(encoders={"face": Named(name="mlp", config=None)}),
        trainer=TrainerConfig(batch_size=batch_size),
        runtime=RuntimeConfig(accelerator="cpu"),
    )


def target_of(sample: Sample) -> dict[str, np.ndarray]:
    return {"emotion": np.asarray(-100 if sample.sample_id.startswith("u") else 1)}


LABELLED = [sample_of(f"s{index}") for index in range(10)]
OTHERS = [sample_of(f"u{index}") for index in range(7)]


def epochs(count: int, *, share: float = 0.5, rank: int = 0, world_size: int = 1, seed: int = 0) -> list[list[Batch]]:
    loader = train_loader(
        config_of(),
        LABELLED,
        Vectors(),
        target_of,
        seed=seed,
        rank=rank,
        world_size=world_size,
        unlabelled=OTHERS,
        share=share,
    )
    found = []
    for number in range(count):
        loader.batch_sampler.set_epoch(number)  # type: ignore[union-attr]
        found.append(list(loader))
    return found


def names_of(batches: list[Batch], kind: str) -> list[str]:
    return [key.sample_id for batch in batches for key in batch.keys if key.sample_id.startswith(kind)]


# ---- which


def test_truth_and_weight_are_taken_off_and_other_members_left_out() -> None:
    rows = [sample_of("a", label="sad", role="other"), sample_of("b", role="own"), sample_of("c")]
    (kept,) = without_truth(rows, USE, [sample_of("x", label="sad")])
    assert kept.sample_id == "a" and kept.target == {} and kept.weight == 1.0


def test_a_split_without_fitting_samples_is_refused() -> None:
    with pytest.raises(DataError, match=r"split=test: .* it has none with role=other"):
        without_truth([sample_of("a", role="own")], USE, [])


@pytest.mark.parametrize("same", ["sample", "clip"])
def test_a_labelled_sample_cannot_be_an_unlabelled_one(same: str) -> None:
    labelled = sample_of("a", label="sad") if same == "sample" else sample_of("z", clip="a", label="sad")
    with pytest.raises(DataError, match="1 samples of split test are also labelled training samples, such as 'a'"):
        without_truth([sample_of("a", role="other")], USE, [labelled])


def test_samples_that_share_a_group_with_held_out_rows_stay_away() -> None:
    rows = [sample_of("a", dialogue="1"), sample_of("b", dialogue="2"), sample_of("c")]
    held_out = [sample_of("x", dialogue="1", clip_group="2")]
    assert [item.sample_id for item in apart_from(rows, held_out, ["dialogue"])] == ["b", "c"]


def test_a_guess_becomes_target_and_weight() -> None:
    guess = Guess(target={"emotion": np.asarray("sad")}, weight=0.5)
    taught, rest = with_guesses([sample_of("a"), sample_of("b")], {"b": guess})
    assert [(item.sample_id, str(item.target["emotion"]), item.weight) for item in taught] == [("b", "sad", 0.5)]
    assert [item.sample_id for item in rest] == ["a"] and rest[0].target == {}


def test_a_guess_for_somebody_else_is_refused() -> None:
    with pytest.raises(DataError, match="guessed for 'held_out', which is no unlabelled sample"):
        with_guesses([sample_of("a")], {"held_out": Guess(target={}, weight=1.0)})


# ---- in batches


def test_labelled_rows_of_a_mixed_batch_are_those_of_a_batch_without() -> None:
    plain = train_loader(config_of(), LABELLED, Vectors(), target_of, seed=0, rank=0, world_size=1)
    for number, batches in enumerate(epochs(3)):
        plain.sampler.set_epoch(number)  # type: ignore[attr-defined]
        alone = [batch.keys for batch in plain]
        assert [[key for key in batch.keys if key.sample_id[0] == "s"] for batch in batches] == alone
        for keys, batch in zip(alone, batches, strict=True):
            assert batch.keys[: len(keys)] == keys  # unlabelled rows stand behind them
            assert batch.target["emotion"].tolist() == [1] * len(keys) + [-100] * (len(batch) - len(keys))


@pytest.mark.parametrize(("share", "counts"), [(0.5, [4, 4, 2]), (0.2, [1, 1, 0]), (0.75, [12, 12, 6])])
def test_unlabelled_rows_are_spread_evenly_in_the_share_asked_for(share: float, counts: list[int]) -> None:
    (batches,) = epochs(1, share=share)
    assert [len(names_of([batch], "u")) for batch in batches] == counts


def test_every_unlabelled_row_comes_before_any_comes_again() -> None:
    names = [name for batches in epochs(7) for name in names_of(batches, "u")]
    assert len(names) == 70
    for start in range(0, 70, 7):
        assert Counter(names[start : start + 7]) == Counter(item.sample_id for item in OTHERS)
    assert names[:7] != names[7:14]


def test_a_mixed_epoch_depends_on_seed_and_number_only() -> None:
    def keys(found: list[list[Batch]]) -> list[WindowKey]:
        return [key for batch in found[-1] for key in batch.keys]

    through, other = keys(epochs(3)), keys(epochs(3, seed=1))
    sampler = ShuffledWindows(
        [WindowKey(item.sample_id, 0.0, 0.0) for item in LABELLED],
        seed=0,
        jitter_s=0,
        last_starts_s={},
        rank=0,
        world_size=1,
    )
    assert through != other
    torch.manual_seed(3)
    loader = train_loader(
        config_of(), LABELLED, Vectors(), target_of, seed=0, rank=0, world_size=1, unlabelled=OTHERS, share=0.5
    )
    loader.batch_sampler.set_epoch(2)  # type: ignore[union-attr]
    assert [key for batch in loader for key in batch.keys] == through
    assert len(MixedBatches(sampler, sampler, batch_size=4, share=0.5)) == len(loader) == 3


def test_ranks_get_equally_many_and_different_unlabelled_rows() -> None:
    parts = [names_of(epochs(1, rank=rank, world_size=2)[0], "u") for rank in (0, 1)]
    assert len(parts[0]) == len(parts[1]) == 5
    assert not set(parts[0][:3]) & set(parts[1][:3])


def test_without_a_share_unlabelled_samples_never_enter_a_batch() -> None:
    module = WindowDataModule(
        config_of(),
        train=LABELLED,
        val=LABELLED[:2],
        reader=Vectors(),
        target_of=target_of,
        seed=0,
        unlabelled=OTHERS,
    )
    assert names_of(list(module.train_dataloader()), "u") == []
    assert names_of(list(module.val_dataloader()), "u") == []
