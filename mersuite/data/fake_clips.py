"""Small made-up clips in the organisers' layout of MER2026, with a known effect; the tracks of that data share them.

A training clip shows one person, who speaks and whose emotion is the label. A candidate shows two people side by side:
a speaker, whose mouth moves with the voice, and a listener, who is silent and whose emotion is the label. The speaker
feels what the listener feels with probability `contagion`, else an emotion of their own. So what a system learns of
voices and words from training clips misleads it on candidates: that is the known effect of changing roles.

An emotion shows in the face and in the voice by the latents of `mersuite.data.fake_emotions`, and in the words by the
probabilities of `mersuite.data.fake_subtitles`; given the emotion the three are independent. Length, names, order,
people, walls and sides are drawn without regard to emotions, so that at snr=0 nothing tells anything. Of the labels
only the counts are fixed, as near to the shares as whole numbers are. bayes.json holds what is optimal.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mersuite.data import (
    fake_bayes,
    fake_clip_files,
    fake_dialogue,
    fake_emotions,
    fake_faces,
    fake_files,
    fake_subtitles,
)
from mersuite.data.fake_dialogue import Rule
from mersuite.data.fake_emotions import EMOTIONS
from mersuite.data.fake_faces import Look
from mersuite.data.fake_subtitles import Sentence
from mersuite.errors import DataError
from mersuite.progress import Advance, progress_bars
from mersuite.schema import plain, require_all

WRITING = "write clips"
OPTIONS_FILE = "clips.json"
SCORES_FILE = "bayes.json"
NAME_PREFIXES = ("sample_", "samplenew_", "samplenew3_")
_NUM_PEOPLE = 12
_MIN_OF_A_CLASS = 2
_OTHER_BYTES_PER_S = 100_000
"""What a clip's files other than its face arrays take; measured, rounded up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipsConfig:
    """What the made-up clips are like.

    Attributes:
        num_clips: All clips; a third of them are candidates.
        num_dialogues: Dialogues in dialogue.csv, which have words only.
        snr: Variance that the emotion gives to a cue over the variance of its noise; 0 means that nothing is known.
        contagion: Probability that the speaker of a candidate feels what the listener feels.
        dialogue_contagion: Probability that a turn of a dialogue takes over the emotion of the turn before.
        dialogue_inertia: Probability that it otherwise keeps the emotion that its speaker had before.
        rate_hz: Pictures a second.
        min_clip_s: Shortest clip in seconds.
        max_clip_s: Longest clip in seconds.
        height: Of the video, pixels.
        width: Of the video, pixels.
        english_missing: Share of subtitles without English, as in the real data.
        seed: Everything that is random follows from it.
    """

    num_clips: int = 60
    num_dialogues: int = 30
    snr: float = 1.0
    contagion: float = 0.5
    dialogue_contagion: float = 0.25
    dialogue_inertia: float = 0.45
    rate_hz: float = 12.5
    min_clip_s: float = 1.6
    max_clip_s: float = 3.2
    height: int = 96
    width: int = 160
    english_missing: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        least = -(-3 * _MIN_OF_A_CLASS * len(EMOTIONS) // 2)
        shares = ("contagion", "dialogue_contagion", "dialogue_inertia", "english_missing")
        require_all(
            (least <= self.num_clips <= 99_999, f"num_clips: need {least} to 99999, got {self.num_clips}"),
            (self.num_dialogues >= 3, f"num_dialogues: need 3 or more, got {self.num_dialogues}"),
            (0 <= self.snr < float("inf"), f"snr: need 0 or more, got {self.snr}"),
            *((0 <= getattr(self, name) <= 1, f"{name}: need 0 to 1, got {getattr(self, name)}") for name in shares),
            (5 <= self.rate_hz <= 60, f"rate_hz: need 5 to 60, got {self.rate_hz:g}"),
            (
                1 <= self.min_clip_s <= self.max_clip_s <= 60,
                f"min_clip_s, max_clip_s: need 1 <= min <= max <= 60, got {self.min_clip_s:g} and {self.max_clip_s:g}",
            ),
            *(
                (64 <= size <= 1080 and size % 2 == 0, f"{name}: need an even number from 64 to 1080, got {size}")
                for name, size in (("height", self.height), ("width", self.width))
            ),
            (self.seed >= 0, f"seed: need 0 or more, got {self.seed}"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody made up: what does not depend on emotions. tract: see `mersuite.data.fake_voices.make_voice`."""

    person_id: int
    look: Look
    tract: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One person in one clip.

    Attributes:
        person: Who it is.
        emotion: One of EMOTIONS.
        face: (cue,) float64, the latent that the face shows.
    """

    person: Person
    emotion: str
    face: np.ndarray


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeClip:
    """The truth about one clip.

    Attributes:
        index: Its place among all clips.
        name: As in the organisers' files.
        num_frames: Pictures.
        speaker: The person who speaks.
        listener: The other person of a candidate; None in a training clip.
        voice: (cue,) float64, the latent of the speaker's voice.
        sentence: What the speaker says.
        has_english: Whether the subtitles give the English too.
        speaker_is_left: Where the speaker sits in a candidate.
    """

    index: int
    name: str
    num_frames: int
    speaker: Part
    listener: Part | None
    voice: np.ndarray
    sentence: Sentence
    has_english: bool
    speaker_is_left: bool

    @property
    def is_candidate(self) -> bool:
        """Whether two people are to be seen and the label is the listener's."""
        return self.listener is not None

    @property
    def target(self) -> str:
        """The emotion that is asked for: the listener's if there is one, else the speaker's."""
        return (self.listener or self.speaker).emotion


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeClips:
    """The truth about all clips, in the order of the organisers' tables."""

    train: tuple[FakeClip, ...]
    candidates: tuple[FakeClip, ...]

    @property
    def clips(self) -> tuple[FakeClip, ...]:
        """Training clips, then candidates."""
        return self.train + self.candidates


def draw_clips(config: ClipsConfig) -> FakeClips:
    """Draws who feels, shows and says what in which clip; nothing is written."""
    rng = np.random.default_rng([config.seed, 0])
    num_candidates = config.num_clips // 3
    num_train = config.num_clips - num_candidates
    targets = [
        *fake_emotions.stratified_emotions(rng, num_train, _MIN_OF_A_CLASS),
        *fake_emotions.stratified_emotions(rng, num_candidates, 0),
    ]
    numbers = rng.choice(20 * config.num_clips, size=config.num_clips, replace=False)
    prefixes = rng.choice(NAME_PREFIXES, size=config.num_clips)
    has_english = rng.random(config.num_clips) >= config.english_missing
    people = _draw_people(config.seed)
    clips = [
        _draw_clip(config, index, f"{prefix}{number:08d}", int(target), people, bool(english))
        for index, (target, number, prefix, english) in enumerate(
            zip(targets, numbers, prefixes, has_english, strict=True)
        )
    ]
    return FakeClips(train=tuple(clips[:num_train]), candidates=tuple(clips[num_train:]))


def _draw_people(seed: int) -> list[Person]:
    rng = np.random.default_rng([seed, 1])
    return [
        Person(person_id=number, look=fake_faces.draw_look(rng), tract=float(rng.uniform(0.87, 1.15)))
        for number in range(_NUM_PEOPLE)
    ]


def _draw_clip(
    config: ClipsConfig, index: int, name: str, target: int, people: Sequence[Person], has_english: bool
) -> FakeClip:
    rng = np.random.default_rng([config.seed, 2, index])
    is_candidate = index >= config.num_clips - config.num_clips // 3
    speaks = int(fake_emotions.catch(rng, np.array(target), config.contagion)) if is_candidate else target
    who = rng.choice(len(people), size=2, replace=False)
    parts = [
        Part(
            person=people[person],
            emotion=EMOTIONS[emotion],
            face=fake_emotions.draw_latent(rng, "face", emotion, config.snr),
        )
        for person, emotion in zip(who, (speaks, target), strict=True)
    ]
    frames = [max(round(seconds * config.rate_hz), 2) for seconds in (config.min_clip_s, config.max_clip_s)]
    return FakeClip(
        index=index,
        name=name,
        num_frames=int(rng.integers(frames[0], frames[1] + 1)),
        speaker=parts[0],
        listener=parts[1] if is_candidate else None,
        voice=fake_emotions.draw_latent(rng, "voice", speaks, config.snr),
        sentence=fake_subtitles.draw_sentence(rng, speaks, config.snr),
        has_english=has_english,
        speaker_is_left=bool(rng.random() < 0.5),
    )


def write_clips(config: ClipsConfig, out: Path) -> Mapping[str, Any]:
    """Writes the made-up clips, or what is missing of them; a file that is there is whole and stays as it is.

    The caller claims the folder for its track first: `fake_files.claim_folder`.

    Args:
        config: Sizes, strengths, seed.
        out: Folder, which may hold the same clips already and files of other tracks.

    Returns:
        Counts, size on disk, and the optimal WAF of each system under "bayes".

    Raises:
        DataError: If the folder's clips were made with other options or the disk is too small.
        ConfigError: If PyAV is not installed.
    """
    out = Path(out)
    drawn = draw_clips(config)
    _check_options(config, out)
    _check_disk(config, drawn, out)
    fake_files.write_text(out / OPTIONS_FILE, json.dumps(plain(config), indent=1) + "\n")
    num_threads = min(os.cpu_count() or 1, 8)
    # numpy and FFmpeg free the GIL
    with ThreadPoolExecutor(max_workers=num_threads) as pool, progress_bars({WRITING: config.num_clips}) as advance:
        list(pool.map(lambda clip: _write_clip(config, out, clip, advance), drawn.clips))
    rule = Rule(snr=config.snr, contagion=config.dialogue_contagion, inertia=config.dialogue_inertia)
    dialogues = fake_dialogue.draw_dialogues(rule, config.num_dialogues, config.seed)
    fake_clip_files.write_missing(out, fake_clip_files.table_files(drawn, dialogues))
    scores = {
        **fake_bayes.clip_scores(config.snr, config.contagion, config.seed),
        **fake_dialogue.dialogue_scores(rule, dialogues, config.seed),
    }
    add_scores(out, {**scores, "clips_model": _describe(config)})
    return {
        "out": str(out),
        "num_train": len(drawn.train),
        "num_candidates": len(drawn.candidates),
        "num_dialogues": len(dialogues),
        "num_seconds": round(sum(clip.num_frames for clip in drawn.clips) / config.rate_hz, 1),
        "size_bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "bayes": {name: round(float(values["waf"]), 3) for name, values in scores.items()},
    }


def add_scores(out: Path, scores: Mapping[str, Any]) -> None:
    """Adds optimal scores to bayes.json and keeps those that are there of other tracks."""
    path = out / SCORES_FILE
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    fake_files.write_text(path, json.dumps({**known, **scores}, indent=1) + "\n")


def _describe(config: ClipsConfig) -> Mapping[str, Any]:
    """The facts that a reader of bayes.json needs beside the scores."""
    return {
        "rows": "new clips and dialogues of the same law; waf is that of the most probable answer",
        "effect": "face and voice: latent of four cues = (sqrt(snr) * place of the emotion + noise) / sqrt(1 + snr);"
        " words: three phrases, each of the emotion's group with probability snr / (snr + 2), else by the shares",
        "shares": dict(zip(EMOTIONS, fake_emotions.SHARES, strict=True)),
        "snr": config.snr,
        "contagion": config.contagion,
        "dialogue_contagion": config.dialogue_contagion * min(config.snr, 1.0),
        "dialogue_inertia": config.dialogue_inertia * min(config.snr, 1.0),
    }


def _write_clip(config: ClipsConfig, out: Path, clip: FakeClip, advance: Advance) -> None:
    fake_clip_files.write_missing(out, fake_clip_files.clip_files(config, clip))
    advance(WRITING, 1)


def _check_options(config: ClipsConfig, out: Path) -> None:
    path = out / OPTIONS_FILE
    if not path.is_file():
        return
    known = json.loads(path.read_text(encoding="utf-8"))
    for key, value in plain(config).items():
        if known.get(key) != value:
            raise DataError(
                f"out={out}: its clips were made with {key}={known.get(key)}, asked for {key}={value};"
                " repeat with the same options or give another folder"
            )


def _check_disk(config: ClipsConfig, drawn: FakeClips, out: Path) -> None:
    pixels = fake_faces.CROP_SIZE**2 * 3
    faces = sum(clip.num_frames * (2 if clip.is_candidate else 1) for clip in drawn.clips)
    seconds = sum(clip.num_frames for clip in drawn.clips) / config.rate_hz
    needed = faces * pixels + seconds * _OTHER_BYTES_PER_S
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free and not (out / OPTIONS_FILE).is_file():
        raise DataError(f"out={out}: need about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; make it smaller")
