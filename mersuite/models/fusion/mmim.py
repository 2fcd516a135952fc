"""MMIM: the joined vector must tell much about every stream, and the streams about one another, in nats of information.

Source: Han et al. 2021, "Improving multimodal fusion with hierarchical mutual information maximization for multimodal
sentiment analysis".
Axes: B batch, K tokens, D width, S streams, H width of a stream's vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import torch
from torch import nn

from mersuite.models.base import BuildContext, Encoded, Fused, Fusion
from mersuite.models.batch_losses import contrast, information_bound
from mersuite.models.layers import pool_stream
from mersuite.models.sequence_layers import fuse_vectors
from mersuite.schema import require_all

_LOG_VARIANCE_LIMIT = 5.0
"""The bound's predicted log variances stay within this on either side. Why: a vector that is predicted exactly would
earn without end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MmimConfig:
    """Knobs of MMIM.

    Attributes:
        width: D of the result.
        stream_width: H of the vector of each stream. Why 16: the width of the paper's sound and face; the bound needs a
            covariance, and a batch must hold more rows than that.
        dropout: Share of values dropped in training.
        cpc_weight: Weight of the InfoNCE terms between the result and each stream. Why 0.1: the paper's value.
        cpc_layers: Linear layers of the networks that predict a stream's vector from the result.
        temperature: Of these terms. Why 1: the paper has none.
        bound_weight: Weight of the bound of the information between pairs of streams. Why 0.1: the paper's value.
    """

    width: int = 32
    stream_width: int = 16
    dropout: float = 0.1
    cpc_weight: float = 0.1
    cpc_layers: int = 1
    temperature: float = 1.0
    bound_weight: float = 0.1

    def __post_init__(self) -> None:
        weights = (self.cpc_weight, self.bound_weight)
        require_all(
            (min(weights) >= 0, f"need weights of the losses of 0 or more, got {weights}"),
            (self.cpc_layers >= 1, f"cpc_layers: need 1 or more, got {self.cpc_layers}"),
            (self.temperature > 0, f"temperature: need a number above 0, got {self.temperature}"),
        )


class MmimFusion(Fusion):
    """A perceptron over the streams' vectors, with two losses that count information.

    `cpc` is InfoNCE between the result and each stream. `mutual_information` is minus the Barber-Agakov bound between
    each pair of streams, in nats per feature: the earlier stream of the configuration predicts the later one (list text
    first to have the paper's pairs). The paper trains the predictors of the bound in a step of their own; here one step
    raises the bound in them and in the streams, which is the same ascent.

    Both losses look at one vector a row, that of each stream's average. Why not at every time step: neighbouring
    seconds of a clip are near copies, and InfoNCE would call them different. With a token rate each time step passes
    the perceptron by itself. Without, the streams' averages do, and each token alone, as if the others were missing.
    """

    Config = MmimConfig
    config: MmimConfig

    def __init__(self, config: MmimConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        self.width = config.width
        inner = config.stream_width
        # Bounded: the entropy in the bound could otherwise grow with the scale alone.
        self.inputs = nn.ModuleList(nn.Sequential(nn.Linear(size, inner), nn.Tanh()) for size in widths.values())
        self.join = nn.Sequential(
            nn.Dropout(config.dropout),
            nn.Linear(inner * len(widths), config.width),
            nn.Tanh(),
            nn.Linear(config.width, config.width),
            nn.Tanh(),
        )
        num_predictors = len(widths) if config.cpc_weight > 0 else 0
        self.predictors = nn.ModuleList(
            _predictor(config.width, inner, config.cpc_layers) for _ in range(num_predictors)
        )
        self.pairs = tuple(combinations(range(len(widths)), 2)) if config.bound_weight > 0 else ()
        self.bounds = nn.ModuleList(
            nn.Sequential(nn.Linear(inner, 2 * inner), nn.ReLU(), nn.Linear(2 * inner, 2 * inner)) for _ in self.pairs
        )

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [encoded[name] for name in self.stream_names]
        in_time = self.context.token_rate_hz is not None
        fused = fuse_vectors(streams, list(self.inputs), self._join, in_time=in_time)
        return replace(fused, losses=self._losses(fused.pooled, streams))

    def _join(self, vectors: Mapping[int, torch.Tensor]) -> torch.Tensor:
        none = torch.zeros_like(next(iter(vectors.values())))
        return self.join(torch.cat([vectors.get(i, none) for i in range(len(self.stream_names))], dim=-1))

    def _losses(self, pooled: torch.Tensor, streams: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """Gives the weighted terms of (B, D) results and the streams."""
        vectors = [
            layer(pool_stream(stream).tokens).squeeze(1) for layer, stream in zip(self.inputs, streams, strict=True)
        ]
        there = [stream.mask.any(1) for stream in streams]
        losses = {}
        if self.predictors:
            terms = [
                contrast(layer(pooled), vector, rows, self.config.temperature)
                for layer, vector, rows in zip(self.predictors, vectors, there, strict=True)
            ]
            losses["cpc"] = self.config.cpc_weight * torch.stack(terms).sum()
        if self.pairs:
            terms = []
            for network, (i, j) in zip(self.bounds, self.pairs, strict=True):
                mean, spread = network(vectors[i]).chunk(2, dim=-1)
                log_variance = _LOG_VARIANCE_LIMIT * torch.tanh(spread)
                terms.append(information_bound(vectors[j], mean, log_variance, there[i] & there[j]))
            bound = torch.stack(terms).sum() / self.config.stream_width
            losses["mutual_information"] = -self.config.bound_weight * bound
        return losses


def _predictor(num_inputs: int, num_outputs: int, num_layers: int) -> nn.Sequential:
    """Gives linear layers with a tanh between, from the result's width to a stream's."""
    layers: list[nn.Module] = [nn.Linear(num_inputs, num_outputs)]
    for _ in range(num_layers - 1):
        layers += [nn.Tanh(), nn.Linear(num_outputs, num_outputs)]
    return nn.Sequential(*layers)
