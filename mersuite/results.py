"""Results of a finished run: what `fit` left for ensemble, compare and report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mersuite.clip import Prediction
from mersuite.errors import DataError, did_you_mean
from mersuite.predictions import PredictionHeader, read_predictions

SELECTS = "selects on these rows"
"""Stands beside the name of a system that was chosen by the rows it is scored on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRun:
    """A finished run, as ensemble, compare and report read it; `mersuite.run_folder.RunWriter` makes it.

    Attributes:
        path: The folder.
        info: run.json: track, evaluations with their folds, versions, command, git commit, seed.
        metrics: metrics.json: evaluation name to its metrics, protocol, interval and groups.
        config: config.yaml as nested mappings; {} where it is missing.
    """

    path: Path
    info: Mapping[str, Any]
    metrics: Mapping[str, Any]
    config: Mapping[str, Any]

    @property
    def track(self) -> str:
        """Name of the track."""
        return self.info["track"]

    @property
    def main(self) -> str:
        """Name of the main evaluation: the configured system itself."""
        evaluations = self.info["evaluations"]
        return next((name for name, facts in evaluations.items() if facts.get("main")), next(iter(evaluations)))

    def oof_path(self, evaluation: str | None = None) -> Path:
        """Where the out-of-fold rows of an evaluation lie; None means the main one.

        Raises:
            DataError: If the run has no such evaluation.
        """
        if evaluation is None or evaluation == self.main:
            return self.path / "oof.jsonl"
        if evaluation not in self.info["evaluations"]:
            hint = did_you_mean(evaluation, self.info["evaluations"])
            raise DataError(f"{self.path}: the run has no evaluation {evaluation!r}; {hint}")
        return self.path / evaluation / "oof.jsonl"

    def read_oof(self, evaluation: str | None = None) -> tuple[PredictionHeader, list[Prediction]]:
        """Reads the out-of-fold rows of an evaluation.

        Raises:
            DataError: If the run has no such evaluation or its rows have no targets.
            SubmissionError: If the file is missing or malformed.
        """
        path = self.oof_path(evaluation)
        header, predictions = read_predictions(path, track=self.track)
        require_targets(path, predictions)
        return header, predictions


def read_run(path: Path) -> FinishedRun:
    """Reads what describes a run; predictions are read when asked for.

    Raises:
        DataError: If the folder is no finished run.
    """
    info = _read_json(path / "run.json")
    missing = [key for key in ("track", "evaluations") if not info.get(key)]
    if missing:
        raise DataError(f"{path / 'run.json'}: no {' and no '.join(missing)}; let `mersuite fit run.dir={path}` finish")
    return FinishedRun(path=path, info=info, metrics=_read_json(path / "metrics.json"), config=_read_config(path))


def require_targets(path: Path, predictions: list[Prediction]) -> None:
    """Checks that every row has its truth.

    Raises:
        DataError: If the file is empty or some rows have none.
    """
    without = [prediction.sample_id for prediction in predictions if not prediction.target]
    if without or not predictions:
        found = (
            f"{len(without)} of {len(predictions)} rows have no target ({', '.join(without[:3])})"
            if without
            else "no row"
        )
        raise DataError(f"{path}: {found}; need out-of-fold rows as `mersuite fit` writes them")


def _read_json(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; need the folder of a finished run (`mersuite fit run.dir={path.parent}`)"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error}); was the run killed? `run.resume=true` finishes it") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}: need a JSON object, got {type(values).__name__}")
    return values


def _read_config(path: Path) -> Mapping[str, Any]:
    from mersuite.config import read_yaml

    file = path / "config.yaml"
    return read_yaml(file) if file.is_file() else {}
