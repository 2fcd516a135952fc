"""Small ps samples in memory for tests of what is fitted without gradient steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from mersuite.clip import Output, Sample, Signal, WindowKey
from mersuite.schema import build
from tracks.ps.fitted import PsFitted
from tracks.ps.options import PsConfig

TARGET = "valence_arousal"
LENGTHS = {0: 20, 1: 17, 2: 26, 3: 23, 4: 19, 5: 21}
SYSTEMS = ("constant", "median", "ridge", "signal", "prior", "fused")


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


def fitted_of(streams: Sequence[str] = ("bands",), **options: object) -> PsFitted:
    """Fitted parts without a ridge under the network, unless a test asks for it."""
    return PsFitted(build(PsConfig, {"ridge_base": False, **options}), streams)


def lagged_data(rng: np.random.Generator, lag_s: int, noise: float = 1.0):
    """Samples whose labels follow the first of three features by lag_s, around 128 and 100."""
    samples, signals = [], {}
    for subject, seconds in LENGTHS.items():
        for clip in range(3):
            data = rng.normal(size=(seconds + 10, 3))
            drive = data[: seconds + 10, 0]
            shifted = np.concatenate([rng.normal(size=lag_s), drive])[:seconds]
            labels = np.stack([128 + 20 * shifted, 100 - 10 * shifted], axis=1)
            sample = sample_of(subject, clip, labels + noise * rng.normal(size=labels.shape))
            samples.append(sample)
            signals[sample.clip_id] = data
    train = [item for item in samples if item.groups["subject"] not in ("test_4", "test_5")]
    val = [item for item in samples if item.groups["subject"] == "test_4"]
    out = [item for item in samples if item.groups["subject"] == "test_5"]
    return train, val, out, features_of(signals)


def no_features(clip_id: str, stream: str) -> Signal | None:
    raise AssertionError("this system reads no features")


def mae(fitted: PsFitted, pairs) -> np.ndarray:
    gaps = [np.abs(fitted.apply(item, out).values[TARGET] - item.target[TARGET]) for item, out in pairs]
    return np.concatenate(gaps).astype(np.float64).mean(0)
