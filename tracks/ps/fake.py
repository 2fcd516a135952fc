"""Writes small made-up data in the layout of MER-PS, with a known effect and its optimal errors beside it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mersuite.data import fake_files
from mersuite.errors import DataError
from mersuite.progress import Advance, progress_bars
from mersuite.schema import plain, require
from tracks.ps import fake_effect, layout
from tracks.ps.fake_effect import Clips
from tracks.ps.fake_signals import FNIRS_RATE_HZ, Carrier, Person, PinkCarrier, draw_person, make_eeg, make_fnirs
from tracks.ps.layout import NUM_FNIRS_CHANNELS, RESERVATIONS_FILE
from tracks.ps.rates import BASELINE_S, EEG_RATES_HZ

PARENT_EMOTIONS = (0, 3, 2, 1, 4, 3, 1, 4, 2, 0, 2, 0, 3, 4, 1)
WRITING = "write recordings"
_BYTES_PER_VALUE = 2.5
"""What a double of the made-up signals takes on disk; measured, rounded up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeConfig:
    """Options of `mersuite fake track=ps`.

    Attributes:
        num_subjects: Training subjects (test_1, ...).
        num_leaderboard_subjects: Leaderboard subjects (predict1, ...).
        num_clips: Film clips that everybody sees.
        min_clip_s: Shortest clip in seconds.
        max_clip_s: Longest clip in seconds; lengths are unequal as far as the range allows.
        rate_hz: EEG sampling rate; one of the known ones.
        snr: Variance of a person's own rating over variance of the noise in what the signals carry; 0 means that the
            signals know nothing of the ratings.
        clip_strength: Standard deviation, in label points, of the part of the ratings that a clip has in common.
        own_strength: Standard deviation, in label points, of each person's own part.
        label_mean: Mean valence and arousal. Why not 128: the constant and the training median must differ.
        onset_points: Label points by which ratings lie lower when a clip begins; they come up over some 10 s. Why: a
            system that finds out the time from signals of noise (snr=0) then shows by beating the median.
        label_lag_s: Whole seconds by which ratings follow the signals.
        signals: Folder of real recordings to use as carrier instead of synthetic noise.
        seed: Everything that is random follows from it.
    """

    num_subjects: int = 6
    num_leaderboard_subjects: int = 2
    num_clips: int = 5
    min_clip_s: int = 12
    max_clip_s: int = 24
    rate_hz: float = 1000.0
    snr: float = 1.0
    clip_strength: float = 40.0
    own_strength: float = 32.0
    label_mean: tuple[float, float] = (105.0, 150.0)
    onset_points: float = 0.0
    label_lag_s: int = 0
    signals: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require(self.num_subjects >= 1, f"num_subjects: need 1 or more, got {self.num_subjects}")
        require(
            self.num_leaderboard_subjects >= 0,
            f"num_leaderboard_subjects: need 0 or more, got {self.num_leaderboard_subjects}",
        )
        require(1 <= self.num_clips <= 99, f"num_clips: need 1 to 99, got {self.num_clips}")
        require(
            4 <= self.min_clip_s <= self.max_clip_s <= 999,
            f"min_clip_s, max_clip_s: need 4 <= min <= max <= 999, got {self.min_clip_s} and {self.max_clip_s}",
        )
        known = ", ".join(f"{rate:g}" for rate in EEG_RATES_HZ)
        require(self.rate_hz in EEG_RATES_HZ, f"rate_hz: need one of {known}, got {self.rate_hz:g}")
        require(0 <= self.snr < float("inf"), f"snr: need 0 or more, got {self.snr}")
        require(self.clip_strength >= 0 and self.own_strength >= 0, "clip_strength, own_strength: need 0 or more")
        require(all(1 <= mean <= 255 for mean in self.label_mean), f"label_mean: need 1 to 255, got {self.label_mean}")
        require(0 <= self.onset_points <= 127, f"onset_points: need 0 to 127, got {self.onset_points}")
        require(0 <= self.label_lag_s <= 30, f"label_lag_s: need 0 to 30 s, got {self.label_lag_s}")
        require(self.seed >= 0, f"seed: need 0 or more, got {self.seed}")


