"""The contract of everything that runs once, at prepare: recordings in, stored streams out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from mersuite.clip import Clip, Signal


class Extractor(ABC):
    """Turns the media of some clips into streams for the store.

    A file of mersuite/features/ that defines one subclass is an extractor, found by its file name.

    Attributes:
        Config: Frozen dataclass of the knobs; every field enters the fingerprint.
        version: Raised by hand whenever the code gives other numbers; it enters the fingerprint.
        inputs: Media streams that are read; the constructor sets its own where a knob names them. A clip without any of
            them is left out of this extractor's work; "eeg_baseline?" marks one that is used when it is there.
        no_effect: Knobs that decide no number and stay out of the fingerprint: how much is computed at once, or where a
            model lies, whose content state_digest stands for.
        clips_per_unit: How many clips that stand alone it is given at once; None for a few.
        accelerator: Where it computes, as runtime.accelerator says; it decides no number.
        group_by: None when every clip stands alone; else clips with the same value of this group are given together
            ("subject": statistics over all trials of a person) and all their files enter the fingerprint.
    """

    Config: ClassVar[type]
    version: ClassVar[int]
    inputs: tuple[str, ...]
    no_effect: ClassVar[tuple[str, ...]] = ()
    group_by: ClassVar[str | None] = None
    clips_per_unit: int | None = None
    accelerator: str = "auto"

    def __init__(self, config: Any) -> None:
        self.config = config

    def survey(self, clips: Sequence[Clip]) -> None:
        """Looks at all clips once, in the parent process, before any work; does nothing by default.

        Here an extractor refuses what can be told at once: a model folder that lacks a file, sources that are missing,
        a disk that is too small.

        Args:
            clips: All clips of the data, those that lack its inputs among them.

        Raises:
            MersuiteError: If the work cannot be done.
        """
        return

    def estimate_bytes(self, clips: Sequence[Clip]) -> int | None:
        """Gives about how many bytes the streams of these clips will take in the store; None where nobody can tell.

        A prepare whose estimate does not fit on the disk is refused before any work.
        """
        return None

    def state_digest(self) -> str:
        """Gives a digest of what decides the numbers beside code, knobs and clips, such as the weights of a model."""
        return ""

    @abstractmethod
    def outputs(self) -> tuple[str, ...]:
        """Names of the streams written for each clip."""

    @abstractmethod
    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        """Yields (clip_id, {stream: Signal}) for every clip given, float32, rows in time.

        Args:
            clips: One group where group_by is set, else any number of clips.

        Raises:
            DataError: If a recording is unreadable or contradicts what its clip says.
        """


def output_name(feature: str, stream: str) -> str:
    """Names the stored stream of a feature of a media stream: the feature, and whose it is where the stream says so.

    >>> output_name("ngrams", "text.speaker.zh"), output_name("motion", "video")
    ('ngrams_speaker_zh', 'motion')
    """
    role = stream.partition(".")[2].replace(".", "_")
    return f"{feature}_{role}" if role else feature
