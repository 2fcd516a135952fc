"""Made-up dialogues in which emotions last and spread, and the accuracy that is optimal when they are known.

Each turn is somebody else's than the one before. What its speaker feels is

    with probability `contagion`: the emotion of the turn before,
    else with probability `inertia`: what the speaker felt at their own turn before, if there was one,
    else: drawn from the speaker's own shares, 1 - leaning of SHARES and `leaning` of one emotion that is theirs.

All three are scaled by min(snr, 1). Why: at snr=0 nothing may tell of an emotion, neither words nor speakers nor
earlier turns. Words are those of `mersuite.data.fake_subtitles`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from mersuite.data import fake_bayes, fake_subtitles
from mersuite.data.fake_emotions import EMOTIONS, SHARES

DIALOGUE_COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID", "Split")
"""Public columns of MELD, and the split, which MELD gives by file."""
CAST = ("Ana", "Bo", "Cem", "Dora", "Eli", "Fay")
LEANING = 0.25
SPLITS = ("train", "dev", "test")
_SPLIT_SHARES = (0.6, 0.2, 0.2)
_MIN_TURNS, _MAX_TURNS = 6, 12
_THIRD_SPEAKER = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """How emotions follow one another; the values are those of the module's text, not yet scaled by the snr."""

    snr: float
    contagion: float
    inertia: float

    @property
    def scale(self) -> float:
        """What contagion, inertia and leaning are multiplied by."""
        return min(self.snr, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One turn: who speaks (a name of CAST), what they feel (an index in EMOTIONS), what they say in English."""

    speaker: str
    emotion: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialogue:
    """Turns in their order, and the split that all of them are in."""

    dialogue_id: int
    split: str
    turns: tuple[Turn, ...]


def draw_dialogues(rule: Rule, num_dialogues: int, seed: int) -> list[Dialogue]:
    """Draws dialogues of 6 to 12 turns between two, sometimes three, people of the cast."""
    rng = np.random.default_rng([seed, 5])
    leanings = _leanings(seed)
    counts = [max(int(share * num_dialogues), 1) for share in _SPLIT_SHARES[1:]]
    splits = np.repeat(SPLITS, [num_dialogues - sum(counts), *counts])
    dialogues = []
    for index, split in enumerate(rng.permutation(splits)):
        num_speakers = 3 if rng.random() < _THIRD_SPEAKER else 2
        present = [CAST[place] for place in rng.choice(len(CAST), size=num_speakers, replace=False)]
        turns: list[Turn] = []
        for _ in range(int(rng.integers(_MIN_TURNS, _MAX_TURNS + 1))):
            others = [name for name in present if not turns or name != turns[-1].speaker]
            speaker = others[int(rng.integers(len(others)))]
            own = [turn.emotion for turn in turns if turn.speaker == speaker]
            before = turns[-1].emotion if turns else None
            chances = _next(rule, leanings[CAST.index(speaker)], before, own[-1] if own else None)
            emotion = int(rng.choice(len(EMOTIONS), p=chances))
            sentence = fake_subtitles.draw_sentence(rng, emotion, rule.snr)
            turns.append(Turn(speaker=speaker, emotion=emotion, text=sentence.english))
        dialogues.append(Dialogue(dialogue_id=index, split=str(split), turns=tuple(turns)))
    return dialogues


def rows(dialogues: Iterable[Dialogue]) -> list[tuple[str, str, str, int, int, str]]:
    """Gives the lines of dialogue.csv in the order of DIALOGUE_COLUMNS."""
    return [
        (turn.text, turn.speaker, EMOTIONS[turn.emotion], dialogue.dialogue_id, number, dialogue.split)
        for dialogue in dialogues
        for number, turn in enumerate(dialogue.turns)
    ]


def dialogue_scores(rule: Rule, dialogues: Sequence[Dialogue], seed: int) -> dict[str, dict[str, float | str]]:
    """Gives the optimal scores on dialogues whose speakers take turns as they do in the given ones.

    A forward pass over the joint distribution of everybody's last emotion gives what is expected exactly; no emotion or
    word of the given dialogues enters. The turns that count are those with an earlier one.

    Returns:
        System name to {"waf", "acc", "how"}; the most probable answer of each, given what it knows.
    """
    leanings = _leanings(seed)
    num = len(EMOTIONS)
    words = _sentence_probabilities(rule.snr)
    names = ("next", "current", "copy_partner", "copy_own", "majority", "speaker")
    confusions = {name: np.zeros((num, num)) for name in names}
    for dialogue in dialogues:
        speakers = [turn.speaker for turn in dialogue.turns]
        _add_expected(rule, leanings, speakers, words, confusions)
    how = {
        "next": "the emotion of the next turn, from who speaks it and the true emotions of all turns before",
        "current": "the emotion of a turn, from who speaks it, its words and the true emotions of all turns before",
        "copy_partner": "the true emotion of the turn before",
        "copy_own": "the speaker's true emotion at their turn before; the most frequent one where there is none",
        "majority": "the most frequent emotion",
        "speaker": "the emotion that the speaker has most often",
    }
    return {f"dialogue_{name}": {**fake_bayes.scores(confusions[name]), "how": how[name]} for name in names}


def _add_expected(
    rule: Rule,
    leanings: np.ndarray,
    speakers: Sequence[str],
    words: np.ndarray,
    confusions: dict[str, np.ndarray],
) -> None:
    """Adds what is expected of one dialogue to each system's (truth, answer) matrix."""
    usual = int(np.argmax(SHARES))
    states: dict[tuple[tuple[str, int], ...], float] = {(): 1.0}  # everybody's last emotion -> probability
    for number, speaker in enumerate(speakers):
        leaning = leanings[CAST.index(speaker)]
        after: dict[tuple[tuple[str, int], ...], float] = {}
        for state, probability in states.items():
            last = dict(state)
            before = last[speakers[number - 1]] if number else None
            own = last.get(speaker)
            chances = _next(rule, leaning, before, own)
            if before is not None:
                expected = probability * chances
                answers = {
                    "next": int(chances.argmax()),
                    "copy_partner": before,
                    "copy_own": usual if own is None else own,
                    "majority": usual,
                    "speaker": int(leaning.argmax()) if rule.scale else usual,
                }
                for name, answer in answers.items():
                    confusions[name][:, answer] += expected
                joint = chances[:, None] * words
                np.add.at(confusions["current"].T, joint.argmax(axis=0), probability * joint.T)
            for emotion, chance in enumerate(chances):
                key = tuple(sorted({**last, speaker: emotion}.items()))
                after[key] = after.get(key, 0.0) + probability * float(chance)
        states = after


def _next(rule: Rule, leaning: np.ndarray, before: int | None, own: int | None) -> np.ndarray:
    """P(emotion of a turn | the turn before, the speaker's turn before): (emotion,) float64."""
    scale = rule.scale
    chances: np.ndarray = (1 - scale * LEANING) * np.array(SHARES) + scale * LEANING * leaning
    for known, weight in ((own, rule.inertia), (before, rule.contagion)):
        if known is not None:
            chances = (1 - scale * weight) * chances
            chances[known] += scale * weight
    return chances


def _leanings(seed: int) -> np.ndarray:
    """(person of the cast, emotion) one-hot: the emotion that each is more inclined to; all differ."""
    return np.eye(len(EMOTIONS))[np.random.default_rng([seed, 7]).permutation(len(CAST))]


def _sentence_probabilities(snr: float) -> np.ndarray:
    """P(groups of the phrases of a sentence | emotion) for all combinations: (emotion, combination) float64."""
    phrase = fake_subtitles.group_probabilities(snr)
    sentence = np.ones((len(EMOTIONS), 1))
    for _ in range(fake_subtitles.NUM_PHRASES):
        sentence = (sentence[:, :, None] * phrase[:, None, :]).reshape(len(EMOTIONS), -1)
    return sentence
