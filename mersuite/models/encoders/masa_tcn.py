"""A temporal network over rows of features: filters of several lengths over time and channels, then dilated ones.

Source: Ding et al. 2023, "MASA-TCN: multi-anchor space-aware temporal convolutional neural networks for continuous and
discrete EEG emotion recognition", arXiv 2308.16207, sections III-B (space-aware temporal layer), III-C (multi-anchor
attentive fusion) and III-D (temporal convolutions, after Bai et al. 2018, arXiv 1803.01271). This is a network after
their description: what they leave open is chosen here, and its figures are not theirs.
Axes: B batch, T rows, V nodes (channels), F features of a node, G filters, A anchors, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Encoder, StreamInfo
from mersuite.models.layers import RunningNorm, pool_rows
from mersuite.models.node_layout import node_layout


@dataclass(frozen=True, slots=True, kw_only=True)
class MasaTcnConfig:
    """Knobs of the temporal network.

    Attributes:
        width: D of the tokens.
        num_filters: G, filters of each anchor and width of the dilated layers.
        anchors_s: Seconds that each anchor sees. Why 3, 5, 15: the paper's, in rows of one second.
        num_layers: Dilated layers; the i-th reaches 2^i rows back at each tap.
        kernel: Taps of a dilated filter.
        causal: See the past only. Why: feelings and raters lag behind the signals, and a system that runs live has
            no future.
        dropout: Share of hidden values dropped in training.
        features_per_node: Features of each channel where columns lie channel by channel; null reads the columns' names.
    """

    width: int = 32
    num_filters: int = 16
    anchors_s: tuple[float, ...] = (3.0, 5.0, 15.0)
    num_layers: int = 3
    kernel: int = 3
    causal: bool = True
    dropout: float = 0.25
    features_per_node: int | None = None


class TemporalConv(nn.Module):
    """A convolution over rows that keeps their number and takes padding for zeros.

    Its arguments are (B, channels, T) values and a (B, 1, T) mask.
    """

    def __init__(self, num_inputs: int, num_outputs: int, kernel: int, *, dilation: int, causal: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(num_inputs, num_outputs, kernel, dilation=dilation)
        self.reach = reach_of(kernel, dilation, causal)

    def forward(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Gives (B, num_outputs, T)."""
        return self.conv(functional.pad(values * mask, self.reach))


class SpaceAwareLayer(nn.Module):
    """Filters over time and a node's features, then over nodes: (B, V, F, T) -> (B, G, T).

    Nothing stands between the two, so that they run as one convolution.
    """

    def __init__(self, num_nodes: int, num_features: int, num_filters: int, kernel: int, *, causal: bool) -> None:
        super().__init__()
        self.temporal = nn.Parameter(torch.empty(num_filters, num_features, kernel))
        self.spatial = nn.Parameter(torch.empty(num_filters, num_filters, num_nodes))
        self.bias = nn.Parameter(torch.zeros(num_filters))
        self.reach = reach_of(kernel, 1, causal)
        nn.init.normal_(self.temporal, std=(num_features * kernel) ** -0.5)
        nn.init.normal_(self.spatial, std=(num_filters * num_nodes) ** -0.5)

    def forward(self, nodes: torch.Tensor) -> torch.Tensor:
        """Gives (B, G, T) for nodes that are zero where there is padding."""
        weight = torch.einsum("ghv,hfk->gvfk", self.spatial, self.temporal).flatten(1, 2)
        return functional.conv1d(functional.pad(nodes.flatten(1, 2), self.reach), weight, self.bias)


class DilatedBlock(nn.Module):
    """Two dilated convolutions, added to what comes in."""

    def __init__(self, num_filters: int, kernel: int, *, dilation: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(num_filters)
        self.first = TemporalConv(num_filters, num_filters, kernel, dilation=dilation, causal=causal)
        self.second = TemporalConv(num_filters, num_filters, kernel, dilation=dilation, causal=causal)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Gives (B, G, T) for (B, G, T)."""
        # Normed over the filters of each row: over time it would carry padding, and the future, into every row.
        hidden = self.norm(values.transpose(1, 2)).transpose(1, 2)
        hidden = self.dropout(functional.gelu(self.first(hidden, mask)))
        return values + self.dropout(functional.gelu(self.second(hidden, mask)))


class MasaTcnEncoder(Encoder):
    """Encodes rows with what was before them (and after them, unless causal)."""

    Config = MasaTcnConfig
    accepts = "feature"
    config: MasaTcnConfig
    columns: torch.Tensor

    def __init__(self, config: MasaTcnConfig, info: StreamInfo, context: BuildContext) -> None:
        super().__init__(config, info, context)
        if info.rate_hz <= 0:
            raise ConfigError("masa_tcn reads rows in time, this stream is one vector a clip; use mlp")
        if not config.anchors_s or min(config.anchors_s) <= 0 or config.num_layers < 1 or config.kernel < 1:
            raise ConfigError(
                "need anchors_s above 0 s and num_layers and kernel of 1 or more, "
                f"got anchors_s={config.anchors_s}, num_layers={config.num_layers}, kernel={config.kernel}"
            )
        self.width = config.width
        columns = node_layout(info, config.features_per_node)
        num_nodes, num_features = columns.shape
        self.register_buffer("columns", columns, persistent=False)
        self.norm = RunningNorm(info.num_channels)
        kernels = [max(1, round(seconds * info.rate_hz)) for seconds in config.anchors_s]
        self.anchors = nn.ModuleList(
            SpaceAwareLayer(num_nodes, num_features, config.num_filters, kernel, causal=config.causal)
            for kernel in kernels
        )
        self.attend = nn.Linear(config.num_filters * len(kernels), len(kernels))
        self.blocks = nn.ModuleList(
            DilatedBlock(config.num_filters, config.kernel, dilation=2**i, causal=config.causal, dropout=config.dropout)
            for i in range(config.num_layers)
        )
        self.dropout = nn.Dropout(config.dropout)
        self.readout = nn.Linear(config.num_filters, config.width)

    def forward(self, stream: torch.Tensor, mask: torch.Tensor) -> Encoded:
        """Encodes (B, T, V * F) rows with their (B, T) mask into (B, K, D) tokens."""
        nodes = self.norm(stream, mask)[..., self.columns].permute(0, 2, 3, 1)  # (B, V, F, T)
        real = mask.unsqueeze(1).to(nodes.dtype)
        anchors = torch.stack([functional.gelu(anchor(nodes)) for anchor in self.anchors], dim=1)  # (B, A, G, T)
        weights = self.attend(anchors.flatten(1, 2).transpose(1, 2)).softmax(-1)  # (B, T, A)
        values = self.dropout(torch.einsum("bagt,bta->bgt", anchors, weights))
        for block in self.blocks:
            values = cast(DilatedBlock, block)(values, real)
        tokens = self.readout(values.transpose(1, 2)) * mask.unsqueeze(-1)
        return pool_rows(tokens, mask, self.info.rate_hz, self.context.token_rate_hz)


def reach_of(kernel: int, dilation: int, causal: bool) -> tuple[int, int]:
    """Gives the zeros to put before and after, so that a convolution keeps the number of rows.

    >>> reach_of(3, 2, True), reach_of(4, 1, False)
    ((4, 0), (1, 2))
    """
    span = (kernel - 1) * dilation
    return (span, 0) if causal else (span // 2, span - span // 2)
