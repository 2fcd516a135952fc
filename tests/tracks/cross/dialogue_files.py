"""Small dialogues written out, made-up ones with a known optimum, and a configuration that reads them."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mersuite import api
from mersuite.config import RunConfig
from mersuite.data import fake_dialogue
from mersuite.data.fake_dialogue import Rule

RECIPE = "recipe/cross_dialogue.yaml"
COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID", "Split")
QUICK = ("runtime.accelerator=cpu", "runtime.progress=false", "runtime.prepare_workers=1", "cv.folds=2")

TURNS = (
    ("Ana", "Hello there.", "joy"),
    ("Bo", "Go away!", "anger"),
    ("Bo", "Please.", "sadness"),
    ("Ana", "Why me?", "surprise"),
    ("Cem", "Never mind.", "neutral"),
    ("Ana", "All fine.", "joy"),
)
"""One dialogue; words of different turns have no word in common."""


def write_csv(path: Path, rows: Iterable[Sequence[Any]], columns: Sequence[str] = COLUMNS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def dialogue_rows(dialogue: int, split: str, turns: Sequence[tuple[str, str, str]] = TURNS) -> list[tuple]:
    return [(text, who, emotion, dialogue, number, split) for number, (who, text, emotion) in enumerate(turns)]


def write_small(path: Path) -> Path:
    """Two dialogues to train on, one of dev, one of test."""
    splits = ("train", "train", "dev", "test")
    return write_csv(path, [row for i, split in enumerate(splits) for row in dialogue_rows(i, split)])


def config_of(place: Path, *overrides: str) -> RunConfig:
    places = (f"data.manifest={place}", f"store.path={place.parent / 'store'}")
    return api.config("cross", files=[RECIPE], overrides=[*QUICK, *places, *overrides])


def write_made_up(path: Path, rule: Rule, num_dialogues: int, seed: int) -> dict[str, float]:
    """Writes dialogues of a rule; gives the optimal accuracy of each system."""
    dialogues = fake_dialogue.draw_dialogues(rule, num_dialogues, seed)
    write_csv(path, fake_dialogue.rows(dialogues), fake_dialogue.DIALOGUE_COLUMNS)
    scores = fake_dialogue.dialogue_scores(rule, dialogues, seed)
    return {name.removeprefix("dialogue_"): float(item["acc"]) for name, item in scores.items()}
