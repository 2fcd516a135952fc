"""Made-up dialogues: emotions last and spread as stated, and what is optimal is what a simulation finds."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter

import numpy as np
import pytest

from mersuite.data import fake_dialogue
from mersuite.data.fake_dialogue import CAST, Dialogue, Rule, dialogue_scores, draw_dialogues, rows
from mersuite.data.fake_emotions import EMOTIONS, SHARES

RULE = Rule(snr=1.0, contagion=0.25, inertia=0.45)
NUM = 800
SOME = 25


@pytest.fixture(scope="module")
def dialogues() -> list[Dialogue]:
    return draw_dialogues(RULE, NUM, 0)


@pytest.fixture(scope="module")
def scores(dialogues: list[Dialogue]) -> dict[str, dict[str, float | str]]:
    return dialogue_scores(RULE, dialogues[:SOME], 0)


def accuracy(scores: dict[str, dict[str, float | str]], name: str) -> float:
    return float(scores[f"dialogue_{name}"]["acc"])


def answers(dialogues: list[Dialogue]) -> dict[str, float]:
    """Accuracy on drawn turns of the two copying systems and of counting what followed what in other dialogues."""
    hits: dict[str, list[bool]] = {"copy_partner": [], "copy_own": [], "majority": []}
    for dialogue in dialogues:
        for number, turn in enumerate(dialogue.turns):
            if number == 0:
                continue
            own = [before.emotion for before in dialogue.turns[:number] if before.speaker == turn.speaker]
            hits["copy_partner"].append(turn.emotion == dialogue.turns[number - 1].emotion)
            hits["copy_own"].append(turn.emotion == (own[-1] if own else 0))
            hits["majority"].append(turn.emotion == 0)
    return {name: float(np.mean(values)) for name, values in hits.items()}


def counted(dialogues: list[Dialogue]) -> float:
    """Accuracy of a table of counts, fitted on one half: next emotion given the partner's and the speaker's own."""
    half = len(dialogues) // 2
    counts: dict[tuple[object, ...], Counter[int]] = {}
    hits = []
    for index, dialogue in enumerate(dialogues):
        for number, turn in enumerate(dialogue.turns[1:], start=1):
            own = [before.emotion for before in dialogue.turns[:number] if before.speaker == turn.speaker]
            key = (dialogue.turns[number - 1].emotion, own[-1] if own else None)
            if index < half:
                counts.setdefault(key, Counter())[turn.emotion] += 1
            else:
                hits.append(turn.emotion == counts.get(key, Counter({0: 1})).most_common(1)[0][0])
    return float(np.mean(hits))


def test_dialogues_have_the_stated_shape(dialogues: list[Dialogue]) -> None:
    for dialogue in dialogues:
        speakers = [turn.speaker for turn in dialogue.turns]
        assert 6 <= len(speakers) <= 12
        assert len(set(speakers)) in (2, 3)
        assert set(speakers) <= set(CAST)
        assert all(one != other for one, other in itertools.pairwise(speakers))
    shares = Counter(dialogue.split for dialogue in dialogues)
    assert shares == {"train": 480, "dev": 160, "test": 160}
    assert Counter(dialogue.split for dialogue in draw_dialogues(RULE, 3, 0)) == {"train": 1, "dev": 1, "test": 1}


def test_rows_have_the_public_columns_of_meld_and_the_split(dialogues: list[Dialogue]) -> None:
    assert fake_dialogue.DIALOGUE_COLUMNS == (
        "Utterance",
        "Speaker",
        "Emotion",
        "Dialogue_ID",
        "Utterance_ID",
        "Split",
    )
    table = rows(dialogues[:3])
    assert len(table) == sum(len(dialogue.turns) for dialogue in dialogues[:3])
    first = dialogues[1].turns[0]
    row = next(row for row in table if row[3] == 1)
    assert row == (first.text, first.speaker, EMOTIONS[first.emotion], 1, 0, dialogues[1].split)


def test_expected_accuracy_is_what_drawn_dialogues_have(
    dialogues: list[Dialogue], scores: dict[str, dict[str, float | str]]
) -> None:
    found = answers(dialogues)
    for name, value in found.items():
        assert accuracy(scores, name) == pytest.approx(value, abs=0.04)


def test_what_was_said_so_far_predicts_the_next_emotion(
    dialogues: list[Dialogue], scores: dict[str, dict[str, float | str]]
) -> None:
    found = counted(dialogues)
    assert found > answers(dialogues)["majority"] + 0.15
    # The table does not know the speakers' leanings, so it cannot be better.
    assert accuracy(scores, "next") - 0.05 < found < accuracy(scores, "next") + 0.03


def test_optimum_beats_every_simple_rule_and_words_add_to_it(scores: dict[str, dict[str, float | str]]) -> None:
    for name in ("copy_partner", "copy_own", "speaker", "majority"):
        assert accuracy(scores, "next") > accuracy(scores, name) + 0.01
    assert accuracy(scores, "current") > accuracy(scores, "next") + 0.1


def test_expected_turns_of_one_dialogue_are_those_of_all_its_courses() -> None:
    """Every course of emotions of a short dialogue, summed one by one."""
    dialogue = draw_dialogues(RULE, 3, 4)[0]
    short = dataclasses.replace(dialogue, turns=dialogue.turns[:4])
    leanings = fake_dialogue._leanings(4)
    right = 0.0
    for course in np.ndindex(6, 6, 6, 6):
        chance = 1.0
        for number, emotion in enumerate(course):
            speaker = short.turns[number].speaker
            own = [course[turn] for turn in range(number) if short.turns[turn].speaker == speaker]
            before = course[number - 1] if number else None
            chances = fake_dialogue._next(RULE, leanings[CAST.index(speaker)], before, own[-1] if own else None)
            if number == 3:
                right += chance * float(chances.max()) if emotion == 0 else 0.0
            chance *= float(chances[emotion])
    all_turns = accuracy(dialogue_scores(RULE, [short], 4), "next")
    shorter = dataclasses.replace(short, turns=short.turns[:3])
    without_last = accuracy(dialogue_scores(RULE, [shorter], 4), "next")
    assert 3 * all_turns - 2 * without_last == pytest.approx(right, abs=1e-9)


@pytest.mark.parametrize(("contagion", "inertia", "copied"), [(1.0, 0.0, "copy_partner"), (0.0, 1.0, "copy_own")])
def test_each_knob_alone_makes_its_copy_right(contagion: float, inertia: float, copied: str) -> None:
    rule = Rule(snr=1.0, contagion=contagion, inertia=inertia)
    drawn = draw_dialogues(rule, 100, 0)
    known = [
        (
            dialogue.turns[number - 2].emotion if copied == "copy_own" else dialogue.turns[number - 1].emotion,
            turn.emotion,
        )
        for dialogue in drawn
        if len({turn.speaker for turn in dialogue.turns}) == 2
        for number, turn in enumerate(dialogue.turns)
        if number >= 2
    ]
    assert all(before == now for before, now in known)


def test_speakers_have_leanings_of_their_own() -> None:
    drawn = draw_dialogues(Rule(snr=1.0, contagion=0.0, inertia=0.0), NUM, 0)
    leanings = fake_dialogue._leanings(0)
    for place, name in enumerate(CAST):
        emotions = np.array([turn.emotion for dialogue in drawn for turn in dialogue.turns if turn.speaker == name])
        shares = np.bincount(emotions, minlength=6) / emotions.size
        expected = 0.75 * np.array(SHARES) + 0.25 * leanings[place]
        np.testing.assert_allclose(shares, expected, atol=4 * np.sqrt(0.25 / emotions.size))


def test_without_snr_neither_words_nor_turns_nor_speakers_tell_anything() -> None:
    silent = Rule(snr=0.0, contagion=0.9, inertia=0.9)
    drawn = draw_dialogues(silent, NUM, 0)
    found = dialogue_scores(silent, drawn[:SOME], 0)
    for name in ("next", "current", "speaker", "majority"):
        assert accuracy(found, name) == pytest.approx(max(SHARES), abs=1e-9)
    num_turns = sum(len(dialogue.turns) - 1 for dialogue in drawn)
    same = float((np.array(SHARES) ** 2).sum())
    simple = answers(drawn)
    assert simple["copy_partner"] == pytest.approx(same, abs=4 * np.sqrt(0.25 / num_turns))
    assert counted(drawn) < max(SHARES) + 4 * np.sqrt(0.25 / (num_turns / 2))


def test_the_same_seed_gives_the_same_dialogues_and_another_one_others() -> None:
    assert draw_dialogues(RULE, 5, 0) == draw_dialogues(RULE, 5, 0)
    assert draw_dialogues(RULE, 5, 0) != draw_dialogues(RULE, 5, 1)
