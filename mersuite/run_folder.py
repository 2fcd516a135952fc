"""The run folder while it is written: what a run consists of, what is done, and what may be resumed."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from mersuite.clip import Sample
from mersuite.config import DATA_PLACES, RunConfig, read_yaml, to_plain
from mersuite.errors import ConfigError, MersuiteError
from mersuite.provenance import command, git_commit, versions, without_password

_NOT_COMPARED = ("run", "runtime", "store", "sweep", "evaluate")
_ROWS = "rows.json"


def is_first_process() -> bool:
    """Whether this process may write: the only one, or rank 0 of several."""
    for name in ("RANK", "SLURM_PROCID"):
        if name in os.environ:
            return os.environ[name] == "0"
    return os.environ.get("LOCAL_RANK", "0") == "0" and os.environ.get("NODE_RANK", "0") == "0"


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all; processes other than the first write nothing."""
    if not is_first_process():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def write_json(path: Path, value: Any) -> None:
    """Writes JSON whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunWriter:
    """A run that is being made; what reads it afterwards is `mersuite.results.FinishedRun`.

    Attributes:
        path: Its folder.
    """

    path: Path

    def evaluation_folder(self, name: str, *, is_main: bool) -> Path:
        """Folder of an evaluation's folds and out-of-fold file: the run folder itself for the main one."""
        return self.path if is_main else self.path / name

    def fold_folder(self, name: str, index: int, *, is_main: bool) -> Path:
        """Folder of one fold's checkpoints."""
        return self.evaluation_folder(name, is_main=is_main) / f"fold_{index}"

    def relative(self, path: Path) -> str:
        """A path as run.json holds it, so that the folder can be moved."""
        return path.relative_to(self.path).as_posix()


