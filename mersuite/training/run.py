"""A whole run: every evaluation over its folds, out-of-fold files, metrics and the final table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mersuite.clip import Prediction, Sample
from mersuite.config import RunConfig, with_overrides
from mersuite.data.dataset import example_of
from mersuite.data.splits import Fold, check_folds, make_folds
from mersuite.data.unlabelled import Teacher
from mersuite.data.windows import plan_windows
from mersuite.errors import ConfigError, DataError, did_you_mean
from mersuite.importance import channel_importance, mean_importance
from mersuite.inference import Checkpoint, answer_with, asked, load_checkpoint
from mersuite.metrics.bootstrap import RowScorer, bootstrap_intervals
from mersuite.predictions import PredictionHeader, read_predictions, write_predictions
from mersuite.prepare import FeatureReader
from mersuite.provenance import versions
from mersuite.run_folder import (
    RunWriter,
    collect_curves,
    is_first_process,
    read_before,
    write_json,
    write_run_json,
)
from mersuite.track import Evaluation, Track, TrackData
from mersuite.training.draw_training import check_draws, train_draws
from mersuite.training.draws import without_val
from mersuite.training.fit_result import FitResult
from mersuite.training.folds import BEST, FoldRun, finished_fold, train_fold
from mersuite.training.pretrain import pretrained_on
from mersuite.training.progress import RunProgress


def choose_evaluations(track: Track, config: RunConfig) -> list[Evaluation]:
    """Gives the track's evaluations, or those that `evaluate` names with the main one first.

    Raises:
        ConfigError: If a name is unknown.
    """
    offered = track.evaluations(config)
    for name in config.evaluate:
        if name not in [item.name for item in offered]:
            raise ConfigError(
                f"evaluate: no evaluation {name!r}; {did_you_mean(name, [item.name for item in offered])}"
            )
    return [item for item in offered if not config.evaluate or item is offered[0] or item.name in config.evaluate]


def plan_folds(config: RunConfig, evaluation: Evaluation, samples: Sequence[Sample]) -> list[Fold]:
    """Gives the outer folds of an evaluation; fails if any group stands on two sides.

    An evaluation that splits otherwise than cv.by has at most as many folds as its rarest group has members. Why:
    cv.folds was chosen for cv.by, and a comparison on fewer folds is better than none.

    One that selects on the rows it reports validates on its held-out rows and trains on all others.
    """
    by = evaluation.split_by or config.cv.by
    is_configured = tuple(by) == tuple(config.cv.by)
    held_out = config.cv.held_out if is_configured else ()
    num_folds = config.cv.folds
    if not is_configured:
        members = [len({item.groups[group] for item in samples if group in item.groups}) for group in by]
        num_folds = max(2, min(num_folds, *members))
    folds = make_folds(
        samples,
        by=tuple(by),
        num_folds=num_folds,
        val_fraction=config.cv.val_fraction,
        seed=config.seed,
        held_out=held_out,
    )
    check_folds(folds, samples, by=tuple(by))
    return [without_val(fold, samples, tuple(by)) for fold in folds] if evaluation.selects_on_reported else folds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What all evaluations of a run share."""

    track: Track
    config: RunConfig
    samples: Mapping[str, Sample]
    reader: FeatureReader
    folder: RunWriter
    progress: RunProgress
    caveat: str
    unlabelled: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What a run consists of.

    Attributes:
        evaluations: Those that data and configuration can have, the main one first.
        folds: Their outer folds, by name.
        notes: Which were left out, and why.
    """

    evaluations: tuple[Evaluation, ...]
    folds: Mapping[str, Sequence[Fold]]
    notes: tuple[str, ...]


def plan_run(track: Track, config: RunConfig, samples: Sequence[Sample]) -> RunPlan:
    """Chooses the evaluations that the data can have, and their folds.

    Raises:
        ConfigError: If an evaluation that `evaluate` names cannot be had, the main folds cannot be made, or nothing is
            left.
        DataError: If a sample is shorter than a window.
    """
    plan_windows(samples, config.data.window_s, config.data.stride_s)
    chosen = choose_evaluations(track, config)
    kept: list[Evaluation] = []
    folds: dict[str, list[Fold]] = {}
    notes = []
    for evaluation in chosen:
        reason = evaluation.unfit or _unshared(track, evaluation, samples)
        if not reason:
            try:
                folds[evaluation.name] = plan_folds(config, evaluation, samples)
            except ConfigError as error:
                if not evaluation.split_by:
                    raise
                reason = str(error)
        if not reason and evaluation.selects_on_reported:
            check_draws(with_overrides(config, evaluation.overrides))
        if not reason:
            kept.append(evaluation)
        elif evaluation.name in config.evaluate:
            raise ConfigError(f"evaluate: {evaluation.name} cannot be had: {reason}")
        else:
            notes.append(f"{evaluation.name} was left out: {reason}")
    if not kept:
        raise ConfigError("evaluate: nothing can be evaluated: " + "; ".join(notes))
    if kept[0] is not chosen[0]:
        notes.append(f"the main system is therefore {kept[0].name}")
    return RunPlan(evaluations=tuple(kept), folds=folds, notes=tuple(notes))


def _unshared(track: Track, evaluation: Evaluation, samples: Sequence[Sample]) -> str:
    """Says which group the evaluation needs that no two people share; "" where there is none."""
    for group in evaluation.shares:
        people: dict[str, set[str]] = {}
        for sample in samples:
            if group in sample.groups:
                people.setdefault(sample.groups[group], set()).add(sample.groups.get(track.reports_by, ""))
        if max((len(members) for members in people.values()), default=0) < 2:
            return f"no two {track.reports_by}s have a {group} in common"
    return ""


def run_evaluations(
    track: Track, config: RunConfig, data: TrackData, reader: FeatureReader, folder: RunWriter
) -> FitResult:
    """Trains and scores every evaluation; resumable at any instant.

    Evaluations that an earlier run of the folder finished stay, whether `evaluate` names them now or not.

    Raises:
        ConfigError: As plan_run does; or if the folder was begun with other data or another main system.
        DataError: If no clip has a stream of the model, or as plan_run does.
    """
    samples = {sample.sample_id: sample for sample in data.samples if sample.target}
    for stream in track.streams_read(config):
        if example_of(reader, list(samples.values()), stream) is None:
            encoder = f"with model.encoders.{stream}=null"
            cure = encoder if stream in config.model.encoders else f"of the {track.name} options that name it"
            raise DataError(f"stream {stream!r}: no clip has it; add its recordings, or take it out {cure}")
    plan = plan_run(track, config, list(samples.values()))
    chosen, plans = plan.evaluations, plan.folds
    before, scored = read_before(folder.path)
    _check_same_main(folder.path, before, chosen[0].name)
    evaluations = _in_order(track, config, {name: before[name] for name in before if name in scored})
    metrics = _in_order(track, config, {name: scored[name] for name in evaluations})
    show = config.runtime.progress and is_first_process()
    with RunProgress(sum(map(len, plans.values())), enabled=show) as progress:
        work = _Work(
            track=track,
            config=config,
            samples=samples,
            reader=reader,
            folder=folder,
            progress=progress,
            caveat=data.caveat,
            unlabelled=data.unlabelled,
        )
        for evaluation in chosen:
            entry = _new_entry(work, evaluation, plans[evaluation.name], is_main=evaluation is chosen[0])
            evaluations = _in_order(track, config, {**evaluations, evaluation.name: entry})
            predictions: list[Prediction] = []
            chosen_by = _train_draws(work, evaluation, plans[evaluation.name], entry)
            for fold in plans[evaluation.name]:
                predictions += _run_fold(work, evaluation, fold, entry, len(plans[evaluation.name]))
                write_run_json(folder, config, evaluations)
            result = {**score_rows(track, config, predictions, entry["protocol"]), **chosen_by}
            metrics = _in_order(track, config, {**metrics, evaluation.name: result})
            _write_oof(work, evaluation, entry["main"], predictions)
            write_json(folder.path / "metrics.json", metrics)
            collect_curves(folder, evaluations)
    _write_importance(work, evaluations[chosen[0].name])
    notes = (*data.notes, *plan.notes, *_taught(evaluations))
    return FitResult(folder=folder.path, track=track, metrics=metrics, notes=notes)


def _taught(evaluations: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Says which labels were guessed in training, by evaluation and fold."""
    folds = [(name, fold) for name, entry in evaluations.items() for fold in entry["folds"]]
    return [f"{name}, fold {fold['index']}: {line}" for name, fold in folds for line in fold.get("taught", ())]


