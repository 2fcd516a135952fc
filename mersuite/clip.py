"""The data model: what every track's raw files become, and what every model's outputs are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Media:
    """Where one stream of a clip lies, and what its file does not say of itself.

    Attributes:
        path: The file.
        key: The variable inside the file, for containers such as MATLAB files.
        start_s: Where the clip begins in the file, in seconds.
        duration_s: How long the clip lasts, in seconds; None means to the end of the file.
        rate_hz: Sampling rate in Hz where the file holds bare arrays; None where the file says it.
        ch_names: Channel names where the file holds bare arrays; () where the file says them.
        ch_types: MNE channel types ("eeg", "hbo", ...), one a channel; () where the file says them.
        unit: Physical unit of a bare array ("V", "M", ...); "" where the file says it.
    """

    path: Path
    key: str | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    rate_hz: float | None = None
    ch_names: tuple[str, ...] = ()
    ch_types: tuple[str, ...] = ()
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One recorded unit of a data set: a film clip seen by one person, a video file, an utterance.

    Attributes:
        clip_id: The name as the organisers spell it, unique in its data set, such as "test_3/video_07".
        dataset: The data set's name.
        media: Stream name ("eeg", "face.speaker", "text") to its file, or to the text itself.
        groups: What splits may go by, such as {"subject": "test_3", "clip": "video_07"}.
    """

    clip_id: str
    dataset: str
    media: Mapping[str, Media | str]
    groups: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One thing to predict. A clip may have many.

    Attributes:
        sample_id: Unique within the track.
        clip_id: The clip that it is about.
        groups: The clip's groups, copied so that splits need no look-up.
        duration_s: Seconds to predict, for targets that run in time; None for one target a clip.
        streams: Model stream to the stored stream that plays its part for this sample, None where it has none; a stream
            that is not named here is read under its own name. Why: the face of the person who is asked about is one
            time the speaker's and another time the listener's.
        texts: Texts that belong to the sample and not to the clip, such as the two sides of a preference.
        target: Name to array; empty where the truth is unknown. Targets in time are (second, dimension) float32;
            a label is an array of no axis that holds its name.
        weight: Weight in the loss.
    """

    sample_id: str
    clip_id: str
    groups: Mapping[str, str]
    duration_s: float | None = None
    streams: Mapping[str, str | None] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    target: Mapping[str, np.ndarray] = field(default_factory=dict)
    weight: float = 1.0

    def stored(self, stream: str) -> str | None:
        """Gives the stored stream that plays the part of a model's stream; None where the sample has none."""
        return self.streams.get(stream, stream)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A stream in memory: a raw recording or features over time.

    Attributes:
        data: (time, channel), floating point.
        rate_hz: Rows per second; 0.0 for a single vector that describes the whole clip (time is 1).
        ch_names: One name a channel.
        ch_types: One MNE channel type a channel for recordings; () for features.
        unit: "V", "M", "uV", ... for recordings; "" for features that have none.
        start_s: Time of the first row, in seconds from the start of the clip.
    """

    data: np.ndarray
    rate_hz: float
    ch_names: tuple[str, ...]
    ch_types: tuple[str, ...] = ()
    unit: str = ""
    start_s: float = 0.0

    @property
    def duration_s(self) -> float:
        """Length in seconds; 0.0 for a single vector."""
        return self.data.shape[0] / self.rate_hz if self.rate_hz else 0.0


def first_difference(names: Sequence[str], others: Sequence[str]) -> tuple[str, str] | None:
    """Gives the first two names that differ in more than case; None where none do or a side has no names."""
    if names == others:  # nearly always, and then at once
        return None
    pairs = zip(names, others, strict=False)
    return next(((one, other) for one, other in pairs if one.casefold() != other.casefold()), None)


class WindowKey(NamedTuple):
    """Which stretch of which sample a row of a batch is; a whole sample starts at 0.0 and lasts 0.0 or its length."""

    sample_id: str
    start_s: float
    duration_s: float


@dataclass(slots=True, kw_only=True)
class Batch:
    """What a model is given.

    Attributes:
        keys: One a row.
        streams: Name to (batch, time, channel) float32, or (batch, token) int64 for token ids.
        masks: Name to (batch, time) bool; True marks real rows, False padding or a missing stream.
        target: Name to tensor with batch first; empty at prediction.
        weight: (batch,) float32, the samples' loss weights; None means all 1.
        texts: Name to one string a row, for heads that read text.
        progress: Share of the training that is done, from 0 to 1; 0 outside training.
    """

    keys: Sequence[WindowKey]
    streams: dict[str, torch.Tensor]
    masks: dict[str, torch.Tensor]
    target: dict[str, torch.Tensor] = field(default_factory=dict)
    weight: torch.Tensor | None = None
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    progress: float = 0.0

    def __len__(self) -> int:
        return len(self.keys)

    def _map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
        return replace(
            self,
            streams={name: function(tensor) for name, tensor in self.streams.items()},
            masks={name: function(tensor) for name, tensor in self.masks.items()},
            target={name: function(tensor) for name, tensor in self.target.items()},
            weight=None if self.weight is None else function(self.weight),
        )

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        """Gives the batch with every tensor moved, with the arguments of torch.Tensor.to."""
        return self._map(lambda tensor: tensor.to(*args, **kwargs))

    def pin_memory(self) -> Batch:
        """Gives the batch with every tensor in page-locked memory; PyTorch's DataLoader calls it."""
        return self._map(lambda tensor: tensor.pin_memory())


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """Raw head values of one window or one sample.

    Attributes:
        key: Which window or sample.
        values: Name to array. Values in time are (second, dimension) float32; others have no batch axis.
    """

    key: WindowKey
    values: Mapping[str, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """What a submission line needs, and the values it was decoded from.

    Attributes:
        sample_id: Which sample.
        groups: The sample's groups.
        outputs: Raw values that may still be averaged with those of other models.
        answer: The decoded answer, in JSON types: a list of [valence, arousal], a label, a list of words, ...
        target: The truth where it is known (out-of-fold rows), else empty.
    """

    sample_id: str
    groups: Mapping[str, str]
    outputs: Mapping[str, np.ndarray]
    answer: Any
    target: Mapping[str, np.ndarray] = field(default_factory=dict)
