"""Which channels a network listens to: gradient times deviation, on validation rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from mersuite.clip import Batch, Sample
from mersuite.data.datamodule import predict_loader
from mersuite.inference import Checkpoint, choose_device
from mersuite.models.network import Network
from mersuite.prepare import FeatureReader


def channel_importance(
    checkpoint: Checkpoint, samples: Sequence[Sample], reader: FeatureReader
) -> dict[str, dict[str, float]]:
    """Gives how much a network's answers move with each channel, by stream.

    A channel's value is the mean over rows of |d(sum of absolute answers)/dx * (x - mean x)|, summed over the channel's
    features: to first order, how far answers move when the channel is replaced by its mean.

    Args:
        checkpoint: One fold's system; systems without a network give {}.
        samples: Rows to look at, such as the fold's validation rows.
        reader: Their features.

    Returns:
        Stream to {channel name: value in the output's unit}. The channel of a feature named "FP1 alpha" is "FP1".

    Source:
        Ancona et al. 2018, "Towards better understanding of gradient-based attribution methods for deep neural
        networks", section 3 (gradient * input, here with the mean as baseline).
    """
    if checkpoint.network is None or checkpoint.context is None:
        return {}
    network = checkpoint.network.eval()
    device = choose_device(checkpoint.config)
    network.to(device)
    totals: dict[str, torch.Tensor] = {}
    num_rows = 0
    known = checkpoint.context.streams
    for batch in predict_loader(checkpoint.config, samples, reader, rank=0, world_size=1, known=known):
        for stream, moved in _attributions(network, batch.to(device)).items():
            totals[stream] = totals.get(stream, torch.zeros_like(moved)) + moved
        num_rows += len(batch)
    network.zero_grad(set_to_none=True)
    result: dict[str, dict[str, float]] = {}
    for stream, total in totals.items():
        names = checkpoint.context.streams[stream].ch_names
        if names:
            result[stream] = _by_channel(names, (total / max(1, num_rows)).tolist())
    return result


def _attributions(network: Network, batch: Batch) -> dict[str, torch.Tensor]:
    """Stream to (channel,) absolute attributions, summed over the batch's rows."""
    leaves = {
        name: stream.detach().clone().requires_grad_(True)
        for name, stream in batch.streams.items()
        if stream.is_floating_point()
    }
    with torch.enable_grad():
        output, _ = network(replace(batch, streams={**batch.streams, **leaves}))
        total = torch.stack([value.abs().sum() for value in output.values()]).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    moved = {}
    for (name, leaf), gradient in zip(leaves.items(), gradients, strict=True):
        if gradient is None:
            continue
        real = batch.masks[name].unsqueeze(-1)
        mean = (leaf * real).sum((0, 1)) / real.sum().clamp(min=1)
        moved[name] = (gradient * (leaf - mean) * real).abs().sum((0, 1)).detach().cpu()
    return moved


def _by_channel(names: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, value in zip(names, values, strict=True):
        channel = name.split()[0]
        sums[channel] = sums.get(channel, 0.0) + float(value)
    return sums


def mean_importance(folds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Averages over folds; a channel that a fold lacks counts as zero there.

    >>> mean_importance([{"eeg": {"CZ": 1.0}}, {"eeg": {"CZ": 3.0, "PZ": 2.0}}])
    {'eeg': {'CZ': 2.0, 'PZ': 1.0}}
    """
    sums: dict[str, dict[str, float]] = {}
    for fold in folds:
        for stream, channels in fold.items():
            own = sums.setdefault(stream, {})
            for channel, value in channels.items():
                own[channel] = own.get(channel, 0.0) + value / len(folds)
    return sums
