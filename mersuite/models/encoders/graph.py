"""A graph network over the channels of a recording, whose edges are learned.

Source: Song et al. 2020, "EEG emotion recognition using dynamical graph convolutional neural networks", IEEE TAFFC 11,
for learning the adjacency; Defferrard et al. 2016, "Convolutional neural networks on graphs with fast localized
spectral filtering", equation 4, for the Chebyshev filters.
Axes: B batch, T rows, V nodes, F features of a node, H hidden, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Encoder, StreamInfo
from mersuite.models.layers import RunningNorm, pool_rows
from mersuite.models.node_layout import node_layout


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphConfig:
    """Knobs of the graph network.

    Attributes:
        width: D of the tokens.
        hidden: H, values of a node after the filter. Why 16: 64 nodes then give a readout of 33 thousand parameters.
        order: Chebyshev polynomials: 1 sees a node itself, 2 its neighbours, 3 theirs.
        dropout: Share of hidden values dropped in training.
        features_per_node: Features of each channel where columns lie channel by channel; null reads the columns' names.
    """

    width: int = 32
    hidden: int = 16
    order: int = 3
    dropout: float = 0.25
    features_per_node: int | None = None


class GraphEncoder(Encoder):
    """Chebyshev filters over a learned graph, on each row by itself."""

    Config = GraphConfig
    accepts = "feature"
    config: GraphConfig
    columns: torch.Tensor
    edges: torch.Tensor

    def __init__(self, config: GraphConfig, info: StreamInfo, context: BuildContext) -> None:
        super().__init__(config, info, context)
        if config.order < 1 or config.hidden < 1 or config.width < 1:
            raise ConfigError(
                "need order, hidden and width of 1 or more, "
                f"got order={config.order}, hidden={config.hidden}, width={config.width}"
            )
        self.width = config.width
        columns = node_layout(info, config.features_per_node)
        num_nodes, num_features = columns.shape
        self.register_buffer("columns", columns, persistent=False)
        self.register_buffer("edges", torch.triu_indices(num_nodes, num_nodes, offset=1), persistent=False)
        self.norm = RunningNorm(info.num_channels)
        # softplus(-2) = 0.13: weak edges at the start. One number an edge, as the graph has no direction.
        self.edge_logits = nn.Parameter(
            torch.full((self.edges.shape[1],), -2.0) + 0.1 * torch.randn(self.edges.shape[1])
        )
        # Without edges the higher polynomials hold nothing new.
        self.filters = nn.Linear(num_features * (config.order if num_nodes > 1 else 1), config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.readout = nn.Linear(num_nodes * config.hidden, config.width)

    def adjacency(self) -> torch.Tensor:
        """Gives D^-1/2 (A + I) D^-1/2, (V, V), with the learned A >= 0.

        Why with I: the weight of an edge then counts against the node itself, also between two nodes.
        """
        num_nodes = len(self.columns)
        upper = self.edge_logits.new_zeros(num_nodes, num_nodes)
        upper = upper.index_put((self.edges[0], self.edges[1]), functional.softplus(self.edge_logits))
        full = upper + upper.T + torch.eye(num_nodes, device=upper.device, dtype=upper.dtype)
        scale = full.sum(1).rsqrt()
        return scale.unsqueeze(1) * full * scale

    def forward(self, stream: torch.Tensor, mask: torch.Tensor) -> Encoded:
        """Encodes (B, T, V * F) rows with their (B, T) mask into (B, K, D) tokens."""
        nodes = self.norm(stream, mask)[..., self.columns]  # (B, T, V, F)
        terms = [nodes]
        if len(self.columns) > 1 and self.config.order > 1:
            # The scaled Laplacian 2 L / 2 - I with L = I - adjacency, whose eigenvalues lie in [-1, 1].
            laplacian = -self.adjacency()
            terms.append(laplacian @ nodes)
            for _ in range(2, self.config.order):
                terms.append(2.0 * (laplacian @ terms[-1]) - terms[-2])
        hidden = self.dropout(functional.gelu(self.filters(torch.cat(terms, dim=-1))))
        tokens = self.readout(hidden.flatten(2)) * mask.unsqueeze(-1)
        return pool_rows(tokens, mask, self.info.rate_hz, self.context.token_rate_hz)
