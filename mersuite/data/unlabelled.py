"""Samples that training may see without their truth: which, how many beside labelled ones, and labels guessed for them.

What learns from them is transductive: it was made for the very samples that it answers, and must say so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mersuite.clip import Prediction, Sample
from mersuite.errors import DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlabelled:
    """What training wants to see without labels.

    Attributes:
        split: The split that is read, such as "test".
        where: Groups that its samples must be members of, such as {"role": "other"}.
        share: Share of the rows of a training batch that are such samples; 0 keeps them out of batches, for systems
            that only guess labels of them (Teacher).
    """

    split: str
    where: Mapping[str, str] = field(default_factory=dict)
    share: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """A label that was guessed for a sample without one.

    Attributes:
        target: As Sample.target.
        weight: Weight in the loss.
    """

    target: Mapping[str, np.ndarray]
    weight: float


class Teacher(ABC):
    """Fitted parts that guess labels of unlabelled samples, with which the network is then trained from the start.

    Each round trains on the labelled samples and the guesses of the round before, and guesses anew.
    """

    @property
    @abstractmethod
    def num_rounds(self) -> int:
        """How often the network may be trained again; 0 never asks for guesses."""

    @abstractmethod
    def teach(self, val: Sequence[Prediction], unlabelled: Sequence[Prediction]) -> Mapping[str, Guess]:
        """Gives sample id to guess for some of the unlabelled samples; {} ends the rounds.

        Args:
            val: Validation samples as the network of the round that ended answers them, with their truth.
            unlabelled: Unlabelled ones; without truth.
        """

    @abstractmethod
    def taught(self) -> Sequence[str]:
        """Says what was guessed in each round, for people; also after load_state."""


def without_truth(samples: Sequence[Sample], use: Unlabelled, labelled: Sequence[Sample]) -> tuple[Sample, ...]:
    """Gives the samples that training may see, without targets.

    Args:
        samples: The split's.
        use: Which of them.
        labelled: Those that have a truth in training; none of them may be among the others.

    Raises:
        DataError: If no sample is left, or one is also a labelled one.
    """
    kept = [
        sample for sample in samples if all(sample.groups.get(group) == member for group, member in use.where.items())
    ]
    if not kept:
        where = "".join(f" with {group}={member}" for group, member in use.where.items())
        raise DataError(
            f"split={use.split}: training is to see its samples without labels, and it has none{where}; add them, or "
            "switch the options off that need them"
        )
    known = {name for sample in labelled for name in (sample.sample_id, sample.clip_id)}
    twice = [sample.sample_id for sample in kept if {sample.sample_id, sample.clip_id} & known]
    if twice:
        raise DataError(
            f"{len(twice)} samples of split {use.split} are also labelled training samples, such as {twice[0]!r}; "
            "held-out rows would be seen in training: take them out of one of the two"
        )
    return tuple(replace(sample, target={}, weight=1.0) for sample in kept)


def apart_from(samples: Sequence[Sample], others: Sequence[Sample], by: Collection[str]) -> list[Sample]:
    """Gives the samples that share no member of the groups with any of the others.

    Why: with cv.by=dialogue, held-out rows are of dialogues that training never met, labelled or not.
    """
    met = {(group, sample.groups[group]) for sample in others for group in by if group in sample.groups}
    return [sample for sample in samples if not any((group, sample.groups.get(group)) in met for group in by)]


def with_guesses(samples: Sequence[Sample], guesses: Mapping[str, Guess]) -> tuple[list[Sample], list[Sample]]:
    """Gives the samples that have a guess, with it as their target, and those that have none.

    Raises:
        DataError: If a guess is for none of the samples.
    """
    unknown = sorted(guesses.keys() - {sample.sample_id for sample in samples})
    if unknown:
        raise DataError(f"a label was guessed for {unknown[0]!r}, which is no unlabelled sample")
    taught = [
        replace(sample, target=guesses[sample.sample_id].target, weight=guesses[sample.sample_id].weight)
        for sample in samples
        if sample.sample_id in guesses
    ]
    return taught, [sample for sample in samples if sample.sample_id not in guesses]