def comparable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Gives the plain configuration without what decides no number: places, workers, storage, choice of evaluations."""
    kept = {key: value for key, value in values.items() if key not in _NOT_COMPARED}
    kept["data"] = {key: value for key, value in kept.get("data", {}).items() if key not in DATA_PLACES}
    return kept


def differences(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "") -> list[str]:
    """Lists what differs between two nested mappings, a dotted key a line.

    >>> differences({"a": {"b": 1}, "c": 2}, {"a": {"b": 3}, "c": 2})
    ['a.b: 1 before, 3 now']
    """
    lines = []
    for key in sorted({*old, *new}):
        before, now = old.get(key), new.get(key)
        name = f"{where}.{key}" if where else str(key)
        if isinstance(before, Mapping) and isinstance(now, Mapping):
            lines += differences(before, now, name)
        elif before != now:
            lines.append(f"{name}: {before!r} before, {now!r} now")
    return lines


def open_run(config: RunConfig, *, pretraining: bool = False) -> RunWriter:
    """Starts a run folder, or goes on with one when run.resume is set.

    Args:
        config: run.* says where; the rest is kept in config.yaml.
        pretraining: Whether the run pretrains encoders instead of evaluating systems.

    Raises:
        ConfigError: If the folder holds a run and run.resume is not set, it was made with another configuration or by
            a run of the other kind, or it holds something else.
    """
    path = config.run.dir
    if path is None:
        raise ConfigError("run.dir: no folder for the run given; add run.dir=DIR")
    if path.exists() and not path.is_dir():
        raise ConfigError(f"run.dir: {path} is a file; choose another folder")
    values = to_plain(config)
    values["sweep"]["storage"] = without_password(config.sweep.storage or "") or None
    kept = path / "config.yaml"
    if kept.is_file() and is_first_process():
        if not config.run.resume:
            raise ConfigError(
                f"run.dir: {path} already holds a run; go on with it by run.resume=true or choose another folder"
            )
        changed = differences(comparable(read_yaml(kept)), comparable(values))
        if changed:
            listed = "\n  ".join(changed)
            raise ConfigError(
                f"run.dir: {path} was made with another configuration; choose another folder:\n  {listed}"
            )
        _check_kind(path, pretraining)
    elif path.is_dir() and any(item != _partial(kept) for item in path.iterdir()) and is_first_process():
        raise ConfigError(f"run.dir: {path} is not empty and holds no run; choose another folder")
    write_text(kept, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
    return RunWriter(path=path)


@contextlib.contextmanager
def started_run(config: RunConfig, *, pretraining: bool = False) -> Iterator[RunWriter]:
    """Opens a run for a block of work; takes the folder back where a user's mistake ends it before anything was done.

    Why: the corrected command may then use the same run.dir.

    Raises:
        ConfigError: As open_run does.
    """
    path = config.run.dir
    is_new = path is not None and not (path / "config.yaml").exists()
    folder = open_run(config, pretraining=pretraining)
    try:
        yield folder
    except MersuiteError:
        if is_new and is_first_process() and [item.name for item in folder.path.iterdir()] == ["config.yaml"]:
            (folder.path / "config.yaml").unlink()
            folder.path.rmdir()
        raise


def _check_kind(path: Path, pretraining: bool) -> None:
    """Refuses to go on with a run of the other kind; a folder with nothing but its configuration may become either."""
    names = {item.name for item in path.iterdir() if not item.name.startswith(".")}
    if names == {"config.yaml"}:
        return
    held = "pretraining" in read_run_json(path) if "run.json" in names else _ROWS in names
    if held != pretraining:
        kinds = ("a run that evaluates systems", "a run of pretraining")
        raise ConfigError(
            f"run.dir: {path} holds {kinds[held]}, and this would be {kinds[pretraining]}; choose another folder"
        )


def claim_folder(folder: Path, data: Mapping[str, str]) -> None:
    """Notes in a folder what it is made from, or makes sure that this is what was noted there.

    Why: places are no part of what a resumed run compares, and with other people in the data the same fold holds out
    other rows. Finished folds would then be scored on people that the others were trained on.

    Args:
        folder: Of one fold, or of pretraining.
        data: What it is called in messages, to its digest.

    Raises:
        ConfigError: If something differs.
    """
    noted = folder / _ROWS
    if not noted.is_file():
        write_json(noted, data)
        return
    before = json.loads(noted.read_text(encoding="utf-8"))
    changed = [name for name, digest in data.items() if before.get(name) != digest]
    if changed:
        raise ConfigError(
            f"run.dir: {folder} was made with other {' and '.join(changed)} than the data have now; "
            "give data.root of the data that the run began with, or choose another run.dir"
        )


def samples_digest(samples: Sequence[Sample]) -> str:
    """Gives a digest of ids, weights and targets."""
    found = hashlib.sha256()
    for sample in samples:
        found.update(repr((sample.sample_id, sample.weight)).encode())
        for name, array in sorted(sample.target.items()):
            found.update(repr((name, array.shape, array.dtype.str)).encode())
            found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def write_run_json(
    run: RunWriter,
    config: RunConfig,
    evaluations: Mapping[str, Mapping[str, Any]],
    *,
    pretraining: Mapping[str, Any] | None = None,
) -> None:
    """Writes run.json: evaluations with folds and checkpoints, or whose recordings pretraining used; versions, command.

    Args:
        run: The run.
        config: Its configuration.
        evaluations: By name; empty for pretraining.
        pretraining: What pretraining says of itself; None for other runs.
    """
    write_json(
        run.path / "run.json",
        {
            "track": config.track,
            "seed": config.seed,
            "evaluations": evaluations,
            **({} if pretraining is None else {"pretraining": pretraining}),
            "versions": versions(),
            "git_commit": git_commit(),
            "command": command(),
        },
    )


def read_run_json(path: Path) -> dict[str, Any]:
    """Reads a run folder's run.json.

    Raises:
        ConfigError: If the folder holds no run, none of its folds is finished, or the file is damaged.
    """
    file = path / "run.json"
    if not file.is_file():
        raise ConfigError(
            f"{path} is no run folder with a finished fold (there is no run.json); make one with `mersuite fit`"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(
            f"{file} is damaged ({error}); resume the run with run.resume=true to write it anew"
        ) from error
    if not isinstance(content, dict) or not isinstance(content.get("evaluations"), dict):
        raise ConfigError(f"{file} is not what `mersuite fit` writes; expected a mapping with evaluations")
    return content


def read_before(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Gives the evaluations of run.json, begun or finished, and the metrics of the finished ones.

    Files that are missing or damaged count as empty: the run makes them anew.
    """
    evaluations: dict[str, Any] = {}
    metrics: dict[str, Any] = {}
    with contextlib.suppress(ConfigError, OSError, ValueError):
        evaluations = read_run_json(path)["evaluations"]
        metrics = json.loads((path / "metrics.json").read_text(encoding="utf-8"))
    return evaluations, metrics


def read_curve(path: Path) -> list[dict[str, str]]:
    """Reads a fold's curve.csv (epoch, step, metric, value); [] where there is none."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def collect_curves(run: RunWriter, evaluations: Mapping[str, Mapping[str, Any]]) -> None:
    """Joins the learning curves of all folds into metrics.csv: evaluation, fold, epoch, step, metric, value."""
    lines = ["evaluation,fold,epoch,step,metric,value"]
    for name, evaluation in evaluations.items():
        for fold in evaluation["folds"]:
            rows: Sequence[Mapping[str, str]] = read_curve((run.path / fold["checkpoint"]).parent / "curve.csv")
            lines += [f"{name},{fold['index']},{r['epoch']},{r['step']},{r['metric']},{r['value']}" for r in rows]
    write_text(run.path / "metrics.csv", "\n".join(lines) + "\n")
