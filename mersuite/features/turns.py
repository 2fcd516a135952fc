"""Turns of a dialogue as rows: hashed words, who speaks, how long ago; needs no weights and knows no language."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mersuite.clip import Clip, Signal
from mersuite.errors import DataError
from mersuite.features.base import Extractor, output_name
from mersuite.features.ngrams import count_ngrams, hash_counts
from mersuite.formats.seen_turns import OWN, SeenTurn, read_seen
from mersuite.schema import require_all

FLAGS = ("own", "partner", "asked", "recency")
ROWS_HZ = 1.0
"""A row is a turn; dialogues have no clock."""
_MAX_CODE = 8 * hashlib.blake2b.MAX_DIGEST_SIZE


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnsConfig:
    """Knobs of the rows.

    Attributes:
        stream: Text stream that is read, as mersuite.formats.seen_turns writes it.
        min_length: Characters of the shortest n-grams.
        max_length: Characters of the longest. Why 4: with the blanks at its ends that holds short words whole.
        num_features: Width of the hashed n-grams of a turn.
        num_names: Signs of the code of a speaker's name; 0 leaves names out.
        num_emotions: Signs of the code of an emotion that was given away; 0 leaves them out. Why a code and not a place
            for each: any set of labels fits, in files of which one may lack some.
    """

    stream: str = "text.dialogue"
    min_length: int = 1
    max_length: int = 4
    num_features: int = 512
    num_names: int = 16
    num_emotions: int = 16

    def __post_init__(self) -> None:
        codes = (self.num_names, self.num_emotions)
        require_all(
            (bool(self.stream), "stream: need the name of a text stream, such as text.dialogue"),
            (
                1 <= self.min_length <= self.max_length,
                f"need 1 <= min_length <= max_length, got {self.min_length} and {self.max_length}",
            ),
            (self.num_features >= 1, f"num_features: need 1 or more, got {self.num_features}"),
            (
                all(0 <= size <= _MAX_CODE for size in codes),
                f"need num_names and num_emotions of 0 to {_MAX_CODE}, got {codes[0]} and {codes[1]}",
            ),
        )


class TurnsExtractor(Extractor):
    """Writes `turns_<role>`: a row a turn, the oldest first and the one that is asked last.

    Channels: own, partner (whose turn it is), asked, recency (1 / (1 + turns ago)), then the hashed n-grams of the
    words, the code of the speaker's name and the code of the emotion; zeros where the text does not tell them.
    """

    Config = TurnsConfig
    version = 1
    config: TurnsConfig

    def __init__(self, config: TurnsConfig) -> None:
        super().__init__(config)
        self.inputs = (config.stream,)

    def outputs(self) -> tuple[str, ...]:
        """Names of the streams written for each clip."""
        return (output_name("turns", self.config.stream),)

    @property
    def ch_names(self) -> tuple[str, ...]:
        """One a channel; the first word says what it is about."""
        config = self.config
        parts = {"words": config.num_features, "name": config.num_names, "emotion": config.num_emotions}
        return (*FLAGS, *(f"{part} {index}" for part, size in parts.items() for index in range(size)))

    def estimate_bytes(self, clips: Sequence[Clip]) -> int:
        """Gives the bytes of the rows."""
        texts = (clip.media.get(self.config.stream) for clip in clips)
        num_rows = sum(text.count("\n") + 1 for text in texts if isinstance(text, str))
        return 4 * len(self.ch_names) * num_rows

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields the rows of every clip.

        Raises:
            DataError: If the stream is a file instead of a text, or no text of turns.
        """
        names = self.ch_names
        for clip in clips:
            text = clip.media[self.config.stream]
            if not isinstance(text, str):
                raise DataError(f"{clip.clip_id}: {self.config.stream} is a file ({text.path}); turns needs a text")
            turns = read_seen(text)
            rows = np.stack([self._row(turn, len(turns) - 1 - index) for index, turn in enumerate(turns)])
            yield clip.clip_id, {self.outputs()[0]: Signal(data=rows, rate_hz=ROWS_HZ, ch_names=names)}

    def _row(self, turn: SeenTurn, turns_ago: int) -> np.ndarray:
        config = self.config
        is_own = turn.who == OWN
        flags = np.array([is_own, not is_own, turn.is_asked, 1.0 / (1.0 + turns_ago)], dtype=np.float32)
        counts = count_ngrams(turn.words, config.min_length, config.max_length)
        return np.concatenate(
            [
                flags,
                hash_counts(counts, config.num_features),
                sign_code(turn.name, config.num_names),
                sign_code(turn.emotion, config.num_emotions),
            ]
        )


def sign_code(text: str, size: int) -> np.ndarray:
    """Gives a word's own pattern of signs: (size,) float32, each 1 or -1 by the word's BLAKE2 hash; zeros for "".

    Different words have nearly orthogonal codes, so that a linear map can tell apart as many as there are signs.

    >>> sign_code("joy", 4), sign_code("", 2)
    (array([ 1., -1., -1., -1.], dtype=float32), array([0., 0.], dtype=float32))
    """
    if not text or not size:
        return np.zeros(size, dtype=np.float32)
    digest = hashlib.blake2b(text.casefold().encode(), digest_size=-(-size // 8)).digest()
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))[:size]
    return (2.0 * bits - 1.0).astype(np.float32)
