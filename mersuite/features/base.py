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
        inputs: Media streams that are read. A clip without any of them is left out of this extractor's work;
            "eeg_baseline?" marks one that is used when it is there.
        group_by: None when every clip stands alone; else clips with the same value of this group are given together
            ("subject": statistics over all trials of a person) and all their files enter the fingerprint.
    """

    Config: ClassVar[type]
    version: ClassVar[int]
    inputs: ClassVar[tuple[str, ...]]
    group_by: ClassVar[str | None] = None

    def __init__(self, config: Any) -> None:
        self.config = config

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
