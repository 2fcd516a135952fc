from __future__ import annotations

import random

import pytest

from mersuite.clip import Sample
from mersuite.data.splits import Fold, check_folds, make_folds, natural_key
from mersuite.errors import ConfigError, DataError


def grid(num_subjects: int = 8, num_clips: int = 6) -> list[Sample]:
    return [
        Sample(sample_id=f"s{s}/c{c}", clip_id=f"s{s}/c{c}", groups={"subject": f"s{s}", "clip": f"c{c}"})
        for s in range(1, num_subjects + 1)
        for c in range(1, num_clips + 1)
    ]


def groups(ids, name: str) -> set[str]:
    by_id = {sample.sample_id: sample.groups[name] for sample in grid(30, 30)}
    return {by_id[item] for item in ids}


@pytest.mark.parametrize("by", [("subject",), ("clip",), ("subject", "clip")])
@pytest.mark.parametrize("num_folds", [2, 3, 5])
def test_no_group_stands_on_two_sides(by: tuple[str, ...], num_folds: int) -> None:
    folds = make_folds(grid(), by, num_folds, 0.25, seed=3)
    check_folds(folds, grid(), by)
    assert [fold.index for fold in folds] == list(range(num_folds))
    for fold in folds:
        for group in by:
            sides = [groups(ids, group) for ids in (fold.train, fold.val, fold.held_out)]
            assert sum(map(len, sides)) == len(set().union(*sides))


def test_with_one_group_every_sample_is_held_out_once_and_every_fold_uses_all_samples() -> None:
    folds = make_folds(grid(), ("subject",), 5, 0.25, seed=0)
    held_out = [item for fold in folds for item in fold.held_out]
    assert sorted(held_out) == sorted(sample.sample_id for sample in grid())
    assert all(len(fold.train) + len(fold.val) + len(fold.held_out) == 48 for fold in folds)


def test_fold_sizes_differ_by_one_group_at_most() -> None:
    sizes = [len(groups(fold.held_out, "subject")) for fold in make_folds(grid(), ("subject",), 3, 0.25, seed=0)]
    assert sorted(sizes) == [2, 3, 3]


def test_val_takes_its_share_of_the_training_groups() -> None:
    fold = make_folds(grid(20), ("subject",), 5, 0.25, seed=0)[0]
    assert len(groups(fold.val, "subject")) == 4
    assert len(groups(fold.train, "subject")) == 12


def test_with_two_groups_held_out_rows_are_new_in_both_and_mixed_rows_are_unused() -> None:
    folds = make_folds(grid(), ("subject", "clip"), 2, 0.25, seed=1)
    for fold in folds:
        assert len(fold.held_out) == 4 * 3
        assert len(groups(fold.held_out, "subject")) == 4
        assert len(groups(fold.held_out, "clip")) == 3
        assert len(fold.train) + len(fold.val) + len(fold.held_out) < 48


def test_folds_depend_on_the_seed_and_not_on_the_order_of_samples() -> None:
    shuffled = grid()
    random.Random(5).shuffle(shuffled)
    first = make_folds(grid(), ("subject",), 4, 0.25, seed=7)
    assert make_folds(shuffled, ("subject",), 4, 0.25, seed=7) == first
    assert make_folds(grid(), ("subject",), 4, 0.25, seed=8) != first


def test_named_held_out_groups_give_one_fold() -> None:
    folds = make_folds(grid(), ("subject",), 6, 0.25, seed=0, held_out=("s7", "s8"))
    assert len(folds) == 1
    assert groups(folds[0].held_out, "subject") == {"s7", "s8"}
    assert len(folds[0].held_out) == 12
    check_folds(folds, grid(), ("subject",))


def test_named_held_out_groups_of_both_kinds_hold_out_their_meeting() -> None:
    fold = make_folds(grid(), ("subject", "clip"), 6, 0.25, seed=0, held_out=("s7", "c2"))[0]
    assert fold.held_out == ("s7/c2",)
    assert "s7" not in groups(fold.train + fold.val, "subject")
    assert "c2" not in groups(fold.train + fold.val, "clip")


def test_samples_of_a_fold_are_in_natural_order() -> None:
    fold = make_folds(grid(12), ("clip",), 3, 0.25, seed=0)[0]
    assert list(fold.train) == sorted(fold.train, key=natural_key)
    assert natural_key("test_9") < natural_key("test_10")


def test_too_few_groups_name_the_counts_and_the_keys() -> None:
    with pytest.raises(ConfigError, match=r"cv\.folds: 9 folds by subject .* the data have 8; .*cv\.by"):
        make_folds(grid(), ("subject",), 9, 0.25, seed=0)


def test_val_and_train_need_a_group_each() -> None:
    with pytest.raises(ConfigError, match=r"cv\.by: 1 subject left beside the held-out ones"):
        make_folds(grid(2), ("subject",), 2, 0.25, seed=0)


def test_an_unknown_group_or_name_gets_a_hint() -> None:
    with pytest.raises(ConfigError, match=r"no group 'subjects'; did you mean 'subject'"):
        make_folds(grid(), ("subjects",), 2, 0.25, seed=0)
    with pytest.raises(ConfigError, match=r"cv\.held_out: no subject is called 's70'; did you mean 's7'"):
        make_folds(grid(), ("subject",), 2, 0.25, seed=0, held_out=("s70",))


def test_named_groups_must_cover_every_kind_that_is_split_by() -> None:
    with pytest.raises(ConfigError, match=r"cv\.held_out: names no clip"):
        make_folds(grid(), ("subject", "clip"), 2, 0.25, seed=0, held_out=("s1",))


def test_a_fold_with_an_empty_side_is_refused() -> None:
    diagonal = [sample for sample in grid(4, 4) if sample.groups["subject"][1:] == sample.groups["clip"][1:]]
    with pytest.raises(ConfigError, match=r"fold \d has no (train|val|held_out) rows"):
        make_folds(diagonal, ("subject", "clip"), 4, 0.25, seed=0)


def test_check_folds_finds_a_group_on_two_sides() -> None:
    fold = Fold(index=0, train=("s1/c1",), val=("s2/c1",), held_out=("s1/c2",))
    with pytest.raises(DataError, match=r"fold 0: subject 's1' stands in train and in held_out"):
        check_folds([fold], grid(), ("subject",))
    with pytest.raises(DataError, match=r"clip 'c1' stands in train and in val"):
        check_folds([fold], grid(), ("clip",))


def test_check_folds_finds_unknown_and_repeated_samples() -> None:
    with pytest.raises(DataError, match=r"'x' is no sample"):
        check_folds([Fold(index=0, train=("x",), val=(), held_out=())], grid(), ("subject",))
    with pytest.raises(DataError, match=r"'s1/c1' is in two places"):
        check_folds([Fold(index=0, train=("s1/c1", "s1/c1"), val=(), held_out=())], grid(), ("subject",))
