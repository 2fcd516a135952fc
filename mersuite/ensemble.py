"""One system from several: weights fitted on out-of-fold rows, raw outputs averaged, then decoded by the track."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mersuite import registry
from mersuite.clip import Output, Prediction, Sample, WindowKey
from mersuite.config import RunConfig, build_run_config, load_run_config
from mersuite.errors import DataError, SubmissionError
from mersuite.predictions import PredictionHeader, read_predictions, write_predictions
from mersuite.results import read_run, require_targets
from mersuite.tables import average_outputs, check_same_ids
from mersuite.track import Track
from mersuite.weights import fit_weights

Score = Callable[[np.ndarray], float]
NUM_CHECK_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """Joined predictions and how they came about.

    Attributes:
        header: Header of the joined file; its members name file, run, evaluation and weight.
        predictions: One a sample.
        weights: One a member, sum 1.
        how: One sentence on how the weights were found.
        scores: Monitor metric on out-of-fold rows: one a member by its file name, "equal" for equal weights, "fitted"
            for weights fitted on other groups than those they are scored on; {} without out-of-fold rows.
    """

    header: PredictionHeader
    predictions: tuple[Prediction, ...]
    weights: tuple[float, ...]
    how: str
    scores: Mapping[str, float]


def ensemble(
    track: Track,
    config: RunConfig,
    members: Sequence[Path],
    *,
    oof: Sequence[Path] | None = None,
    top: int | None = None,
) -> Ensemble:
    """Joins prediction files of one track.

    Weights come from out-of-fold rows: fitted on all of them for use, and fitted on all groups but one part to see what
    they are worth. Where fitted weights do not beat equal ones on groups they were not fitted on, equal ones are used.
    Why: a handful of people leaves much room for weights that fit noise.

    Args:
        track: The track.
        config: Configuration to decode with, such as the first member's.
        members: Prediction files of the same samples.
        oof: Out-of-fold files, one a member in the same order; None looks in the run that each member's header names.
        top: Keep only so many members, those that are best on out-of-fold rows; None keeps all.

    Raises:
        SubmissionError: If a file is malformed, of another track, or holds no output that can be averaged.
        DataError: If there are fewer than two members, members do not fit each other, or top asks for more members than
            there are, or for out-of-fold rows that are not there.
    """
    if len(members) < 2:
        raise DataError(f"ensemble: need at least two prediction files, got {len(members)}; give pred=A.jsonl,B.jsonl")
    if oof is not None and len(oof) != len(members):
        raise DataError(f"ensemble: {len(members)} members need as many out-of-fold files, got {len(oof)}")
    files = [read_predictions(path, track.name) for path in members]
    _check_fit(members, [predictions for _, predictions in files])
    paths, reason = (list(oof), "") if oof is not None else _find_oof(members, [header for header, _ in files])
    selects = [header.traits.get("selects_on_reported", False) is True for header, _ in files]
    if any(selects) and not all(selects):
        one, other = members[selects.index(True)], members[selects.index(False)]
        reason = f"{one} was chosen by its out-of-fold rows and {other} was not, so that scores on them do not compare"
        paths = []
    chosen = ""
    if top is not None:
        kept = _best(track, config, members, paths, top, reason)
        chosen = f"the best {top} of {len(members)} members by {track.monitor} on the same out-of-fold rows; "
        members, files, paths = [members[i] for i in kept], [files[i] for i in kept], [paths[i] for i in kept]
    if paths:
        weights, scores, how = _fit(track, config, members, paths)
    else:
        weights, scores, how = [1.0 / len(members)] * len(members), {}, f"equal weights: {reason}"
    joined = average_outputs([_outputs(predictions) for _, predictions in files], weights)
    predictions = tuple(
        replace(
            prediction, outputs=joined[prediction.sample_id].values, answer=_decode(track, config, prediction, joined)
        )
        for prediction in files[0][1]
    )
    how = (
        chosen + how + ("; every member was chosen by these rows, on which scores are too high" if all(selects) else "")
    )
    header = _header([header for header, _ in files], members, weights, how)
    return Ensemble(header=header, predictions=predictions, weights=tuple(weights), how=how, scores=scores)


def ensemble_files(
    pred: Sequence[Path],
    *,
    out: Path,
    oof: Sequence[Path] | None = None,
    track: str | None = None,
    top: int | None = None,
) -> dict[str, Any]:
    """Joins prediction files into one and gives what was done, in JSON types.

    The configuration to decode with is that of the first member's run, or the track's own where that run is gone.

    Args:
        pred: Prediction files of one split of one track.
        out: Prediction file to write.
        oof: Out-of-fold files, one a member in the same order; None finds them through each file's run.
        track: The track that the files must be of; None takes that of the first one.
        top: Keep only so many members, those that are best on out-of-fold rows; None keeps all.

    Raises:
        SubmissionError: If a file is malformed, of another track, or holds no output that can be averaged.
        DataError: If there are fewer than two members, or members do not fit each other.
    """
    if not pred:
        raise DataError("ensemble: need at least two prediction files, got none; give pred=A.jsonl,B.jsonl")
    header, _ = read_predictions(pred[0], track)
    loaded = registry.load(header.track)
    place = _run_of(pred[0], header)
    values = dict(read_run(place).config) if place is not None else {}
    values.pop("track", None)
    config = (
        build_run_config(values, loaded.name, loaded.Config)
        if values
        else load_run_config(loaded.name, loaded.Config, registry.folder(loaded.name))
    )
    result = ensemble(loaded, config, pred, oof=oof, top=top)
    write_predictions(out, result.header, result.predictions)
    return {
        "out": str(out),
        "num_samples": len(result.predictions),
        "members": [dict(member) for member in result.header.members],
        "how": result.how,
        "scores": dict(result.scores),
    }


def _oof_tables(track: Track, paths: Sequence[Path]) -> list[list[Prediction]]:
    tables = []
    for path in paths:
        _, predictions = read_predictions(path, track.name)
        require_targets(path, predictions)
        tables.append(predictions)
    _check_fit(paths, tables)
    return tables


def _best(
    track: Track, config: RunConfig, members: Sequence[Path], paths: Sequence[Path], top: int, reason: str
) -> list[int]:
    """Gives the places of the best members, in the order given."""
    if not 2 <= top <= len(members):
        raise DataError(f"top: need 2 to {len(members)}, the number of prediction files, got {top}")
    if not paths:
        raise DataError(f"top: members are chosen by their out-of-fold rows, but {reason}; give oof=A.jsonl,B.jsonl")
    tables = _oof_tables(track, paths)
    problem, rows = _Problem(track, config, tables), np.arange(len(tables[0]))
    sign = 1.0 if track.monitor_mode == "min" else -1.0
    scores = [sign * problem.score(one, rows) for one in np.eye(len(members))]
    return sorted(sorted(range(len(members)), key=lambda index: scores[index])[:top])


def _fit(
    track: Track, config: RunConfig, members: Sequence[Path], paths: Sequence[Path]
) -> tuple[list[float], dict[str, float], str]:
    tables = _oof_tables(track, paths)
    sign = 1.0 if track.monitor_mode == "min" else -1.0
    problem = _Problem(track, config, tables)
    rows = np.arange(len(tables[0]))
    equal = np.full(len(members), 1.0 / len(members))
    scores = {str(path): problem.score(np.eye(len(members))[index], rows) for index, path in enumerate(members)}
    scores["equal"] = problem.score(equal, rows)
    cross_fitted = problem.cross_fitted_score()
    if cross_fitted is None:
        return equal.tolist(), scores, f"equal weights: all out-of-fold rows are of one {problem.by}"
    scores["fitted"] = cross_fitted
    measured = (
        f"{track.monitor} on {len(rows)} out-of-fold samples: {cross_fitted:.4g} with weights fitted on other "
        f"{problem.by} groups, {scores['equal']:.4g} with equal weights"
    )
    if sign * cross_fitted >= sign * scores["equal"]:
        return equal.tolist(), scores, f"equal weights, because fitted ones are no better: {measured}"
    weights = fit_weights(problem.cost(rows), len(members))
    return weights.tolist(), scores, f"fitted weights: {measured}"


class _Problem:
    """Scores of weighted members on chosen rows of the out-of-fold table."""

    def __init__(self, track: Track, config: RunConfig, tables: Sequence[Sequence[Prediction]]) -> None:
        self.track, self.config, self.by = track, config, track.resampled_by(config)
        by_id = [{prediction.sample_id: prediction for prediction in table} for table in tables]
        self.samples = [sample_of(prediction, track) for prediction in tables[0]]
        self.truths = [track.answer_of(sample) for sample in self.samples]
        self.stacks = [
            {
                name: np.stack(
                    [np.asarray(member[sample.sample_id].outputs[name], dtype=np.float64) for member in by_id]
                )
                for name in by_id[0][sample.sample_id].outputs
            }
            for sample in self.samples
        ]

    def score(self, weights: np.ndarray, rows: np.ndarray) -> float:
        answers = [self._answer(weights, int(row)) for row in rows]
        return float(self.track.metrics(answers, [self.truths[row] for row in rows])[self.track.monitor])

    def cross_fitted_score(self) -> float | None:
        """Gives the score of all rows, each answered with weights fitted on other groups; None with fewer than two."""
        names = [sample.groups.get(self.by, sample.sample_id) for sample in self.samples]
        part_of = {name: index % NUM_CHECK_FOLDS for index, name in enumerate(sorted(set(names)))}
        if len(part_of) < 2:
            return None
        parts = np.array([part_of[name] for name in names])
        num_members = len(next(iter(self.stacks[0].values())))
        answers: dict[int, Any] = {}
        for part in sorted(set(part_of.values())):
            weights = fit_weights(self.cost(np.flatnonzero(parts != part)), num_members)
            answers.update({int(row): self._answer(weights, int(row)) for row in np.flatnonzero(parts == part)})
        return float(self.track.metrics([answers[row] for row in range(len(names))], self.truths)[self.track.monitor])

    def cost(self, rows: np.ndarray) -> Score:
        """Gives weights -> score on those rows, turned so that lower is better."""
        sign = 1.0 if self.track.monitor_mode == "min" else -1.0
        return lambda weights: sign * self.score(weights, rows)

    def _answer(self, weights: np.ndarray, row: int) -> Any:
        values = {
            name: np.einsum("m,m...->...", weights, stack).astype(np.float32)
            for name, stack in self.stacks[row].items()
        }
        sample = self.samples[row]
        key = WindowKey(sample.sample_id, 0.0, sample.duration_s or 0.0)
        answer = self.track.decode(self.config, sample, Output(key=key, values=values))
        # Why arrays where the truth is one: tens of thousands of small lists keep the garbage collector busy.
        return np.asarray(answer) if isinstance(self.truths[row], np.ndarray) else answer


def sample_of(prediction: Prediction, track: Track) -> Sample:
    """Gives the sample that a prediction is of, as far as its file tells.

    The duration follows from the rows of outputs in time; the clip is named by the sample.
    """
    rate_hz = track.token_rate_hz
    rows = next((len(array) for array in prediction.outputs.values() if rate_hz and np.ndim(array) == 2), None)
    return Sample(
        sample_id=prediction.sample_id,
        clip_id=prediction.sample_id,
        groups=prediction.groups,
        duration_s=None if rows is None or not rate_hz else rows / rate_hz,
        target=prediction.target,
    )


def _outputs(predictions: Sequence[Prediction]) -> dict[str, Output]:
    return {
        each.sample_id: Output(key=WindowKey(each.sample_id, 0.0, 0.0), values=each.outputs) for each in predictions
    }


def _decode(track: Track, config: RunConfig, prediction: Prediction, joined: Mapping[str, Output]) -> Any:
    return track.decode(config, sample_of(prediction, track), joined[prediction.sample_id])


def _check_fit(paths: Sequence[Path], tables: Sequence[Sequence[Prediction]]) -> None:
    first = {prediction.sample_id: prediction for prediction in tables[0]}
    for path, table in zip(paths, tables, strict=True):
        check_same_ids(first, (prediction.sample_id for prediction in table), str(path))
        for prediction in table:
            expected, found = _shapes(first[prediction.sample_id]), _shapes(prediction)
            if not found:
                raise SubmissionError(
                    f"{path}: {prediction.sample_id!r} has no raw output; only its answer, which cannot be averaged"
                )
            if found != expected:
                raise DataError(
                    f"{path}: {prediction.sample_id!r} has outputs {found}, but {paths[0]} has {expected}; "
                    "members must answer in the same form"
                )


def _shapes(prediction: Prediction) -> dict[str, tuple[int, ...]]:
    return {name: np.shape(prediction.outputs[name]) for name in sorted(prediction.outputs)}


def _find_oof(members: Sequence[Path], headers: Sequence[PredictionHeader]) -> tuple[list[Path], str]:
    """Gives the out-of-fold file of every member, or [] and why there is none."""
    found: list[Path] = []
    for member, header in zip(members, headers, strict=True):
        place = _run_of(member, header)
        if place is None:
            return [], f"the run of {member} ({header.run or 'an ensemble'}) is not there to fit weights on"
        path = read_run(place).oof_path(header.evaluation)
        if not path.is_file():
            return [], f"{path} is missing"
        found.append(path)
    return found, ""


def _run_of(member: Path, header: PredictionHeader) -> Path | None:
    """Finds the run that made a file: as its header names it, or beside the file."""
    places = (Path(header.run), member.parent / header.run)
    return next((place for place in places if header.run and (place / "run.json").is_file()), None)


def _header(
    headers: Sequence[PredictionHeader], members: Sequence[Path], weights: Sequence[float], how: str
) -> PredictionHeader:
    traits: dict[str, Any] = {}
    for name in dict.fromkeys(name for header in headers for name in header.traits):
        values = [header.traits[name] for header in headers if name in header.traits]
        # Why any(): an ensemble uses a prior as soon as one member does.
        same = all(value == values[0] for value in values)
        traits[name] = (
            any(values) if all(isinstance(value, bool) for value in values) else values[0] if same else values
        )
    rows = [
        {"file": str(path), "run": header.run, "evaluation": header.evaluation, "weight": float(weight)}
        for path, header, weight in zip(members, headers, weights, strict=True)
    ]
    splits = {header.split for header in headers}
    if len(splits) > 1:
        raise DataError(f"ensemble: members are of different splits: {', '.join(sorted(splits))}")
    return PredictionHeader(
        track=headers[0].track,
        run="",
        evaluation="ensemble",
        split=headers[0].split,
        traits={**traits, "ensemble": how},
        versions=headers[0].versions,
        row_ids=headers[0].row_ids,
        members=rows,
    )
