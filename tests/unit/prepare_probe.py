"""Extractors for tests, and a program that prepares with them; worker processes import this file by its name.

Each extraction writes a line to the log named by PROBE_LOG, so that tests can count what was computed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mersuite.clip import Clip, Media, Signal
from mersuite.errors import DataError
from mersuite.features.base import Extractor

RATE_HZ = 1000 / 21


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    scale: float = 1.0
    seconds: float = 0.0


def note(text: str) -> None:
    if log := os.environ.get("PROBE_LOG"):
        with Path(log).open("a") as file:
            file.write(f"{text}\n")


def read(clip: Clip) -> np.ndarray:
    media = clip.media["eeg"]
    assert isinstance(media, Media)
    seed = int.from_bytes(media.path.read_bytes()[:4], "little")
    return np.random.default_rng(seed).normal(size=(200 + seed % 7, 3)).astype(np.float32)


class Alone(Extractor):
    Config = ProbeConfig
    version = 1
    inputs = ("eeg", "note?")

    def outputs(self) -> tuple[str, ...]:
        return ("alone",)

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        for clip in clips:
            note(f"alone {clip.clip_id}")
            time.sleep(self.config.seconds)
            yield clip.clip_id, {"alone": signal(read(clip) * np.float32(self.config.scale))}


class Together(Extractor):
    Config = ProbeConfig
    version = 1
    inputs = ("eeg",)
    group_by = "subject"

    def outputs(self) -> tuple[str, ...]:
        return ("centred", "mean")

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        recordings = {clip.clip_id: read(clip) for clip in clips}
        mean = np.concatenate(list(recordings.values())).mean(0, keepdims=True)
        for clip in clips:
            note(f"together {clip.clip_id}")
            time.sleep(self.config.seconds)
            vector = Signal(data=mean, rate_hz=0.0, ch_names=("a", "b", "c"))
            yield clip.clip_id, {"centred": signal(recordings[clip.clip_id] - mean), "mean": vector}


class Sometimes(Alone):
    """Gives nothing for clips whose name ends in 1."""

    def outputs(self) -> tuple[str, ...]:
        return ("sometimes",)

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        for clip in clips:
            note(f"sometimes {clip.clip_id}")
            yield clip.clip_id, {} if clip.clip_id.endswith("1") else {"sometimes": signal(read(clip))}


class Threads(Alone):
    """Gives the number of threads that libraries are told to use."""

    def outputs(self) -> tuple[str, ...]:
        return ("threads",)

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        told = np.array([[float(os.environ[f"{name}_NUM_THREADS"]) for name in ("OMP", "MKL")]], np.float32)
        for clip in clips:
            yield clip.clip_id, {"threads": Signal(data=told, rate_hz=0.0, ch_names=())}


class Failing(Alone):
    """Cannot read one clip."""

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        for clip in clips:
            if clip.clip_id == "s1/v2":
                raise DataError("the recording is flat")
            yield from super().extract([clip])


class Dying(Alone):
    """Takes its process down."""

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        os._exit(7)
        yield from ()


class Forgetful(Alone):
    """Breaks the contract: gives nothing for any clip."""

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        yield from ()


class Talkative(Alone):
    """Breaks the contract: gives a stream that it does not name."""

    def extract(self, clips: Sequence[Clip]) -> Iterator[tuple[str, Mapping[str, Signal]]]:
        for clip in clips:
            yield clip.clip_id, {"other": signal(read(clip))}


def signal(data: np.ndarray) -> Signal:
    return Signal(data=data, rate_hz=RATE_HZ, ch_names=("a", "b", "c"), unit="V")


def make_clips(folder: Path, num_subjects: int = 3, num_clips: int = 4, **media: Any) -> list[Clip]:
    """Writes small source files and gives their clips."""
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for subject in range(num_subjects):
        for index in range(num_clips):
            path = folder / f"s{subject}_v{index}.bin"
            if not path.exists():
                path.write_bytes((100 * subject + index).to_bytes(4, "little") * 8)
            clips.append(
                Clip(
                    clip_id=f"s{subject}/v{index}",
                    dataset="probe",
                    media={"eeg": Media(path=path, **media)},
                    groups={"subject": f"s{subject}", "clip": f"v{index}"},
                )
            )
    return clips


def extractors(seconds: float = 0.0) -> dict[str, Extractor]:
    return {"alone": Alone(ProbeConfig(seconds=seconds)), "together": Together(ProbeConfig(seconds=seconds))}


def main() -> None:
    """Arguments: source folder, store, workers, seconds a clip."""
    import logging

    from mersuite.prepare import prepare

    logging.basicConfig(level=logging.INFO)
    source, store, workers, seconds = sys.argv[1:]
    made = prepare(
        make_clips(Path(source)), extractors(float(seconds)), Path(store), num_workers=int(workers), progress=False
    )
    sys.stdout.write(f"computed {made.num_computed}\n")


if __name__ == "__main__":
    main()
