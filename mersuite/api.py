"""The documented function behind each verb of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mersuite import registry
from mersuite.config import RunConfig, load_run_config, parse_overrides
from mersuite.errors import ConfigError, DataError, SubmissionError
from mersuite.schema import build

if TYPE_CHECKING:
    from mersuite.compare import Comparison
    from mersuite.faces.folder import FacesReport
    from mersuite.prepare import Coverage
    from mersuite.sweep import SweepResult
    from mersuite.track import CheckRow, Track, TrackData
    from mersuite.training.run import FitResult


def tracks() -> dict[str, str]:
    """Gives the names of all tracks with one line each; imports none of them."""
    return registry.tracks()


def config(track: str, *, files: Sequence[str] = (), overrides: Sequence[str] = ()) -> RunConfig:
    """Merges all layers of configuration.

    Args:
        track: Name of the track.
        files: Names of `config=` files, later wins.
        overrides: Words such as "cv.folds=3".

    Raises:
        ConfigError: With all faults at once.
    """
    loaded = registry.load(track)
    return load_run_config(
        track, loaded.Config, registry.folder(track), files=files, overrides=parse_overrides(overrides)
    )


def fake(track: str, out: Path, *, overrides: Sequence[str] = ()) -> Mapping[str, Any]:
    """Writes small data in the organisers' layout, with a known effect.

    Args:
        track: Name of the track.
        out: Folder to write or add to.
        overrides: Words such as "num_subjects=6"; fields of the track's FakeConfig.

    Raises:
        ConfigError: If an option does not fit.
        DataError: If the folder holds other data.
    """
    loaded = registry.load(track)
    return loaded.fake(build(loaded.FakeConfig, parse_overrides(overrides)), out)


def check(run_config: RunConfig) -> list[CheckRow]:
    """Looks at everything in a data folder and reports what is there, missing or odd."""
    return registry.load(run_config.track).check(run_config)


def prepare(run_config: RunConfig, *, split: str = "all") -> Coverage:
    """Runs all extractors on all clips of a data folder; safe to kill and repeat.

    Raises:
        DataError: If a recording is unreadable; what was finished is kept.
        StoreError: If the store cannot be written.
    """
    from mersuite.prepare.ready import extractors_of, prepare_data

    data = registry.load(run_config.track).read(run_config, split)
    return prepare_data(run_config, data, extractors_of(run_config))


def store_info(path: Path) -> dict[str, Any]:
    """Gives what a store holds: its size and, for each stream, clips, entries and bytes.

    Raises:
        StoreError: If there is no store, or it is damaged.
    """
    from mersuite.prepare import upkeep

    return upkeep.describe(path)


def store_verify(path: Path, *, remove: bool = False) -> dict[str, Any]:
    """As `prepare.upkeep.verify`: compares every entry with its checksum, and deletes damaged ones if asked."""
    from mersuite.prepare import upkeep

    return upkeep.verify(path, remove=remove)


def store_prune(run_config: RunConfig) -> dict[str, Any]:
    """Deletes stored streams for which this configuration has others of the same clip, prepared already.

    Raises:
        DataError: If data are missing or malformed.
        StoreError: If there is no store, or another process is writing it.
    """
    from mersuite.prepare import upkeep
    from mersuite.prepare.ready import extractors_of

    data = registry.load(run_config.track).read(run_config, "all")
    return upkeep.prune(run_config.store_path, data.clips, extractors_of(run_config))


def faces(
    run_config: RunConfig, *, out: Path, split: str = "test", debug: bool = False, overrides: Sequence[str] = ()
) -> FacesReport:
    """Finds the people in clips, says who speaks, and cuts the faces of speaker and listener out.

    Args:
        run_config: data.* says where the clips are; runtime.prepare_workers and progress are read.
        out: Folder to write or go on with: face_speaker/, face_listener/, faces.csv. Readers find it as data.faces.
        split: "test" (where two people are seen), "train" or "all".
        debug: Also draw what was decided, a picture a clip, in debug/.
        overrides: Words such as "detector=yunet"; fields of mersuite.faces.config.FacesConfig.

    Raises:
        ConfigError: If an option does not fit, or there is no such detector.
        DataError: If a clip cannot be read, or the folder was made with other options; what was finished is kept.
    """
    from mersuite.faces.config import FacesConfig
    from mersuite.faces.folder import cut_faces
    from mersuite.prepare.reader import num_cores
    from mersuite.prepare.work import local_pool

    options = build(FacesConfig, parse_overrides(overrides), where="faces")
    clips = registry.load(run_config.track).read(run_config, split).clips
    num_workers, show = run_config.runtime.prepare_workers or num_cores(), run_config.runtime.progress
    with local_pool(num_workers) as pool:
        return cut_faces(clips, out, options, executor=pool, max_in_flight=num_workers + 1, debug=debug, progress=show)


def fit(run_config: RunConfig) -> FitResult:
    """Trains and evaluates every system of a track; prepares what is missing.

    Raises:
        ConfigError: If the configuration or the run folder does not fit.
        DataError: If data are missing or malformed.
    """
    from mersuite.prepare.ready import ready_reader
    from mersuite.run_folder import started_run
    from mersuite.training.run import plan_run, run_evaluations

    _set_threads(run_config)
    track = registry.load(run_config.track)
    data = _training_data(track, run_config)
    plan_run(track, run_config, [sample for sample in data.samples if sample.target])  # faults show before long work
    with started_run(run_config) as folder:
        return run_evaluations(track, run_config, data, ready_reader(run_config, data), folder)


def _training_data(track: Track, run_config: RunConfig) -> TrackData:
    from mersuite.training.unlabelled import with_unlabelled

    data = track.read(run_config, "train")
    require_samples(data, "train")
    return with_unlabelled(track, run_config, data)


def require_samples(data: TrackData, split: str) -> None:
    """Refuses a split without anything to predict.

    Raises:
        DataError: If there is no sample, or none with a target in the training split.
    """
    if not data.samples:
        raise DataError(f"split={split}: the data hold no sample; `mersuite check` lists what is there")
    if split == "train" and not any(sample.target for sample in data.samples):
        raise DataError("split=train: no sample has a target; labels are needed for training")


def _set_threads(run_config: RunConfig) -> None:
    if run_config.runtime.threads is not None:
        import torch

        torch.set_num_threads(run_config.runtime.threads)


def predict(
    ckpt: Path, *, out: Path, split: str = "test", evaluation: str | None = None, overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Writes predictions of a run (all folds averaged) or of one checkpoint.

    Args:
        ckpt: Run folder or checkpoint file.
        out: Prediction file to write.
        split: "test", "train" or "all".
        evaluation: Which of the run's systems; None for the main one.
        overrides: Places (DATA_PLACES of data.*, store.path) and runtime.* only; everything else is the checkpoint's.

    Returns:
        out, num_samples, num_models, evaluation, traits, what was read, and notes such as streams that no clip has.

    Raises:
        ConfigError: If the checkpoint or an override does not fit.
        DataError: If the data do not fit the checkpoint.
    """
    from mersuite.config_places import at_places
    from mersuite.inference import answer, check_fits, find_checkpoints, lacking_note, load_checkpoint
    from mersuite.predictions import PredictionHeader, write_predictions
    from mersuite.prepare.ready import ready_reader
    from mersuite.provenance import versions
    from mersuite.training.pretrain import pretrained_on
    from mersuite.training.unlabelled import taught_lines

    if out.suffix != ".jsonl":
        raise ConfigError(f"out: predictions are written as .jsonl, got {out}; `mersuite export` makes other formats")
    checkpoints = [
        replace(item, config=at_places(item.config, overrides))
        for item in map(load_checkpoint, find_checkpoints(ckpt, evaluation))
    ]
    first = checkpoints[0]
    _set_threads(first.config)
    data = first.track.read(first.config, split)
    require_samples(data, split if split != "train" else "all")
    reader = ready_reader(first.config, data)
    predictions, lacking = answer(checkpoints, data.samples, reader), check_fits(first, reader, data.samples)
    traits = dict(first.track.traits(first.config))
    pretrained = pretrained_on(first.config, data.samples) if first.network is not None else None
    header = PredictionHeader(
        track=first.track.name,
        run=str(ckpt),
        evaluation=first.evaluation,
        split=split,
        traits=traits if pretrained is None else {**traits, "pretrained": pretrained.sentence("predicted")},
        versions=versions(),
        row_ids=data.row_ids,
    )
    write_predictions(out, header, predictions)
    return {
        "out": str(out),
        "num_samples": len(predictions),
        "num_models": len(checkpoints),
        "evaluation": first.evaluation,
        "traits": dict(header.traits),
        "read": list(data.notes),
        "notes": [*([lacking_note(lacking)] if lacking else []), *taught_lines(checkpoints)],
    }


