"""Inference inside the code submission: a folder of recordings in, predictions.csv out.

Carried by the submission zip, where only numpy, scipy and torch are installed. Training and `mersuite predict` run the
same functions; this file only strings them together, one subject at a time so that memory stays bounded.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mersuite import catalog
from mersuite.clip import Clip, Output, Sample, Signal
from mersuite.config import RunConfig, build_run_config
from mersuite.data.dataset import WindowDataset
from mersuite.data.windows import plan_windows
from mersuite.errors import DataError
from mersuite.models.backbone import build_backbone
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.network import Network, run_windows
from mersuite.schema import build
from mersuite.tables import average_outputs, merge_windows
from tracks.ps.fitted import PsFitted
from tracks.ps.head import TARGET, PsHead
from tracks.ps.layout import read_inputs, read_sample_ids
from tracks.ps.options import PsConfig
from tracks.ps.rows import rows_of, write_rows

META = "meta"


@dataclass(frozen=True, slots=True, kw_only=True)
class CarriedFold:
    """One fold's system as the zip carries it.

    Attributes:
        config: Its configuration.
        fitted: Its fitted parts.
        network: Its network in evaluation mode; None for systems without one.
        streams: Streams that network and fitted parts read.
        known: What the network was built for; people of whom a stream was not recorded are answered without it.
    """

    config: RunConfig
    fitted: PsFitted
    network: Network | None
    streams: tuple[str, ...]
    known: Mapping[str, StreamInfo]


class SubjectFeatures:
    """The streams of one subject's clips in memory, read like a store.

    Args:
        signals: (clip_id, stream) to signal.
    """

    def __init__(self, signals: Mapping[tuple[str, str], Signal]) -> None:
        self._signals = signals

    def example(self, stream: str) -> Signal | None:
        """Gives the stream of some clip that has it."""
        return next((signal for (_, name), signal in self._signals.items() if name == stream), None)

    def get(self, clip_id: str, stream: str) -> Signal | None:
        """Gives a clip's stream, or None where it has none."""
        return self._signals.get((clip_id, stream))


def predict_folder(input_dir: Path, output_dir: Path, weights: Path) -> None:
    """Writes output_dir/predictions.csv for every id of input_dir/sample_ids.csv.

    Memory holds the signals of one subject at a time, however many there are.

    Args:
        input_dir: Holds sample_ids.csv and data/<subject>/ with the four .mat files; nothing is written there.
        output_dir: Made where it is missing.
        weights: What `mersuite export` packed.

    Raises:
        DataError: If recordings are missing, malformed or do not fit the trained systems, or the weights are damaged.
    """
    folds = load_folds(weights)
    ids = read_sample_ids(input_dir / "sample_ids.csv")
    clips, samples = read_inputs(input_dir, ids)
    by_subject: dict[str, list[Clip]] = {}
    for clip in clips:
        by_subject.setdefault(clip.groups["subject"], []).append(clip)
    answers: dict[str, np.ndarray] = {}
    for subject, subject_clips in by_subject.items():
        wanted = [sample for sample in samples if sample.groups["subject"] == subject]
        answers.update(_answer_subject(folds, subject_clips, wanted))
    write_rows(rows_of(answers, ids), output_dir / "predictions.csv")


def load_folds(weights: Path) -> list[CarriedFold]:
    """Reads the npz of the zip: arrays and JSON text, nothing that could run.

    Raises:
        DataError: If the file is damaged.
    """
    try:
        with np.load(weights, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(arrays.pop(META).tobytes().decode("utf-8"))
        return [_load_fold(item, _below(arrays, f"{index}/")) for index, item in enumerate(meta["folds"])]
    except (OSError, EOFError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{weights}: not the weights of a submission: they are damaged, changed or hold pickled objects, which are "
            f"never executed ({' '.join(str(error).split())[:200]}); export the zip again"
        ) from error


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def _load_fold(meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> CarriedFold:
    values = {key: item for key, item in meta["config"].items() if key != "track"}
    config = build_run_config(values, "ps", PsConfig)
    options: PsConfig = config.options
    fitted = PsFitted(options, ())
    fitted.load_state(_below(arrays, "fitted/"), meta["fitted"])
    streams: tuple[str, ...] = fitted.ridge.streams if fitted.uses_ridge else ()
    network = None
    known: Mapping[str, StreamInfo] = {}
    if meta["context"] is not None:
        context = build(BuildContext, meta["context"])
        known = context.streams
        backbone = build_backbone(config.model, context, load_weights=False)
        head = PsHead(
            backbone.width,
            scale=options.head_scale,
            dropout=options.head_dropout,
            valence_only=options.valence_only,
        )
        network = Network(backbone, head)
        state = {name: torch.from_numpy(array) for name, array in _below(arrays, "network/").items()}
        network.load_state_dict(state)
        network.eval()
        streams = (*streams, *config.model.encoders)
    return CarriedFold(config=config, fitted=fitted, network=network, streams=streams, known=known)


def _answer_subject(
    folds: Sequence[CarriedFold], clips: Sequence[Clip], samples: Sequence[Sample]
) -> dict[str, np.ndarray]:
    features = SubjectFeatures(
        extract_streams(folds[0].config, clips, {name for fold in folds for name in fold.streams})
    )
    per_fold = []
    for fold in folds:
        given = {} if fold.network is None else _network_outputs(fold, fold.network, samples, features)
        raw = {
            item.sample_id: fold.fitted.raw_output(item, features.get, given.get(item.sample_id)) for item in samples
        }
        per_fold.append({item.sample_id: fold.fitted.apply(item, raw[item.sample_id]) for item in samples})
    return {name: output.values[TARGET] for name, output in average_outputs(per_fold).items()}


def _network_outputs(
    fold: CarriedFold, network: Network, samples: Sequence[Sample], features: SubjectFeatures
) -> dict[str, Output]:
    batch_size = fold.config.trainer.batch_size
    windows = plan_windows(samples, fold.config.data.window_s, fold.config.data.stride_s)
    dataset = WindowDataset(samples, windows, features, fold.config.model.encoders, None, known=fold.known)
    batches = (
        dataset.__getitems__(range(start, min(start + batch_size, len(dataset))))
        for start in range(0, len(dataset), batch_size)
    )
    return merge_windows(run_windows(network, batches, torch.device("cpu")), samples)


def extract_streams(
    config: RunConfig, clips: Sequence[Clip], streams: Collection[str]
) -> dict[tuple[str, str], Signal]:
    """Runs the configured extractors on clips and keeps the named streams: (clip_id, stream) to signal."""
    found: dict[tuple[str, str], Signal] = {}
    for part in config.features.values():
        extractor = catalog.find("extractor", part.name)(part.config)
        there = [clip for clip in clips if all(name in clip.media for name in extractor.inputs if name[-1] != "?")]
        wanted = set(extractor.outputs()) & set(streams)
        if there and wanted:
            for clip_id, signals in extractor.extract(there):
                found |= {(clip_id, name): signal for name, signal in signals.items() if name in wanted}
    return found
