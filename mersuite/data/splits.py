"""Outer folds by groups: train, val (cut from the training groups) and held-out rows. Pure functions.

A group never stands on two sides. With several groups at once ("subject" and "clip") held-out rows differ from all
training rows in each of them; rows that share one with the other side are used on neither.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mersuite.clip import Sample
from mersuite.errors import ConfigError, DataError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """One outer fold, as sample ids.

    Attributes:
        index: 0-based.
        train: What is learned from.
        val: What early stopping and every other choice is made on.
        held_out: What is scored, once.
    """

    index: int
    train: tuple[str, ...]
    val: tuple[str, ...]
    held_out: tuple[str, ...]


def make_folds(
    samples: Sequence[Sample],
    by: tuple[str, ...],
    num_folds: int,
    val_fraction: float,
    seed: int,
    held_out: Sequence[str] = (),
) -> list[Fold]:
    """Splits samples by groups. The result depends on the seed and on the samples, not on their order.

    Args:
        samples: What to split.
        by: Groups to split by. With one, every sample is held out in exactly one fold. With several, the folds of each
            are paired: fold k holds out the rows whose groups all lie in part k.
        num_folds: How many folds; not read where held_out is given.
        val_fraction: Share of the training groups that become val.
        seed: Decides which groups go together.
        held_out: Names of groups of one single fold, such as ("test_21", "test_22"), instead of num_folds.

    Raises:
        ConfigError: If a sample lacks a group, there are too few groups, a name of held_out is unknown, or a side of a
            fold is empty.
    """
    values = {group: _values(samples, group) for group in by}
    parts = _named_parts(values, held_out) if held_out else _seeded_parts(values, num_folds, seed)
    folds = []
    for index, out in enumerate(parts):
        rest = {group: [item for item in values[group] if item not in out[group]] for group in by}
        val = {group: _draw(rest[group], group, val_fraction, [seed, index, place]) for place, group in enumerate(by)}
        sides: dict[str, list[str]] = {"train": [], "val": [], "held_out": []}
        for sample in samples:
            side = _side(sample, out, val)
            if side is not None:
                sides[side].append(sample.sample_id)
        for side, ids in sides.items():
            if not ids:
                raise ConfigError(
                    f"cv.by={','.join(by)}: fold {index} has no {side} rows; lower cv.folds or split by fewer groups"
                )
        folds.append(Fold(index=index, **{side: tuple(sorted(ids, key=natural_key)) for side, ids in sides.items()}))
    return folds


def check_folds(folds: Iterable[Fold], samples: Sequence[Sample], by: tuple[str, ...]) -> None:
    """Makes sure that no group stands on two sides of a fold.

    Raises:
        DataError: If one does, or a fold names an unknown sample or one sample twice.
    """
    by_id = {sample.sample_id: sample for sample in samples}
    for fold in folds:
        seen: dict[tuple[str, str], str] = {}
        placed: set[str] = set()
        for side in ("train", "val", "held_out"):
            for sample_id in getattr(fold, side):
                if sample_id not in by_id or sample_id in placed:
                    problem = "is in two places" if sample_id in placed else "is no sample"
                    raise DataError(f"fold {fold.index}: {sample_id!r} {problem}")
                placed.add(sample_id)
                for group in by:
                    value = by_id[sample_id].groups[group]
                    if seen.setdefault((group, value), side) != side:
                        raise DataError(
                            f"fold {fold.index}: {group} {value!r} stands in {seen[group, value]} and in {side}; "
                            "held-out rows would not be new to the model"
                        )


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Sort key under which "test_2" comes before "test_10".

    >>> sorted(["test_10", "test_2"], key=natural_key)
    ['test_2', 'test_10']
    """
    return tuple((0, int(part), part) if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text) if part)


def _values(samples: Sequence[Sample], group: str) -> list[str]:
    for sample in samples:
        if group not in sample.groups:
            raise ConfigError(
                f"cv.by: sample {sample.sample_id!r} has no group {group!r}; {did_you_mean(group, sample.groups)}"
            )
    return sorted({sample.groups[group] for sample in samples}, key=natural_key)


def _seeded_parts(values: Mapping[str, list[str]], num_folds: int, seed: int) -> list[dict[str, set[str]]]:
    parts: list[dict[str, set[str]]] = [{} for _ in range(num_folds)]
    for place, (group, names) in enumerate(values.items()):
        if len(names) < num_folds:
            raise ConfigError(
                f"cv.folds: {num_folds} folds by {group} need as many of them, the data have {len(names)}; "
                "lower cv.folds or choose another cv.by"
            )
        order = np.random.default_rng([seed, place]).permutation(len(names))
        for index, chosen in enumerate(np.array_split(order, num_folds)):
            parts[index][group] = {names[i] for i in chosen}
    return parts


def _named_parts(values: Mapping[str, list[str]], held_out: Sequence[str]) -> list[dict[str, set[str]]]:
    known = [name for names in values.values() for name in names]
    for name in held_out:
        if name not in known:
            raise ConfigError(f"cv.held_out: no {' or '.join(values)} is called {name!r}; {did_you_mean(name, known)}")
    part = {group: {name for name in names if name in held_out} for group, names in values.items()}
    for group, names in part.items():
        if not names:
            raise ConfigError(f"cv.held_out: names no {group}, but cv.by={','.join(values)} holds out some of each")
    return [part]


def _draw(names: Sequence[str], group: str, fraction: float, seed: list[int]) -> set[str]:
    if len(names) < 2:
        raise ConfigError(
            f"cv.by: {len(names)} {group} left beside the held-out ones, train and val need one each; "
            "lower cv.folds, hold out fewer or choose another cv.by"
        )
    count = min(max(1, round(fraction * len(names))), len(names) - 1)
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[i] for i in order[:count]}


def _side(sample: Sample, out: Mapping[str, set[str]], val: Mapping[str, set[str]]) -> str | None:
    in_out = [sample.groups[group] in names for group, names in out.items()]
    in_val = [sample.groups[group] in names for group, names in val.items()]
    if all(in_out):
        return "held_out"
    if any(in_out):
        return None
    if all(in_val):
        return "val"
    return None if any(in_val) else "train"
