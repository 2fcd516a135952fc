"""Checkpoints, and how they become predictions: windows -> samples -> folds averaged -> decoded."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mersuite import registry
from mersuite.clip import Output, Prediction, Sample, first_difference
from mersuite.config import RunConfig, build_run_config, to_plain
from mersuite.data.datamodule import predict_loader
from mersuite.errors import ConfigError, DataError
from mersuite.models.backbone import build_backbone
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.network import Network, run_windows, with_statistics_of
from mersuite.prepare import FeatureReader
from mersuite.provenance import versions
from mersuite.run_folder import read_run_json
from mersuite.schema import build, plain
from mersuite.tables import average_outputs, merge_windows
from mersuite.track import Fitted, Track

_log = logging.getLogger(__name__)
FORMAT_KEY = "mersuite_checkpoint"
FORMAT_VERSION = 1
LEAST_FOR_STATISTICS = 50
"""Samples from which means and deviations of inputs may be taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One fold's trained system, ready to answer.

    Attributes:
        track: Its track.
        config: The system's own configuration, overrides of its evaluation included.
        evaluation: Name of the evaluation.
        fold: Index of the fold.
        fitted: Fitted parts.
        network: The network in evaluation mode, or None for systems without one.
        context: What the data told when the network was built; None without a network.
    """

    track: Track
    config: RunConfig
    evaluation: str
    fold: int
    fitted: Fitted
    network: Network | None
    context: BuildContext | None


def describe_streams(
    reader: FeatureReader, samples: Sequence[Sample], streams: Iterable[str], *, may_lack: bool = False
) -> dict[str, StreamInfo]:
    """Gives width, rate and names of streams, checked over all samples; with may_lack, of those that are there.

    Raises:
        DataError: If no sample has a stream, or samples disagree on its width, its rate, or the order of its channels.
    """
    found: dict[str, tuple[str, StreamInfo]] = {}
    for stream in streams:
        for clip_id, stored in dict.fromkeys((sample.clip_id, sample.stored(stream)) for sample in samples):
            signal = None if stored is None else reader.get(clip_id, stored)
            if signal is None:
                continue
            info = StreamInfo(
                num_channels=signal.data.shape[1],
                rate_hz=signal.rate_hz,
                ch_names=signal.ch_names,
                dtype=str(signal.data.dtype),
            )
            first_clip, first = found.setdefault(stream, (clip_id, info))
            if (first.num_channels, first.rate_hz) != (info.num_channels, info.rate_hz):
                raise DataError(
                    f"stream {stream!r}: {clip_id} has {info.num_channels} channels at {info.rate_hz:g} Hz, but "
                    f"{first_clip} has {first.num_channels} at {first.rate_hz:g} Hz; all clips of a data set must agree"
                )
            if differ := first_difference(first.ch_names, info.ch_names):
                raise DataError(
                    f"stream {stream!r}: {clip_id} has {differ[1]!r} where {first_clip} has {differ[0]!r}; the "
                    "recordings of a data set need the same channels in the same order"
                )
        if stream not in found and not may_lack:
            raise DataError(
                f"stream {stream!r}: no clip has it; add its recordings, or take it out with "
                f"model.encoders.{stream}=null"
            )
    return {stream: info for stream, (_, info) in found.items()}


def build_network(
    track: Track, config: RunConfig, context: BuildContext, fitted: Fitted, *, load_weights: bool = True
) -> Network | None:
    """Builds backbone and head for what the data told; None for systems without a network.

    Args:
        track: Gives the head.
        config: Names the parts.
        context: What the data told.
        fitted: Fitted parts after fit or load_state.
        load_weights: Read ready-made weights that encoders name; False where a checkpoint's weights follow.
    """
    if not track.uses_network(config):
        return None
    backbone = build_backbone(config.model, context, load_weights=load_weights)
    head = track.build_head(config, backbone.width, context, fitted)
    if head is None:
        return None
    return Network(backbone, head)


def gather(outputs: Sequence[Output]) -> list[Output]:
    """Joins the outputs of all processes; gives every process all of them."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return list(outputs)
    parts: list[list[Output]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, list(outputs))
    return [output for part in parts for output in part]


def _place_in_group() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


def choose_device(config: RunConfig) -> torch.device:
    """Gives the device that inference runs on, as runtime.accelerator says."""
    if config.runtime.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    if config.runtime.accelerator in ("gpu", "cuda"):
        raise ConfigError("runtime.accelerator: gpu was asked for, but PyTorch sees none; use runtime.accelerator=cpu")
    return torch.device("cpu")


def network_outputs(
    network: Network,
    config: RunConfig,
    samples: Sequence[Sample],
    reader: FeatureReader,
    known: Mapping[str, StreamInfo] | None = None,
) -> dict[str, Output]:
    """Runs a network over all windows of the samples and merges them; processes of a group share the work.

    Args:
        network: The network.
        config: data.*, trainer.batch_size, runtime.* and the streams of model.encoders are read.
        samples: What to answer.
        reader: Their streams.
        known: What the network was built for, where it may meet data that lack one of its streams.

    Returns:
        Sample id to merged raw output, for every sample, in every process.
    """
    device = choose_device(config)
    rank, world_size = _place_in_group()
    loader = predict_loader(config, samples, reader, rank=rank, world_size=world_size, known=known)
    return merge_windows(gather(run_windows(network, loader, device)), samples)


