"""Late fusion: each stream through a network of its own, and all that comes out through dense layers.

Source: LF-DNN among the baselines of Yu et al. 2020, "CH-SIMS: a Chinese multimodal sentiment analysis dataset", with
the sub-networks of Zadeh et al. 2017, "Tensor fusion network for multimodal sentiment analysis".
Axes: B batch, K tokens, D width, H hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from mersuite.models.base import BuildContext, Encoded, Fused, Fusion
from mersuite.models.sequence_layers import fuse_vectors, sub_network


@dataclass(frozen=True, slots=True, kw_only=True)
class LfDnnConfig:
    """Knobs of late fusion.

    Attributes:
        width: D of the result.
        hidden: H of each stream's network.
        num_layers: Layers of each stream's network.
        dropout: Share of values dropped in training, before each network and before the dense layers.
    """

    width: int = 32
    hidden: int = 32
    num_layers: int = 3
    dropout: float = 0.1


class LfDnnFusion(Fusion):
    """Two dense layers with ReLU over the streams' vectors; a missing stream gives zeros.

    With a token rate each step is fused by itself. Without, the streams are averaged first, and each token passes
    alone, as if the other streams were missing.
    """

    Config = LfDnnConfig
    config: LfDnnConfig

    def __init__(self, config: LfDnnConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        self.width = config.width
        self.networks = nn.ModuleList(
            sub_network(width, config.hidden, config.num_layers, config.dropout) for width in widths.values()
        )
        self.dense = sub_network(len(widths) * config.hidden, config.width, 2, config.dropout)

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [encoded[name] for name in self.stream_names]
        return fuse_vectors(streams, list(self.networks), self._join, in_time=self.context.token_rate_hz is not None)

    def _join(self, vectors: Mapping[int, torch.Tensor]) -> torch.Tensor:
        nothing = torch.zeros_like(next(iter(vectors.values())))
        return self.dense(torch.cat([vectors.get(s, nothing) for s in range(len(self.networks))], dim=-1))
