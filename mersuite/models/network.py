"""Backbone and head as one module, and its answers as plain arrays."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from mersuite.clip import Batch, Output
from mersuite.models.backbone import Backbone
from mersuite.models.base import Fused
from mersuite.models.layers import RunningNorm


class Network(nn.Module):
    """A shared backbone with a track's head on it.

    Args:
        backbone: Batch -> Fused.
        head: (Fused, Batch) -> {name: tensor with batch first}.
    """

    def __init__(self, backbone: Backbone, head: nn.Module) -> None:
        super().__init__()
        backbone.hold_teachers()
        self.backbone = backbone
        self.head = head

    def forward(self, batch: Batch) -> tuple[Mapping[str, torch.Tensor], Fused]:
        """Gives the head's tensors by name and the fused streams that they come from."""
        fused = self.backbone(batch)
        return self.head(fused, batch), fused


def with_statistics_of(network: Network, batches: Iterable[Batch], device: torch.device) -> Network:
    """Gives a copy whose inputs are standardised with the statistics of these batches instead of the training rows'.

    A feature that was constant in training stays left out, because no weight has learned to read it, and a stream that
    none of the rows has keeps what it had.

    Source: Li et al. 2016, "Revisiting batch normalization for practical domain adaptation", here for the inputs alone.

    Args:
        network: Trained; it is not changed.
        batches: Rows of one kind, all that are asked.
        device: Where to compute.
    """
    adapted = copy.deepcopy(network).to(device).eval()
    norms = [module for module in adapted.modules() if isinstance(module, RunningNorm)]
    before = [(norm.mean.clone(), norm.variance.clone(), norm.num_rows.clone()) for norm in norms]
    read = [norm.inverse_scale() > 0 for norm in norms]
    for norm in norms:
        norm.num_rows.zero_()
        norm.train()
    with torch.inference_mode():
        for batch in batches:
            adapted(batch.to(device))
    for norm, (mean, variance, num_rows), was_read in zip(norms, before, read, strict=True):
        if norm.num_rows == 0:
            norm.mean, norm.variance, norm.num_rows = mean, variance, num_rows
        else:
            norm.mean = torch.where(was_read, norm.mean, mean)
            norm.variance = torch.where(was_read, norm.variance, variance)
    return adapted.eval()


def outputs_of(output: Mapping[str, torch.Tensor], batch: Batch) -> list[Output]:
    """Cuts a batch of head tensors into one Output a row, float32 on the CPU."""
    arrays = {name: tensor.detach().float().cpu().numpy() for name, tensor in output.items()}
    return [
        Output(key=key, values={name: array[row] for name, array in arrays.items()})
        for row, key in enumerate(batch.keys)
    ]


def run_windows(network: Network, batches: Iterable[Batch], device: torch.device) -> list[Output]:
    """Runs a network over batches in evaluation mode, without gradients.

    Args:
        network: Moved to the device.
        batches: Ready batches.
        device: Where to compute.

    Returns:
        One Output a row of every batch, in order.
    """
    network.to(device).eval()
    outputs: list[Output] = []
    with torch.inference_mode():
        for batch in batches:
            values, _ = network(batch.to(device))
            outputs.extend(outputs_of(values, batch))
    return outputs
