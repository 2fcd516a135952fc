"""A small ps fold in memory: labels that follow one feature of the signals."""

from __future__ import annotations

import zlib
from collections.abc import Collection
from pathlib import Path

import numpy as np

from mersuite import api, registry
from mersuite.clip import Sample, Signal
from mersuite.config import RunConfig
from mersuite.data.splits import make_folds
from mersuite.training.folds import FoldRun
from tracks.ps.runtime import SubjectFeatures

NUM_SUBJECTS, NUM_CLIPS, NUM_FEATURES = 6, 4, 5


class MadeFeatures(SubjectFeatures):
    """Streams in memory that know, as the store does, whether they are the same as before."""

    def signature(self, clip_ids: Collection[str]) -> str:
        """Gives a digest of the clips' signals."""
        kept = {name: signal.data for name, signal in self._signals.items() if name[0] in clip_ids}
        return str(zlib.crc32(repr([(name, kept[name].tobytes()) for name in sorted(kept)]).encode()))


def make_samples(rng: np.random.Generator) -> tuple[list[Sample], MadeFeatures]:
    """Samples of 12 to 15 s and their streams; valence is 128 + 30 times the first feature of `eeg_bands`."""
    samples, signals = [], {}
    for subject in range(1, NUM_SUBJECTS + 1):
        for clip in range(1, NUM_CLIPS + 1):
            seconds = 11 + clip
            data = rng.normal(size=(seconds, NUM_FEATURES)).astype(np.float32)
            other = rng.normal(size=(seconds, 3)).astype(np.float32)
            ratings = np.stack([128 + 30 * data[:, 0], 100 + 5 * rng.normal(size=seconds)], axis=1)
            name = f"test_{subject}/video_{clip:02d}"
            samples.append(
                Sample(
                    sample_id=name,
                    clip_id=name,
                    groups={"subject": f"test_{subject}", "clip": f"video_{clip:02d}"},
                    duration_s=float(seconds),
                    target={"valence_arousal": np.clip(np.rint(ratings), 1, 255).astype(np.float32)},
                )
            )
            names = tuple(f"C{i} alpha" for i in range(NUM_FEATURES))
            signals[name, "eeg_bands"] = Signal(data=data, rate_hz=1.0, ch_names=names)
            signals[name, "fnirs_stats"] = Signal(data=other, rate_hz=1.0, ch_names=("a", "b", "c"))
    return samples, MadeFeatures(signals)


def make_config(*overrides: str) -> RunConfig:
    """The ps configuration for a quick fold on the CPU."""
    words = ["runtime.accelerator=cpu", "runtime.progress=false", "trainer.max_epochs=4", "data.window_s=8"]
    return api.config("ps", overrides=[*words, "data.stride_s=4", "ps.target_lag_s=0", *overrides])


def make_run(folder: Path, config: RunConfig, report=None) -> FoldRun:
    """The first of three folds by subject."""
    samples, reader = make_samples(np.random.default_rng(0))
    fold = make_folds(samples, by=("subject",), num_folds=3, val_fraction=0.25, seed=0)[0]
    return FoldRun(
        track=registry.load("ps"),
        config=config,
        evaluation="signal",
        samples={sample.sample_id: sample for sample in samples},
        reader=reader,
        fold=fold,
        folder=folder,
        report=report,
    )
