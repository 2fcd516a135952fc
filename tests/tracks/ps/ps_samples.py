"""Small ps samples in memory for tests of what is fitted without gradient steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mersuite.clip import Output, Sample, Signal, WindowKey

TARGET = "valence_arousal"


def sample_of(subject: int | str, clip: int | str, labels: np.ndarray) -> Sample:
    name = f"test_{subject}/video_{clip}"
    return Sample(
        sample_id=name,
        clip_id=name,
        groups={"subject": f"test_{subject}", "clip": f"video_{clip}"},
        duration_s=float(len(labels)),
        target={TARGET: np.asarray(labels, dtype=np.float32)},
    )


def random_samples(
    rng: np.random.Generator, subjects: range, lengths: Mapping[int, int] | int = 20, num_clips: int = 3
) -> list[Sample]:
    """Labels of 1 to 255 for each subject and clip; lengths is one number of seconds, or one a subject."""
    return [
        sample_of(
            subject,
            clip,
            rng.integers(1, 256, size=(lengths if isinstance(lengths, int) else lengths[subject], 2)),
        )
        for subject in subjects
        for clip in range(num_clips)
    ]


def output_of(sample: Sample, values: np.ndarray) -> Output:
    key = WindowKey(sample.sample_id, 0.0, float(len(values)))
    return Output(key=key, values={TARGET: np.asarray(values, dtype=np.float32)})


def features_of(signals: Mapping[str, np.ndarray], rate_hz: float = 1.0) -> Callable[[str, str], Signal | None]:
    """Gives each clip's array as its stream `bands`; other streams are missing."""

    def read(clip_id: str, stream: str) -> Signal | None:
        if stream != "bands":
            return None
        data = np.asarray(signals[clip_id], dtype=np.float32)
        return Signal(data=data, rate_hz=rate_hz, ch_names=tuple(map(str, range(data.shape[1]))))

    return read
