"""Dialogues as text: which turns are asked, what may be seen of each dialogue, and the truths to score against.

A sample is a turn whose emotion is asked for. Its clip holds one text, `text.dialogue`: the turns before it, as far as
cross.dialogue lets them be seen, and the turn itself with its words (ask=current) or without them (ask=next).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from mersuite.clip import Clip, Sample
from mersuite.config import RunConfig
from mersuite.errors import ConfigError, DataError
from mersuite.formats.dialogue import Dialogue, Turn, read_dialogues
from mersuite.formats.seen_turns import OWN, PARTNER, SeenTurn, write_seen
from mersuite.track import TrackData
from tracks.cross.head import TARGET
from tracks.cross.options import ASKS, DialogueConfig

STREAM = "text.dialogue"
LAST_OWN, LAST_PARTNER = "last_own", "last_partner"
"""Texts of a sample: the last true emotion before the turn of the person who is asked about, and of anybody else."""
EARLIER = "earlier"
"""Text of a sample: the true emotions of the earlier turns that are seen, as a JSON list; "" where one is not known."""
RECIPE = "config=recipe/cross_dialogue.yaml"


def read_dialogue_data(config: RunConfig, split: str) -> TrackData:
    """Reads the asked turns of a split: those of train and dev ("train"), of test, or all.

    Groups are clip, dialogue and speaker; the target is {"emotion": its name} where the emotion is known.

    Args:
        config: data.* and cross.* are read; cross.dialogue is set.
        split: "train", "test" or "all".

    Raises:
        ConfigError: If cross.dialogue is not set.
        DataError: As read_dialogues does; or if no turn of the split is asked, no emotion is there to learn from, or
            one is none of cross.labels.
    """
    path, dialogue_config = config.data.place, config.options.dialogue
    if dialogue_config is None:
        raise ConfigError(f"{path} holds dialogues; add {RECIPE}, which says what is asked of them")
    dialogues = [item for item in read_dialogues(path) if split == "all" or (item.split == "test") == (split == "test")]
    _check_labels(dialogues, config.options.labels)
    asked = [(item, index) for item in dialogues for index in asked_turns(item.turns, dialogue_config.ask)]
    if not asked:
        raise DataError(f"{path}: no turn of split {split!r} is asked (cross.dialogue.ask={dialogue_config.ask})")
    if split == "train" and not any(item.turns[index].emotion for item, index in asked):
        raise DataError(f"{path}: no asked turn of train or dev has an emotion; fill in the column emotion")
    clips, samples = [], []
    for dialogue, index in asked:
        clip = _clip_of(dialogue, index, dialogue_config)
        turn = dialogue.turns[index]
        clips.append(clip)
        samples.append(
            Sample(
                sample_id=clip.clip_id,
                clip_id=clip.clip_id,
                groups=clip.groups,
                texts={
                    **last_emotions(dialogue.turns, index),
                    EARLIER: _earlier(dialogue, index, dialogue_config),
                },
                target={TARGET: np.asarray(turn.emotion)} if turn.emotion else {},
            )
        )
    return TrackData(clips=tuple(clips), samples=tuple(samples), notes=(_note(split, dialogues, asked),))


def asked_turns(turns: Sequence[Turn], ask: str) -> list[int]:
    """Gives which turns are asked: all (current), or those of another speaker than the turn before (next)."""
    if ask == "current":
        return list(range(len(turns)))
    return [index for index in range(1, len(turns)) if turns[index].speaker != turns[index - 1].speaker]


def sample_id(turn: Turn, ask: str) -> str:
    """Names a sample: the turn, and what is asked of it, so that answers to the two questions are never mixed up."""
    return f"{turn.turn_id}.{ask}"


def seen_turns(turns: Sequence[Turn], index: int, config: DialogueConfig) -> list[SeenTurn]:
    """Gives what may be seen for a turn: `context` earlier turns and itself; no later turn, and not its emotion."""
    asked = turns[index]
    shown = []
    for place in range(max(0, index - config.context), index + 1):
        turn, is_asked = turns[place], place == index
        has_words = config.words and not (is_asked and config.ask == "next")
        shown.append(
            SeenTurn(
                who=OWN if turn.speaker == asked.speaker else PARTNER,
                is_asked=is_asked,
                name=turn.speaker if config.names else "",
                words=turn.text if has_words else "",
                emotion=turn.emotion if config.emotions and not is_asked else "",
            )
        )
    return shown


def last_emotions(turns: Sequence[Turn], index: int) -> dict[str, str]:
    """Gives the last known emotions before a turn, of its own speaker and of anybody else; "" where there is none."""
    found = {LAST_OWN: "", LAST_PARTNER: ""}
    for turn in turns[:index]:
        if turn.emotion:
            found[LAST_OWN if turn.speaker == turns[index].speaker else LAST_PARTNER] = turn.emotion
    return found


def read_truths(path: Path) -> dict[str, str]:
    """Gives sample id to true emotion, for both questions, of the test rows, or of all where no test row has one.

    Raises:
        DataError: As read_dialogues does, or if no turn has an emotion.
    """
    dialogues = read_dialogues(path)
    known = {item.split for item in dialogues for turn in item.turns if turn.emotion}
    if not known:
        raise DataError(f"{path}: no turn has an emotion (column emotion)")
    chosen = [item for item in dialogues if item.split == "test" or "test" not in known]
    return {
        sample_id(item.turns[index], ask): item.turns[index].emotion
        for item in chosen
        for ask in ASKS
        for index in asked_turns(item.turns, ask)
        if item.turns[index].emotion
    }


def of_same_question(pred: Iterable[str], target: Mapping[str, str]) -> dict[str, str]:
    """Gives the truths that answer the question that was asked; all of them where names do not say a question.

    >>> of_same_question(["test_dia0_utt1.next"], {"test_dia0_utt1.next": "joy", "test_dia0_utt1.current": "joy"})
    {'test_dia0_utt1.next': 'joy'}
    """
    questions = {name.rpartition(".")[2] for name in pred}
    if len(questions) != 1 or not questions <= set(ASKS):
        return dict(target)
    kept = {name: emotion for name, emotion in target.items() if name.rpartition(".")[2] in questions}
    return kept or dict(target)


def _clip_of(dialogue: Dialogue, index: int, config: DialogueConfig) -> Clip:
    turn = dialogue.turns[index]
    name = sample_id(turn, config.ask)
    return Clip(
        clip_id=name,
        dataset="dialogues",
        media={STREAM: write_seen(seen_turns(dialogue.turns, index, config))},
        groups={"clip": name, "dialogue": dialogue.name, "speaker": turn.speaker},
    )


def _earlier(dialogue: Dialogue, index: int, config: DialogueConfig) -> str:
    return json.dumps([turn.emotion for turn in dialogue.turns[max(0, index - config.context) : index]])


def _check_labels(dialogues: Sequence[Dialogue], labels: Sequence[str]) -> None:
    for dialogue in dialogues:
        for turn in dialogue.turns:
            if labels and turn.emotion and turn.emotion not in labels:
                raise DataError(
                    f"{turn.where}: the emotion is {turn.emotion!r}; expected one of {', '.join(labels)}, or set "
                    "cross.labels=[] to take the labels of the training rows"
                )


def _note(split: str, dialogues: Sequence[Dialogue], asked: Sequence[tuple[Dialogue, int]]) -> str:
    turns = [turn for item in dialogues for turn in item.turns]
    counts = Counter(item.turns[index].emotion or "not known" for item, index in asked)
    shares = ", ".join(f"{label} {count}" for label, count in counts.most_common())
    return (
        f"dialogues ({split}): {len(dialogues):,} with {len(turns):,} turns of {len({t.speaker for t in turns}):,} "
        f"speakers; asked: {len(asked):,} turns ({shares})"
    )