def raw_outputs(
    fitted: Fitted,
    network: Network | None,
    config: RunConfig,
    samples: Sequence[Sample],
    reader: FeatureReader,
    known: Mapping[str, StreamInfo] | None = None,
) -> dict[str, Output | None]:
    """Gives every sample's raw output: the network's with what fitted parts add, or what stands in for it."""
    given = network_outputs(network, config, samples, reader, known) if network is not None else {}
    return {item.sample_id: fitted.raw_output(item, reader.get, given.get(item.sample_id)) for item in samples}


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint whole or not at all. It holds tensors and JSON text only, so that loading runs no code."""
    arrays, values = checkpoint.fitted.state()
    content = {
        FORMAT_KEY: FORMAT_VERSION,
        "track": checkpoint.track.name,
        "evaluation": checkpoint.evaluation,
        "fold": checkpoint.fold,
        "config": json.dumps(to_plain(checkpoint.config)),
        "context": json.dumps(plain(checkpoint.context)),
        "fitted": {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()},
        "fitted_values": json.dumps(values),
        "network": {} if checkpoint.network is None else checkpoint.network.cpu().state_dict(),
        "versions": json.dumps(versions()),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    torch.save(content, partial)
    partial.replace(path)


def load_tensors(path: Path) -> dict[str, Any]:
    """Reads a file of tensors without running any code that it may hold.

    Raises:
        ConfigError: If it does not exist, is damaged, or holds pickled objects.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such checkpoint")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConfigError(
            f"{path} cannot be read as a checkpoint: it is damaged or holds pickled objects, which are never executed; "
            "expected a file that `mersuite fit` wrote"
        ) from error


def load_checkpoint(path: Path) -> Checkpoint:
    """Reads what save_checkpoint wrote.

    Raises:
        ConfigError: If the file is no checkpoint of this program or its network does not fit its configuration.
    """
    content = load_tensors(path)
    if not isinstance(content, dict) or content.get(FORMAT_KEY) != FORMAT_VERSION:
        raise ConfigError(f"{path} is no checkpoint of mersuite (format {FORMAT_VERSION}); expected a fold's best.ckpt")
    track = registry.load(content["track"])
    values = json.loads(content["config"])
    values.pop("track")
    config = build_run_config(values, track.name, track.Config)
    fitted = track.fitted(config)
    arrays = {name: tensor.numpy() for name, tensor in content["fitted"].items()}
    fitted.load_state(arrays, json.loads(content["fitted_values"]))
    context_values = json.loads(content["context"])
    context = None if context_values is None else build(BuildContext, context_values)
    network = None if context is None else build_network(track, config, context, fitted, load_weights=False)
    if network is not None:
        try:
            network.load_state_dict(content["network"])
        except RuntimeError as error:
            raise ConfigError(f"{path}: its weights do not fit its own configuration: {error}") from error
        network.eval()
    return Checkpoint(
        track=track,
        config=config,
        evaluation=content["evaluation"],
        fold=int(content["fold"]),
        fitted=fitted,
        network=network,
        context=context,
    )


def find_checkpoints(ckpt: Path, evaluation: str | None) -> list[Path]:
    """Gives the checkpoint files of a run folder's evaluation (the main one by default), or the one file itself.

    Raises:
        ConfigError: If there is no such run, evaluation or finished fold.
    """
    if ckpt.is_file():
        return [ckpt]
    if not ckpt.exists():
        raise ConfigError(f"ckpt: {ckpt} does not exist; expected a run folder or a checkpoint file")
    content = read_run_json(ckpt)
    if "pretraining" in content:
        raise ConfigError(
            f"ckpt: {ckpt} holds pretrained encoders, which answer nothing; "
            "fit with model.pretrained=<its weights> first"
        )
    evaluations = content["evaluations"]
    name = evaluation or next((key for key, item in evaluations.items() if item["main"]), "")
    if name not in evaluations:
        raise ConfigError(f"evaluation: {ckpt} has no {name!r}; it has {', '.join(evaluations) or 'none finished'}")
    paths = [ckpt / fold["checkpoint"] for fold in evaluations[name]["folds"]]
    if not paths:
        raise ConfigError(f"ckpt: {ckpt} has no finished fold of {name!r}; go on with `mersuite fit run.resume=true`")
    return paths