def _check_same_main(path: Path, before: Mapping[str, Mapping[str, Any]], name: str) -> None:
    """Refuses to go on where the folds that lie in the run folder itself are another system's."""
    held = next((key for key, entry in before.items() if entry["main"]), name)
    if held != name:
        raise ConfigError(
            f"evaluate: {path} has {held} as its main system, and this would be {name}; add {held} to evaluate, or "
            "choose another run.dir"
        )


def _in_order(track: Track, config: RunConfig, entries: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Gives entries of evaluations in the order in which the track offers them."""
    names = [item.name for item in track.evaluations(config)]
    return {name: entries[name] for name in sorted(entries, key=names.index)}


def _new_entry(work: _Work, evaluation: Evaluation, folds: Sequence[Fold], *, is_main: bool) -> dict[str, Any]:
    """Gives what run.json says of an evaluation before its first fold."""
    entry = {
        "main": is_main,
        "protocol": "; ".join(filter(None, (evaluation.protocol, work.caveat))),
        "split_by": list(evaluation.split_by or work.config.cv.by),
        "overrides": dict(evaluation.overrides),
        "folds": [],
    }
    if work.track.uses_network(with_overrides(work.config, evaluation.overrides)):
        held_out = [work.samples[item] for fold in folds for item in fold.held_out]
        pretrained = pretrained_on(work.config, held_out)
        if pretrained is not None:
            entry |= {"protocol": f"{entry['protocol']}; {pretrained.sentence()}", "pretrained": pretrained.plain()}
    return entry


def _train_draws(
    work: _Work, evaluation: Evaluation, folds: Sequence[Fold], entry: Mapping[str, Any]
) -> dict[str, Any]:
    """Trains what an evaluation chooses among by the rows it reports; gives what metrics.json says of the choice."""
    if not evaluation.selects_on_reported:
        return {}
    runs = [_fold_run(work, evaluation, fold, entry) for fold in folds]
    draws = train_draws(runs, work.folder.evaluation_folder(evaluation.name, is_main=entry["main"]))
    return {"selects_on_reported": True, "draws": draws}


def _fold_run(work: _Work, evaluation: Evaluation, fold: Fold, entry: Mapping[str, Any]) -> FoldRun:
    config = with_overrides(work.config, evaluation.overrides)
    if tuple(entry["split_by"]) == config.cv.by:
        config = with_overrides(config, config.fold_overrides.get(str(fold.index), {}))
    return FoldRun(
        track=work.track,
        config=config,
        evaluation=evaluation.name,
        samples=work.samples,
        reader=work.reader,
        fold=fold,
        folder=work.folder.fold_folder(evaluation.name, fold.index, is_main=entry["main"]),
        progress=work.progress,
        unlabelled=work.unlabelled,
    )


def _run_fold(
    work: _Work, evaluation: Evaluation, fold: Fold, entry: dict[str, Any], num_folds: int
) -> list[Prediction]:
    run = _fold_run(work, evaluation, fold, entry)
    work.progress.start_fold(evaluation.name, fold.index, num_folds)
    predictions, checkpoint = _fold_predictions(run)
    work.progress.finish_fold()
    taught = checkpoint.fitted.taught() if isinstance(checkpoint.fitted, Teacher) else ()
    entry["folds"].append(_fold_entry(work.folder, run) | ({"taught": list(taught)} if taught else {}))
    return predictions


def _write_importance(work: _Work, entry: Mapping[str, Any]) -> None:
    """Writes importance.json: which channels the main system's networks listen to, on validation rows."""
    if not is_first_process():
        return
    found = []
    for fold in entry["folds"]:
        checkpoint = load_checkpoint(work.folder.path / fold["checkpoint"])
        if checkpoint.network is not None:
            rows = asked(checkpoint, [work.samples[item] for item in fold["val"]])
            found.append(channel_importance(checkpoint, rows, work.reader))
    if found:
        write_json(work.folder.path / "importance.json", mean_importance(found))


def _fold_entry(folder: RunWriter, run: FoldRun) -> dict[str, Any]:
    return {
        "index": run.fold.index,
        "train": list(run.fold.train),
        "val": list(run.fold.val),
        "held_out": list(run.fold.held_out),
        "checkpoint": folder.relative(run.folder / BEST),
    }


def _fold_predictions(run: FoldRun) -> tuple[list[Prediction], Checkpoint]:
    kept = run.folder / "held_out.jsonl"
    checkpoint = finished_fold(run)
    if checkpoint is not None and kept.is_file():
        return read_predictions(kept, track=run.track.name)[1], checkpoint
    checkpoint = checkpoint or train_fold(run)
    predictions = answer_with(checkpoint, run.rows(run.fold.held_out), run.reader)
    if is_first_process():
        header = PredictionHeader(
            track=run.track.name, run="", evaluation=run.evaluation, split="oof", versions=versions()
        )
        write_predictions(kept, header, predictions)
    return predictions, checkpoint


def _write_oof(work: _Work, evaluation: Evaluation, is_main: bool, predictions: Sequence[Prediction]) -> None:
    if not is_first_process():
        return
    header = PredictionHeader(
        track=work.track.name,
        run=str(work.folder.path),
        evaluation=evaluation.name,
        split="oof",
        traits=dict(work.track.traits(with_overrides(work.config, evaluation.overrides))),
        versions=versions(),
    )
    write_predictions(
        work.folder.evaluation_folder(evaluation.name, is_main=is_main) / "oof.jsonl", header, predictions
    )


def score_rows(track: Track, config: RunConfig, predictions: Sequence[Prediction], protocol: str) -> dict[str, Any]:
    """Scores held-out rows: over all of them, by the track's groups, and with bootstrap intervals."""
    truths = [_answer_of(track, item) for item in predictions]
    score = RowScorer(track.metrics, [item.answer for item in predictions], truths)
    result: dict[str, Any] = dict(score(range(len(predictions))))
    result["num_rows"] = int(result.get("num_rows", len(predictions)))
    result["protocol"] = protocol
    by = track.resampled_by(config)
    resampled = [item.groups.get(by, item.sample_id) for item in predictions]
    result["resampled_by"] = by
    result["interval"] = {
        name: [interval.low, interval.high]
        for name, interval in bootstrap_intervals(score, resampled, seed=config.seed).items()
        if name in track.metric_names
    }
    result["groups"] = {}
    for group in track.groups_shown:
        members: dict[str, list[int]] = {}
        for row, item in enumerate(predictions):
            if group in item.groups:
                members.setdefault(item.groups[group], []).append(row)
        scored = {name: score(rows) for name, rows in sorted(members.items())}
        result["groups"][group] = {
            name: {key: value for key, value in values.items() if key in track.metric_names}
            for name, values in scored.items()
        }
    return result


def _answer_of(track: Track, prediction: Prediction) -> Any:
    return track.answer_of(
        Sample(
            sample_id=prediction.sample_id,
            clip_id=prediction.sample_id,
            groups=prediction.groups,
            target=prediction.target,
        )
    )
