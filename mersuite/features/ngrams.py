"""Text as hashed counts of its character n-grams; needs no weights and knows no language."""

from __future__ import annotations

import hashlib
import math
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mersuite.clip import Clip, Signal
from mersuite.errors import DataError
from mersuite.features.base import Extractor, output_name
from mersuite.schema import require_all


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramsConfig:
    """Knobs of the n-grams.

    Attributes:
        stream: Text stream that is read.
        min_length: Characters of the shortest n-grams.
        max_length: Characters of the longest. Why 1 to 3: in Chinese that is a character, a word, a short phrase; in
            English stems and endings.
        num_features: Width of the vector. Why 256: it is as wide as the hidden layers behind it, and of the 30 to 90
            n-grams of a subtitle most keep a place of their own.
    """

    stream: str = "text.speaker.zh"
    min_length: int = 1
    max_length: int = 3
    num_features: int = 256

    def __post_init__(self) -> None:
        require_all(
            (bool(self.stream), "stream: need the name of a text stream, such as text.speaker.zh"),
            (
                1 <= self.min_length <= self.max_length,
                f"need 1 <= min_length <= max_length, got {self.min_length} and {self.max_length}",
            ),
            (self.num_features >= 1, f"num_features: need 1 or more, got {self.num_features}"),
        )


class NgramsExtractor(Extractor):
    """Writes `ngrams_<role>`: one vector of length 1 for each text.

    A text that is empty or blank gives no stream: models then see it as missing, as a listener who says nothing.
    """

    Config = NgramsConfig
    version = 1
    config: NgramsConfig

    def __init__(self, config: NgramsConfig) -> None:
        super().__init__(config)
        self.inputs = (config.stream,)

    def outputs(self) -> tuple[str, ...]:
        """Names of the streams written for each clip."""
        return (output_name("ngrams", self.config.stream),)

    def estimate_bytes(self, clips: Sequence[Clip]) -> int:
        """Gives the bytes of the vectors."""
        return 4 * self.config.num_features * len(clips)

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields the vector of every clip.

        Raises:
            DataError: If the stream is a file instead of a text.
        """
        config = self.config
        for clip in clips:
            text = clip.media[config.stream]
            if not isinstance(text, str):
                raise DataError(f"{clip.clip_id}: {config.stream} is a file ({text.path}); ngrams needs a text stream")
            counts = count_ngrams(text, config.min_length, config.max_length)
            if not counts:
                yield clip.clip_id, {}
                continue
            vector = hash_counts(counts, config.num_features)[None]
            yield clip.clip_id, {self.outputs()[0]: Signal(data=vector, rate_hz=0.0, ch_names=())}


def count_ngrams(text: str, min_length: int, max_length: int) -> Counter[str]:
    """Counts the character n-grams of a text; none where it is blank.

    Characters are brought to one form (Unicode NFKC, case folded) and any white space to one blank. A blank before and
    one after the text mark its ends, as blanks mark words; an n-gram of blanks alone does not count.

    >>> sorted(count_ngrams("Ａb", 1, 2).items())
    [(' a', 1), ('a', 1), ('ab', 1), ('b', 1), ('b ', 1)]
    """
    words = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split()
    padded = f" {' '.join(words)} "
    lengths = range(min_length, max_length + 1)
    counts = Counter(padded[start : start + n] for n in lengths for start in range(len(padded) - n + 1))
    return Counter({ngram: count for ngram, count in counts.items() if not ngram.isspace()})


def hash_counts(counts: Mapping[str, int], num_features: int) -> np.ndarray:
    """Gives counts as a vector of length 1: (num_features,) float32.

    Each n-gram adds 1 + log(count) at a place, with a sign, that both come from its BLAKE2 hash, so they are the same
    on every machine and in every run. Why signed: n-grams that meet then cancel as often as they add, and inner
    products are on average those of the counts themselves. Zero where all cancel.

    Source: Weinberger et al. 2009, "Feature hashing for large scale multitask learning"; 1 + log(count): Manning,
    Raghavan, Schütze 2008, "Introduction to information retrieval", section 6.4.1.
    """
    vector = np.zeros(num_features)
    for ngram, count in counts.items():
        value = int.from_bytes(hashlib.blake2b(ngram.encode(), digest_size=8).digest(), "little")
        place, sign = (value >> 1) % num_features, 1 - 2 * (value & 1)
        vector[place] += sign * (1 + math.log(count))
    length = float(np.linalg.norm(vector))
    return (vector / length if length else vector).astype(np.float32)
