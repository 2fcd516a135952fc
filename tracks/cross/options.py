"""The configuration of the cross track: keys under `cross.`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from mersuite.formats.mer2026 import EMOTIONS as LABELS
from mersuite.schema import require_all
from tracks.cross.pseudo_labels import PseudoLabelConfig

ASKS = ("next", "current")
"""What may be asked of a dialogue."""
DIALOGUE_SYSTEMS = ("dialogue", "copy_partner", "copy_own", "speaker", "majority")
System = Literal["listener", "own", "majority", "dialogue", "copy_partner", "copy_own", "speaker"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DialogueConfig:
    """What is asked of a dialogue, and what of it is seen.

    Attributes:
        ask: next: the emotion of a turn of another speaker than the turn before, without its words; current: the
            emotion of every turn, with its words.
        context: Earlier turns that are seen; 0 for none.
        words: Show what is said.
        names: Show who speaks by name, and not only whether it is the person who is asked about.
        emotions: Show the true emotions of earlier turns. Why off: whoever listens is not told them. The systems that
            copy an emotion are; with true, network and copies know the same.
        earlier_weight: Weight, in training, of telling the emotions of the earlier turns that are seen as well; 0 for
            none. Why: what words tell is learned from every turn then, and not only through the turn after it.
    """

    ask: Literal["next", "current"] = "next"
    context: int = 5
    words: bool = True
    names: bool = True
    emotions: bool = False
    earlier_weight: float = 1.0

    def __post_init__(self) -> None:
        require_all(
            (self.context >= 0, f"context: need 0 or more earlier turns, got {self.context}"),
            (self.earlier_weight >= 0, f"earlier_weight: need 0 or more, got {self.earlier_weight}"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossConfig:
    """What the cross track adds to the shared configuration.

    Training clips show one person who speaks and is labelled; candidates show two, of whom the one who listens is
    labelled. `own` and `other` say which stored stream plays the part of each stream of the model in the two cases.

    Attributes:
        system: listener | own | majority. `listener` learns with voice and words hidden at times and is scored with
            them hidden, as they are of somebody who listens; `own` sees everything, which is the published in-domain
            protocol; `majority` answers the most frequent label. For dialogues: dialogue | copy_partner | copy_own |
            speaker | majority, a network and what it must beat.
        protocol: held_out: choices are made on validation rows, other rows are reported; official: the system is first
            of all evaluated as the organisers do, who choose epoch and hyper-parameters by the rows they report.
        labels: The labels there may be, in index order; () takes those of the training rows.
        own: Model stream to stored streams for clips whose labelled person speaks; the first that the clip has counts,
            none hides it. Streams that are not named are read under their own name.
        other: The same for clips whose labelled person listens.
        silence: Chance that a training row loses the streams that `other` hides, all at once. Why 0.5: half of the rows
            teach what voice and words say, half teach to do without them.
        class_weights: Weight of a label in the loss: none, sqrt or balanced (inverse of its share, or the root of it).
            Why none: the metric weighs labels by their share.
        label_smoothing: Share of the truth that is spread over all labels.
        prior: What labels are expected to be as frequent as: train (as in training), uniform, or estimate (from the
            answers to all asked rows together, by expectation maximisation; label-free, but transductive).
        align: How the fused vectors of listeners (the candidates, without labels) are made to look like those of the
            training rows: none, coral (equal covariances) or adversarial (a classifier must not tell the role). The run
            is transductive then. Under `listener`, of the training rows those count that are silenced, as long as
            `silence` silences any. Why: they lack what listeners lack, and what else differs is the role.
        align_weight: Weight of the alignment in the loss.
        align_share: Share of candidates in a training batch, beside trainer.batch_size training rows.
        restandardise: Standardise the inputs of listeners with the statistics of all listeners that are asked instead
            of the training rows'. Why off: it is transductive, and held-out rows, whose people speak, cannot show what
            it brings.
        pseudo_labels: When labels that were guessed for candidates are learned from, by a rule that validation rows
            fix; null never. The run is transductive then, too.
        head_dropout: Dropout on the fused vector before the last layer.
        check_clips: How many clips `mersuite check` opens; 0 opens all.
        dialogue: What is asked of dialogues; null where the data are clips.
    """

    system: System = "listener"
    protocol: Literal["held_out", "official"] = "held_out"
    labels: tuple[str, ...] = LABELS
    own: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    other: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    silence: float = 0.5
    class_weights: Literal["none", "sqrt", "balanced"] = "none"
    label_smoothing: float = 0.0
    prior: Literal["train", "uniform", "estimate"] = "train"
    align: Literal["none", "coral", "adversarial"] = "none"
    align_weight: float = 1.0
    align_share: float = 0.5
    restandardise: bool = False
    pseudo_labels: PseudoLabelConfig | None = None
    head_dropout: float = 0.1
    check_clips: int = 200
    dialogue: DialogueConfig | None = None

    def __post_init__(self) -> None:
        twice = sorted({name for name in self.labels if self.labels.count(name) > 1})
        require_all(
            (not twice and all(self.labels), f"labels: need different names, got {', '.join(self.labels)}"),
            (0 <= self.silence < 1, f"silence: need 0 <= chance < 1, got {self.silence}"),
            (0 <= self.label_smoothing < 1, f"label_smoothing: need 0 <= share < 1, got {self.label_smoothing}"),
            (
                self.align_weight > 0,
                f"align_weight: need a weight above 0, got {self.align_weight}; align=none aligns not",
            ),
            (0 < self.align_share < 1, f"align_share: need 0 < share < 1, got {self.align_share}"),
            (
                self.pseudo_labels is None or self.system == "listener" or all(self.other.values()),
                "pseudo_labels: need system=listener, whose validation rows are asked as candidates are, without what "
                f"cross.other hides; got system={self.system}",
            ),
            (
                self.dialogue is None or (self.align == "none" and self.pseudo_labels is None),
                "align, pseudo_labels: for candidates of clips; dialogues have none, take them out",
            ),
            (
                not self.restandardise or self.align == "none",
                f"restandardise: answers would take other input statistics than align={self.align} was trained with; "
                "use one of them",
            ),
            (0 <= self.head_dropout < 1, f"head_dropout: need 0 <= rate < 1, got {self.head_dropout}"),
            (self.check_clips >= 0, f"check_clips: need 0 or more, got {self.check_clips}"),
            (
                self.dialogue is None or self.system in DIALOGUE_SYSTEMS,
                f"system: for dialogues need one of {', '.join(DIALOGUE_SYSTEMS)}, got {self.system}; "
                "config=recipe/cross_dialogue.yaml sets it",
            ),
            (
                self.dialogue is not None or self.system not in DIALOGUE_SYSTEMS[:-1],
                f"system: {self.system} is for dialogues; add config=recipe/cross_dialogue.yaml",
            ),
        )
