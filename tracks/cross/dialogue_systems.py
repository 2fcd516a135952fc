"""What answers for dialogues: the network, and what it must beat without one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mersuite.clip import Output, Sample, WindowKey
from mersuite.data.collate import IGNORED_CLASS
from mersuite.track import Evaluation, ReadFeatures
from tracks.cross.dialogue import EARLIER, LAST_OWN, LAST_PARTNER
from tracks.cross.fitted import CrossFitted, label_of
from tracks.cross.options import CrossConfig

SPEAKER = "speaker"
_COPIED = {"copy_partner": LAST_PARTNER, "copy_own": LAST_OWN}
_LEAST = np.float32(np.log(1e-6))
"""Score of a label that is not the copied one."""
_PROTOCOLS = {
    "dialogue": "the dialogue so far, as cross.dialogue lets it be seen",
    "copy_partner": "the last true emotion of another speaker, or else the majority; no network, all earlier turns",
    "copy_own": "the speaker's own last true emotion, or else the majority; no network, all earlier turns",
    "speaker": "the most frequent label of the speaker in the training rows, or else the majority; no network",
    "majority": "always the most frequent label of the training rows",
}


def dialogue_evaluations(options: CrossConfig) -> list[Evaluation]:
    """Gives the configured system first, then the other ones; all answer the same held-out turns."""
    rows = [
        Evaluation(name=name, overrides={"cross.system": name}, protocol=protocol)
        for name, protocol in _PROTOCOLS.items()
    ]
    return sorted(rows, key=lambda item: item.name != options.system)


class DialogueFitted(CrossFitted):
    """Labels, their shares, and each speaker's own shares in the training rows.

    Args:
        options: The system.
    """

    def __init__(self, options: CrossConfig) -> None:
        super().__init__(options)
        self._speakers: dict[str, np.ndarray] = {}

    def fit(self, train: Sequence[Sample], val: Sequence[Sample], features: ReadFeatures) -> None:
        """Counts the labels of the training rows, in all and by speaker."""
        super().fit(train, val, features)
        counts: dict[str, Counter[str]] = {}
        for sample in train:
            counts.setdefault(sample.groups[SPEAKER], Counter())[label_of(sample)] += 1
        self._speakers = {
            name: np.array([found[label] for label in self.classes], dtype=np.float32)
            for name, found in sorted(counts.items())
        }

    def target(self, sample: Sample) -> Mapping[str, np.ndarray]:
        """Gives {"emotion": index}, and {"earlier": (turn,)}, the emotions of the turns that are seen; int64.

        The asked turn, which comes last, and emotions that are not known are IGNORED_CLASS in the second.
        """
        emotions = [*json.loads(sample.texts[EARLIER]), ""]
        places = [self.classes.index(item) if item in self.classes else IGNORED_CLASS for item in emotions]
        return {**super().target(sample), EARLIER: np.array(places, dtype=np.int64)}

    def apply(self, sample: Sample, output: Output | None) -> Output:
        """Gives a score for each label by name: the network's, the copied label's, or logarithms of shares."""
        if output is not None:
            return super().apply(sample, output)
        if self.options.system in _COPIED:
            return self._copied(sample, sample.texts.get(_COPIED[self.options.system], ""))
        counts = self._speakers.get(sample.groups.get(SPEAKER, "")) if self.options.system == "speaker" else None
        if counts is None:
            return super().apply(sample, None)
        # One row of the overall shares beside the speaker's own, so that among equals the more frequent label wins.
        return self._named(sample, np.log(np.maximum((counts + self.shares) / (counts.sum() + 1), 1e-6)))

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Gives all shares, and the names of labels and speakers."""
        arrays, values = super().state()
        rows = np.stack(list(self._speakers.values())) if self._speakers else np.zeros((0, len(self.classes)))
        return {**arrays, "speakers": rows.astype(np.float32)}, {**values, "speakers": list(self._speakers)}

    def load_state(self, arrays: Mapping[str, np.ndarray], values: Mapping[str, Any]) -> None:
        """Restores what state gave."""
        super().load_state(arrays, values)
        self._speakers = dict(zip(values["speakers"], np.asarray(arrays["speakers"], dtype=np.float32), strict=True))

    def _copied(self, sample: Sample, emotion: str) -> Output:
        if emotion not in self.classes:
            return super().apply(sample, None)
        scores = np.full(len(self.classes), _LEAST, dtype=np.float32)
        scores[self.classes.index(emotion)] = 0.0
        return self._named(sample, scores)

    def _named(self, sample: Sample, scores: np.ndarray) -> Output:
        values = {label: np.asarray(score, dtype=np.float32) for label, score in zip(self.classes, scores, strict=True)}
        return Output(key=WindowKey(sample.sample_id, 0.0, 0.0), values=values)