def export(
    track: str,
    *,
    out: Path,
    pred: Path | None = None,
    ckpt: Path | None = None,
    kind: str = "",
    ids: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Writes the challenge's own format and re-reads it.

    Args:
        track: Name of the track.
        out: File to write.
        pred: A prediction file, for formats that hold answers.
        ckpt: A run folder, for formats that hold a program.
        kind: Which of the track's formats; "" for the usual one.
        ids: The organisers' list of rows to write, with pred; None writes those that `predict` was asked for.
        overwrite: Replace an existing file.

    Raises:
        SubmissionError: If the predictions are no valid submission, or out exists.
    """
    from mersuite.predictions import read_predictions

    loaded = registry.load(track)
    if out.exists() and not overwrite:
        raise SubmissionError(f"out: {out} exists; choose another name or add overwrite=true")
    if pred is not None:
        header, predictions = read_predictions(pred, track=track)
        row_ids = header.row_ids if ids is None else loaded.read_row_ids(ids)
        message = loaded.write_submission(predictions, out, kind, header.traits, row_ids)
        return {"out": str(out), "traits": dict(header.traits), "message": message}
    if ckpt is None or ids is not None:
        raise ConfigError("export: need either pred=FILE.jsonl, perhaps with ids=FILE, or ckpt=RUN")
    from mersuite.inference import answer, find_checkpoints, load_checkpoint

    checkpoints = [load_checkpoint(path) for path in find_checkpoints(ckpt, None)]
    return dict(loaded.export_run(checkpoints, out, kind, answer))


def score(track: str, *, pred: Path, target: Path, options: Mapping[str, str]) -> dict[str, float]:
    """Scores predictions against the truth, with the functions that training logs.

    Args:
        track: Name of the track.
        pred: Prediction or submission file.
        target: File of the truth.
        options: Options of the track's metric, such as {"level": "2"}.

    Raises:
        SubmissionError: If a row is missing, doubled or out of range.
    """
    from mersuite.track import ScoreRequest

    loaded = registry.load(track)
    for path in (pred, target):
        if not path.exists():
            raise SubmissionError(f"{path}: no such file")
    found = loaded.score(loaded.read_table(pred), loaded.read_table(target), ScoreRequest(options=options))
    return {name: int(value) if name.startswith("num_") else value for name, value in found.items()}


def ensemble(
    pred: Sequence[Path],
    *,
    out: Path,
    oof: Sequence[Path] | None = None,
    track: str | None = None,
    top: int | None = None,
) -> dict[str, Any]:
    """Averages prediction files with weights fitted on out-of-fold rows.

    Args:
        pred: Prediction files of one split.
        out: Prediction file to write.
        oof: Out-of-fold files in the same order; None finds them through each file's run folder.
        track: Checked against the files where given.
        top: Keep only so many members, the best on out-of-fold rows; None keeps all.
    """
    from mersuite.ensemble import ensemble_files

    return ensemble_files(pred, out=out, oof=oof, track=track, top=top)


def compare(runs: Sequence[str], *, by: str | None = None, evaluation: str | None = None) -> Comparison:
    """Compares runs on the same held-out rows: paired bootstrap, mean and deviation over seeds.

    Args:
        runs: Run folders; seeds of one system are joined with "+".
        by: Group that is resampled; None takes the track's.
        evaluation: Which system of the runs; None takes the main one.
    """
    from mersuite.compare import compare as compare_runs

    return compare_runs(runs, by=by, evaluation=evaluation)


def sweep(run_config: RunConfig) -> SweepResult:
    """Searches hyper-parameters with Optuna; may run in several processes on one storage."""
    from mersuite.prepare.ready import ready_reader
    from mersuite.sweep import plan_sweep, run_sweep

    _set_threads(run_config)
    track = registry.load(run_config.track)
    data = _training_data(track, run_config)
    plan_sweep(track, run_config, data)  # faults show before the long work
    return run_sweep(track, run_config, data, ready_reader(run_config, data))


def report(run: Path, *, out: Path, clips: Sequence[str] = ()) -> dict[str, Any]:
    """Writes one self-contained html page about a run.

    Args:
        run: Run folder.
        out: Page to write.
        clips: Samples to draw over time; () takes the best, a median and the worst one.
    """
    from mersuite.report.page import write_report

    return write_report(run, out, clips=[item for item in clips if item])


def pretrain(run_config: RunConfig) -> dict[str, Any]:
    """Trains the encoders on recordings without labels by masked reconstruction, and writes their weights.

    Labels are never read. Whose recordings are used: pretrain.split, less the people of cv.held_out.

    Returns:
        weights, val_loss, epochs, and whose recordings were used: mersuite.training.pretrain.run_pretraining.

    Raises:
        ConfigError: If the configuration or the run folder does not fit.
        DataError: If there are fewer than two people with recordings.
    """
    from mersuite.prepare.ready import ready_reader
    from mersuite.run_folder import started_run
    from mersuite.training.pretrain import run_pretraining

    _set_threads(run_config)
    track = registry.load(run_config.track)
    data = track.read(run_config, run_config.pretrain.split)
    require_samples(data, "all")
    with started_run(run_config, pretraining=True) as folder:
        return run_pretraining(track, run_config, data, ready_reader(run_config, data), folder)