def check_fits(checkpoint: Checkpoint, reader: FeatureReader, samples: Sequence[Sample]) -> tuple[str, ...]:
    """Compares what a network was built for with what the data has.

    Returns:
        The network's streams that no sample has, though they are meant to be there. It answers without them, as it does
        for a clip that lacks one.

    Raises:
        DataError: If a stream's width, rate or order of channels differs, or no sample has any stream.
    """
    if checkpoint.context is None:
        return ()
    wanted_streams = checkpoint.context.streams
    there = describe_streams(reader, samples, wanted_streams, may_lack=True)
    meant = [stream for stream in wanted_streams if any(sample.stored(stream) is not None for sample in samples)]
    lacking = tuple(stream for stream in meant if stream not in there)
    if not there:
        raise DataError(
            f"the checkpoint does not fit the data: no clip has {', '.join(lacking)}, which is all that the network "
            "was trained on; add recordings (`mersuite check` lists what is there)"
        )
    for stream, found in there.items():
        wanted = wanted_streams[stream]
        if (found.num_channels, found.rate_hz) != (wanted.num_channels, wanted.rate_hz):
            raise DataError(
                f"the checkpoint does not fit the data: stream {stream!r} has {found.num_channels} channels at "
                f"{found.rate_hz:g} Hz, the network was trained on {wanted.num_channels} at {wanted.rate_hz:g} Hz; "
                "use recordings of the same montage, or train on these"
            )
        if differ := first_difference(wanted.ch_names, found.ch_names):
            raise DataError(
                f"the checkpoint does not fit the data: stream {stream!r} has {differ[1]!r} where the network was "
                f"trained on {differ[0]!r}; bring the channels into the same order, or train on these"
            )
    return lacking


def final_outputs(checkpoint: Checkpoint, samples: Sequence[Sample], reader: FeatureReader) -> dict[str, Output]:
    """Gives one fold's outputs in the form that may be averaged over folds, by sample id."""
    known = None if checkpoint.context is None else checkpoint.context.streams
    kinds: dict[str, list[Sample]] = {}
    for item in samples:
        kinds.setdefault(checkpoint.track.standardised_among(checkpoint.config, item), []).append(item)
    raw: dict[str, Output | None] = {}
    for kind, members in kinds.items():
        network = _restandardised(checkpoint, kind, members, reader) if kind else checkpoint.network
        raw |= raw_outputs(checkpoint.fitted, network, checkpoint.config, members, reader, known)
    return {item.sample_id: checkpoint.fitted.apply(item, raw[item.sample_id]) for item in samples}


def _restandardised(
    checkpoint: Checkpoint, kind: str, samples: Sequence[Sample], reader: FeatureReader
) -> Network | None:
    """Gives the network with input statistics of the samples themselves."""
    if checkpoint.network is None or checkpoint.context is None:
        return checkpoint.network
    if len(samples) < LEAST_FOR_STATISTICS:
        raise ConfigError(
            f"{len(samples)} samples of kind {kind!r} are asked, too few to standardise their inputs among themselves: "
            f"need {LEAST_FOR_STATISTICS} or more, or a system that takes the training rows' statistics"
        )
    known = checkpoint.context.streams
    loader = predict_loader(checkpoint.config, samples, reader, rank=0, world_size=1, known=known)
    return with_statistics_of(checkpoint.network, loader, choose_device(checkpoint.config))


def answer_with(checkpoint: Checkpoint, samples: Sequence[Sample], reader: FeatureReader) -> list[Prediction]:
    """Predicts samples with one fold's system, as the track asks them."""
    samples = asked(checkpoint, samples)
    return decoded(checkpoint.track, checkpoint.config, samples, final_outputs(checkpoint, samples, reader))


def asked(checkpoint: Checkpoint, samples: Sequence[Sample]) -> list[Sample]:
    """Gives samples as the checkpoint's system is asked them."""
    return [checkpoint.track.as_asked(checkpoint.config, sample) for sample in samples]


def lacking_note(streams: Sequence[str]) -> str:
    """Says which streams a network had to do without."""
    return (
        f"no clip has {', '.join(streams)}, which the network was trained with: it answered from the other streams "
        "alone; add recordings, or fit a model without them"
    )


def answer(checkpoints: Sequence[Checkpoint], samples: Sequence[Sample], reader: FeatureReader) -> list[Prediction]:
    """Predicts samples with the average of several folds' outputs, decoded once.

    Raises:
        DataError: As check_fits does.
    """
    per_fold: list[Mapping[str, Output]] = []
    lacking: dict[str, None] = {}
    samples = asked(checkpoints[0], samples)
    for checkpoint in checkpoints:
        lacking |= dict.fromkeys(check_fits(checkpoint, reader, samples))
        per_fold.append(final_outputs(checkpoint, samples, reader))
    if lacking:
        _log.warning("%s", lacking_note(tuple(lacking)))
    first = checkpoints[0]
    return decoded(first.track, first.config, samples, average_outputs(per_fold))


def decoded(
    track: Track, config: RunConfig, samples: Sequence[Sample], outputs: Mapping[str, Output]
) -> list[Prediction]:
    """Decodes final outputs into predictions, in the order of the samples."""
    outputs = track.adjust(config, outputs)
    return [
        Prediction(
            sample_id=sample.sample_id,
            groups=sample.groups,
            outputs=outputs[sample.sample_id].values,
            answer=track.decode(config, sample, outputs[sample.sample_id]),
            target=sample.target,
        )
        for sample in samples
    ]
