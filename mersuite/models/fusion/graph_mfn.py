"""Graph-MFN: LSTMs whose memories meet in a graph with a vertex for every set of streams, then in a gated memory.

Source: Zadeh et al. 2018, "Multimodal language analysis in the wild: CMU-MOSEI dataset and interpretable dynamic fusion
graph".
Axes: B batch, K tokens or steps, D width, S streams, H width of an LSTM, V vertices, E edges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import nn

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Fused, Fusion
from mersuite.models.layers import any_mask
from mersuite.models.sequence_layers import GatedMemory, LstmSystem, align_streams, last_real, two_layers
from mersuite.schema import require_all

MAX_STREAMS = 4
"""More streams have more than 15 vertices and 65 edges."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphMfnConfig:
    """Knobs of Graph-MFN.

    Attributes:
        width: D of the result.
        lstm_width: H.
        vertex_width: Width of the graph's vertices.
        memory_width: Width of the gated memory.
        hidden: Of the networks of vertices, efficacies and gates.
        num_steps: Without a token rate, steps that the longest stream of a clip is brought to at most.
        dropout: Share of hidden values dropped in training.
    """

    width: int = 32
    lstm_width: int = 32
    vertex_width: int = 32
    memory_width: int = 32
    hidden: int = 32
    num_steps: int = 32
    dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = {
            name: getattr(self, name)
            for name in ("width", "lstm_width", "vertex_width", "memory_width", "hidden", "num_steps")
        }
        require_all(*((size >= 1, f"{name}: need 1 or more, got {size}") for name, size in sizes.items()))


class FusionGraph(nn.Module):
    """Dynamic fusion graph: a vertex for every set of streams, fed by those of its subsets, and one that sees all.

    The vertex of one stream is a layer over what the stream brings. The vertex of a larger set is a network over the
    vertices of its strict subsets, each times the efficacy of their edge; the output is a network over all vertices,
    each times its efficacy. Efficacies lie in 0..1 and come from all streams together, anew at every step. A vertex
    with a stream that is missing is zero, and so are its edges.

    Args:
        num_streams: S, 1 to MAX_STREAMS.
        num_inputs: Width of what a stream brings.
        width: Of the vertices and the output.
        hidden: Of the networks.
        dropout: Share of hidden values dropped in training.

    Attributes:
        vertices: Sets of streams, small ones first; 2^S - 1.
        edges: (from, to) as indices of vertices, `to` being len(vertices) for the output.
    """

    def __init__(self, num_streams: int, num_inputs: int, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        if not 1 <= num_streams <= MAX_STREAMS:
            raise ConfigError(
                f"the graph has a vertex for every set of streams and takes 1 to {MAX_STREAMS} of them, got "
                f"{num_streams}; use mfn, or configure fewer encoders"
            )
        streams = range(num_streams)
        self.vertices = tuple(frozenset(item) for size in streams for item in combinations(streams, size + 1))
        inner = [
            (source, to)
            for to, larger in enumerate(self.vertices)
            for source, smaller in enumerate(self.vertices)
            if smaller < larger
        ]
        self.edges = (*inner, *((source, len(self.vertices)) for source in range(len(self.vertices))))
        self.singles = nn.ModuleList(nn.Linear(num_inputs, width) for _ in streams)
        fed = [sum(edge[1] == to for edge in self.edges) for to in range(num_streams, len(self.vertices) + 1)]
        self.networks = nn.ModuleList(two_layers(count * width, hidden, width, dropout) for count in fed)
        self.efficacies = two_layers(num_streams * num_inputs, hidden, len(self.edges), dropout)

    def forward(self, brought: torch.Tensor, there: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Runs through the graph.

        Args:
            brought: (..., S, num_inputs), zero where a stream is missing.
            there: (..., S) bool.

        Returns:
            (..., width) the output, and (..., E) the efficacies.
        """
        num_streams = len(self.singles)
        complete = torch.stack([there[..., sorted(streams)].all(-1) for streams in self.vertices], dim=-1)
        efficacy = self.efficacies(brought.flatten(-2)).sigmoid()
        efficacy = efficacy * complete[..., [source for source, _ in self.edges]]
        values = [
            layer(brought[..., i, :]) * complete[..., [i]] for i, layer in enumerate(self.singles)
        ]  # in the order of vertices
        for to in range(num_streams, len(self.vertices) + 1):
            fed = [values[source] * efficacy[..., [e]] for e, (source, end) in enumerate(self.edges) if end == to]
            value = self.networks[to - num_streams](torch.cat(fed, dim=-1))
            values.append(value * complete[..., [to]] if to < len(self.vertices) else value)
        return values[-1], efficacy


class GraphMfnFusion(Fusion):
    """One LSTM a stream; the graph looks at its cells before and after each step; a gated memory keeps what it found.

    With a token rate the tokens are the steps; without one all streams are brought to common steps, at most num_steps.
    `pooled` is what is known at the last of them. A stream that is not real at a step keeps its state and stays out of
    the graph.
    """

    Config = GraphMfnConfig
    config: GraphMfnConfig

    def __init__(self, config: GraphMfnConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        self.width = config.width
        self.system = LstmSystem(list(widths.values()), config.lstm_width)
        self.graph = FusionGraph(len(widths), 2 * config.lstm_width, config.vertex_width, config.hidden, config.dropout)
        self.memory = GatedMemory(config.vertex_width, config.memory_width, config.hidden, config.dropout)
        known = len(widths) * config.lstm_width + config.memory_width
        self.output = two_layers(known, config.hidden, config.width, config.dropout)

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [encoded[name] for name in self.stream_names]
        if self.context.token_rate_hz is None:
            streams = align_streams(streams, self.config.num_steps)
        mask = any_mask(streams)
        hidden, cells = self.system(streams)
        before = nn.functional.pad(cells, (0, 0, 0, 0, 1, 0))[:, :-1]
        there = torch.stack([stream.mask for stream in streams], dim=-1)
        brought = torch.cat([before, cells], dim=-1) * there.unsqueeze(-1)
        found, _ = self.graph(brought, there)
        known = torch.cat([hidden.flatten(2), self.memory(found, mask)], dim=-1)
        tokens = self.output(known) * mask.unsqueeze(-1)
        return Fused(tokens=tokens, mask=mask, pooled=last_real(Encoded(tokens, mask)))
