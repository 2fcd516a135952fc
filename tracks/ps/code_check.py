"""Runs a code submission as the challenge does: apart from this installation, on made-up recordings without labels."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mersuite import catalog
from mersuite.data.fake_files import write_csv, write_mat
from mersuite.errors import DataError, SubmissionError
from mersuite.track import AnswerFunction
from tracks.ps import layout
from tracks.ps.rates import BASELINE_S
from tracks.ps.rows import rows_of
from tracks.ps.runtime import SubjectFeatures, extract_streams
from tracks.ps.submission import read_table

if TYPE_CHECKING:
    from mersuite.inference import Checkpoint

SUBJECT = "private1"
EEG_RATE_HZ = 1000
FNIRS_RATE_HZ = 1000 / 21
LEAST_SECONDS = 8
TIMEOUT_S = 600
LARGEST_GAP = 1
"""Label points that a row may differ by. Why not 0: other threads add up in another order, and a half may then be
rounded to the other side."""

RUN_APART = """
import importlib.machinery, sys

folder, allowed, input_dir, output_dir = sys.argv[1], set(sys.argv[2].split(",")), sys.argv[3], sys.argv[4]


class Wall:
    @staticmethod
    def find_spec(name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ("mersuite", "tracks", "model"):
            places = [item for item in (sys.path if path is None else path) if item.startswith(folder)]
            found = importlib.machinery.PathFinder.find_spec(name, places)
            if found is None:
                raise ModuleNotFoundError(f"the zip does not hold {name}", name=name)
            return found
        if top in sys.stdlib_module_names or top.startswith("_sysconfigdata") or top in allowed:
            return None
        raise ModuleNotFoundError(f"{top} is not among the packages of the challenge's machine", name=name)


sys.meta_path.insert(0, Wall)
sys.path.insert(0, folder)
import model

model.predict(input_dir, output_dir)
"""
"""Runs model.py with every third-party import refused but numpy, scipy, torch and their own needs, and without the
installed mersuite and tracks."""


def check_submission(archive: Path, checkpoints: Sequence[Checkpoint], answer: AnswerFunction) -> int:
    """Unpacks the zip, runs it on a made-up person and compares its rows with this program's own.

    Why a run and not a look at imports alone: an import inside a function, a file left out and weights that do not fit
    show only then.

    Returns:
        Number of rows compared.

    Raises:
        SubmissionError: If it does not run or answers otherwise.
    """
    with tempfile.TemporaryDirectory(prefix="mersuite_check_") as place:
        root = Path(place).resolve()
        folder, input_dir, output_dir = root / "submission", root / "input", root / "output"
        with zipfile.ZipFile(archive) as file:
            file.extractall(folder)
        write_made_up_input(input_dir, _seconds(checkpoints))
        try:
            expected = expected_rows(checkpoints, input_dir, answer)
        except DataError as error:
            raise SubmissionError(
                f"export: the run does not answer recordings in the challenge's layout: {error}"
            ) from error
        run_apart(folder, input_dir, output_dir)
        found = read_table(output_dir / "predictions.csv")
    wanted = {name: (valence, arousal) for name, valence, arousal in expected}
    if list(found) != list(wanted):
        raise SubmissionError(f"export: the zip gave {len(found)} rows, {len(wanted)} were asked for")
    gap = max(abs(a - b) for name in wanted for a, b in zip(found[name], wanted[name], strict=True))
    if gap > LARGEST_GAP:
        raise SubmissionError(f"export: rows of the zip and of `mersuite predict` differ by up to {gap:g} label points")
    return len(wanted)


def _seconds(checkpoints: Sequence[Checkpoint]) -> int:
    windows_s = [item.config.data.window_s or 0.0 for item in checkpoints]
    return max(LEAST_SECONDS, math.ceil(max(windows_s)) + 1)


def write_made_up_input(root: Path, num_seconds: int) -> None:
    """Writes what the challenge hands to predict: ids and recordings of one person and clip, noise all of them.

    Args:
        root: The input folder.
        num_seconds: Length of the clip.
    """
    rng = np.random.default_rng(0)
    for name, seconds in (("videos", num_seconds), ("baselines", BASELINE_S)):
        num_eeg, num_fnirs = round(seconds * EEG_RATE_HZ), math.ceil(seconds * FNIRS_RATE_HZ)
        shared = rng.normal(size=num_eeg)
        eeg = 1e-5 * (shared + rng.normal(size=(len(layout.EEG_CH_NAMES), num_eeg)))
        fnirs = 1e-6 * rng.normal(size=(len(layout.FNIRS_KINDS), layout.NUM_FNIRS_CHANNELS, num_fnirs))
        write_mat(root / "data" / SUBJECT / f"EEG_{name}.mat", [("video_1", eeg)])
        write_mat(root / "data" / SUBJECT / f"fNIRS_{name}.mat", [("video_1", fnirs)])
    sample_id = layout.sample_id_of(SUBJECT, 1)
    rows = [(layout.row_id(sample_id, second),) for second in range(num_seconds)]
    write_csv(root / "sample_ids.csv", ["sample_id"], rows)


def expected_rows(
    checkpoints: Sequence[Checkpoint], input_dir: Path, answer: AnswerFunction
) -> list[tuple[str, int, int]]:
    """Gives the rows that `mersuite predict` answers for an input folder, on the CPU.

    Raises:
        DataError: If the checkpoints do not fit the recordings.
    """
    ids = layout.read_sample_ids(input_dir / "sample_ids.csv")
    clips, samples = layout.read_inputs(input_dir, ids)
    first = checkpoints[0]
    parts = first.config.features.values()
    streams = {name for part in parts for name in catalog.find("extractor", part.name)(part.config).outputs()}
    features = SubjectFeatures(extract_streams(first.config, clips, streams))
    on_cpu = [
        replace(item, config=replace(item.config, runtime=replace(item.config.runtime, accelerator="cpu")))
        for item in checkpoints
    ]
    answers = {item.sample_id: item.answer for item in answer(on_cpu, samples, features)}
    return rows_of(answers, ids)


def run_apart(folder: Path, input_dir: Path, output_dir: Path) -> None:
    """Runs an unpacked submission in a process of its own, with only what the challenge's machine has.

    Raises:
        SubmissionError: If it fails or does not end.
    """
    import torch

    command = [sys.executable, "-I", "-B", "-c", RUN_APART, str(folder), ",".join(installed_there())]
    threads = str(torch.get_num_threads())
    try:
        done = subprocess.run(
            [*command, str(input_dir), str(output_dir)],
            cwd=folder.parent,
            env={**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise SubmissionError(f"export: the zip did not answer a made-up clip within {TIMEOUT_S} s") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise SubmissionError(f"export: the zip does not run apart from this installation: {lines[-1]}")


def installed_there() -> list[str]:
    """Gives the import names of numpy, scipy, torch and everything that they need."""
    imports: dict[str, list[str]] = {}
    for name, owners in metadata.packages_distributions().items():
        for owner in owners:
            imports.setdefault(_normal(owner), []).append(name)
    found: dict[str, None] = {}
    queue = ["numpy", "scipy", "torch"]
    while queue:
        owner = queue.pop()
        if owner not in found:
            found[owner] = None
            queue += _needs(owner)
    return sorted({name for owner in found for name in imports.get(owner, [owner])})


def _needs(owner: str) -> Iterable[str]:
    try:
        lines = metadata.requires(owner) or []
    except metadata.PackageNotFoundError:
        return []
    names = [re.match(r"[\w.-]+", line) for line in lines if "extra ==" not in line]
    return [_normal(match[0]) for match in names if match]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