def write_fake(config: FakeConfig, out: Path) -> Mapping[str, Any]:
    """Writes made-up MER-PS data, or what is missing of it after an interruption.

    Beside the organisers' files it writes bayes.json (the optimal error of each system) and fake.json (the options).

    Args:
        config: Sizes, strengths, seed.
        out: A new or empty folder, or one that an earlier call with the same options made.

    Returns:
        Counts, size on disk, and the optimal errors under "bayes".

    Raises:
        DataError: If the folder holds something else, the disk is too small, or `signals` holds no recording.
    """
    out = Path(out)
    carrier = _carrier(config)
    clips = fake_effect.draw_clips(config)
    subjects = [f"test_{n + 1}" for n in range(config.num_subjects)]
    leaderboard = [f"predict{n + 1}" for n in range(config.num_leaderboard_subjects)]
    _check_disk(config, clips, out)
    fake_files.claim_folder(out, "ps", plain(config))
    trials = {name: _draw_subject(config, clips, name) for name in (*subjects, *leaderboard)}
    num_threads, num_files = min(os.cpu_count() or 1, 8), len(trials) * len(layout.STREAM_FILES)
    # numpy, FFT and zlib free the GIL
    with ThreadPoolExecutor(max_workers=num_threads) as pool, progress_bars({WRITING: num_files}) as advance:
        list(pool.map(lambda name: _write_subject(config, out, name, trials[name], carrier, advance), trials))
    _write_tables(config, out, trials)
    if leaderboard:
        _write_leaderboard(out, {name: trials[name] for name in leaderboard})
    errors = fake_effect.bayes_errors(config, clips)
    document = {**errors, "model": fake_effect.describe(config)}
    fake_files.write_text(out / "bayes.json", json.dumps(document, indent=1) + "\n")
    return {
        "out": str(out),
        "num_subjects": len(subjects),
        "num_leaderboard_subjects": len(leaderboard),
        "num_clips": config.num_clips,
        "num_seconds": sum(len(ratings) for subject in trials.values() for ratings, _ in subject.trials),
        "size_bytes": sum(path.stat().st_size for path in out.rglob("*") if path.is_file()),
        "bayes": {name: round(float(values["mae"]), 2) for name, values in errors.items()},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """One person: fixed traits, ratings and latent of each clip, and the seed of the signals."""

    person: Person
    trials: list[tuple[np.ndarray, np.ndarray]]
    seed: tuple[int, ...]


def _draw_subject(config: FakeConfig, clips: Clips, name: str) -> _Subject:
    kind = 3 if name.startswith("predict") else 2
    seed = (config.seed, kind, int(name.removeprefix("predict").removeprefix("test_")))
    rng = np.random.default_rng(seed)
    trials = [fake_effect.draw_trial(config, clips, clip, rng) for clip in range(config.num_clips)]
    return _Subject(person=draw_person(rng), trials=trials, seed=seed)


def _write_subject(
    config: FakeConfig, out: Path, name: str, subject: _Subject, carrier: Carrier, advance: Advance
) -> None:
    for stream, file_name in layout.STREAM_FILES.items():
        path = out / "data" / name / file_name
        if not path.is_file():
            fake_files.write_mat(path, _signals(config, stream, subject, carrier))
        advance(WRITING, 1)
    ratings = [trial[0].astype(np.float64) for trial in subject.trials]
    if subject.seed[-1] % 2:  # both orientations are reported of the real files
        ratings = [array.T for array in ratings]
    path = out / "annotations" / f"{name}_label.mat"
    fake_files.write_mat(path, ((f"video_{clip + 1}", array) for clip, array in enumerate(ratings)))


def _signals(config: FakeConfig, stream: str, subject: _Subject, carrier: Carrier) -> Iterator[tuple[str, np.ndarray]]:
    for clip, (ratings, latent) in enumerate(subject.trials):
        rng = np.random.default_rng((*subject.seed, clip, list(layout.STREAM_FILES).index(stream)))
        baseline = stream.endswith("_baseline")
        shown, length_s = (None, BASELINE_S) if baseline else (latent, float(len(ratings)))
        if stream.startswith("eeg"):
            array = make_eeg(shown, length_s, config.rate_hz, subject.person, carrier, rng)
        else:
            array = make_fnirs(shown, length_s, subject.person, carrier, rng)
        yield f"video_{clip + 1}", array


def _write_leaderboard(out: Path, trials: Mapping[str, _Subject]) -> None:
    """sample_ids.csv and targets.csv; like the real ones, one row short: the last second of the last trial."""
    rows = [
        (layout.row_id(layout.sample_id_of(name, clip + 1), second), int(valence), int(arousal))
        for name, subject in trials.items()
        for clip, (ratings, _) in enumerate(subject.trials)
        for second, (valence, arousal) in enumerate(ratings)
    ][:-1]
    fake_files.write_csv(out / "sample_ids.csv", ["sample_id"], ([row[0]] for row in rows))
    fake_files.write_csv(out / "targets.csv", ["sample_id", "valence", "arousal"], rows)


def _write_tables(config: FakeConfig, out: Path, trials: Mapping[str, _Subject]) -> None:
    """The organisers' small files."""
    rng = np.random.default_rng([config.seed, 4])
    channels = range(1, NUM_FNIRS_CHANNELS + 1)
    kept = [(name, *subject.person.kept.astype(int)) for name, subject in trials.items()]
    fake_files.write_csv(out / RESERVATIONS_FILE, ["sub_id", *(f"ch-{n}" for n in channels)], kept)
    places = np.round(rng.normal(0, 60, (NUM_FNIRS_CHANNELS, 3)), 2)
    optodes = [(n, *places[n - 1], (n - 1) // 3 + 1, (n - 1) % 16 + 1) for n in channels]
    fake_files.write_csv(out / "fNIRS_coordinates.csv", ["Channel", "X", "Y", "Z", "Source", "Detector"], optodes)
    scales = ("Valence", "Arousal", "Dominance", "Familiarity")
    header = [f"Video_{clip + 1}_{scale}" for clip in range(config.num_clips) for scale in scales]
    people = [name for name in trials if name.startswith("test_")]
    scores = []
    for name in people:
        means = [np.rint(1 + 8 * (ratings.mean(axis=0) - 1) / 254).astype(int) for ratings, _ in trials[name].trials]
        scores.append((name, *(value for mean in means for value in (*mean, *rng.integers(1, 10, 2)))))
    fake_files.write_csv(out / "SAM_score.csv", ["sub_id", *header], scores)
    fake_files.write_csv(
        out / "PANAS_score.csv", ["sub_id", "PA", "NA"], [(name, *rng.integers(10, 51, 2)) for name in people]
    )
    fake_files.write_csv(
        out / "Metadata.csv",
        ["sub_id", "Age", "Gender"],
        [(n, rng.integers(18, 31), rng.choice(["F", "M"])) for n in people],
    )
    emotions = [str(PARENT_EMOTIONS[clip % len(PARENT_EMOTIONS)]) for clip in range(config.num_clips)]
    fake_files.write_text(out / "Targeted_emotions.txt", " ".join(emotions) + ";\n")
    fake_files.write_text(out / "README.md", _README)


_README = """# Made-up data in the layout of MER-PS

Nobody was recorded for this folder: `mersuite fake track=ps` wrote it. Signals and ratings follow a known model with
the options in fake.json; bayes.json holds the optimal error of each system. Never report scores on it as results.
"""


def _carrier(config: FakeConfig) -> Carrier:
    synthetic = PinkCarrier(max_s=float(max(config.max_clip_s, BASELINE_S)))
    if config.signals is None:
        return synthetic
    from tracks.ps.fake_recorded import read_carrier

    return read_carrier(config.signals, config.rate_hz, synthetic)


def _check_disk(config: FakeConfig, clips: Clips, out: Path) -> None:
    seconds = sum(clips.lengths_s) + config.num_clips * BASELINE_S
    per_second = len(layout.EEG_CH_NAMES) * config.rate_hz + len(layout.FNIRS_CH_NAMES) * FNIRS_RATE_HZ
    people = config.num_subjects + config.num_leaderboard_subjects
    needed = _BYTES_PER_VALUE * people * seconds * per_second
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free and not (out / fake_files.MARKER).is_file():
        raise DataError(f"out={out}: need about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; make it smaller")
