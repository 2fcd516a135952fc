"""EEG-Conformer: temporal and spatial filters, pooled into patches, and attention among the patches.

Source: Song et al. 2022, "EEG Conformer: convolutional transformer for EEG decoding and visualization", IEEE TNSRE 31,
710-719, section II.
Axes: N windows, C channels, S samples, F filters, G patches, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from mersuite.errors import ConfigError
from mersuite.models.attention import TransformerBlock
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.window_encoder import WindowConfig, WindowEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class ConformerConfig(WindowConfig):
    """Knobs of EEG-Conformer; times are the paper's samples at its 250 Hz.

    Attributes:
        num_filters: F, filters and width of the attention.
        kernel_s: Length of the temporal filters.
        pool_s: Seconds averaged into a patch.
        stride_s: Seconds from patch to patch.
        num_layers: Why 2 and not the paper's 6: with 64 channels the whole then stays under 300 thousand parameters.
        num_heads: Heads of the attention; divides num_filters.
        hidden: Width of the first layer of the readout. Why 64 and not the paper's 256: as for num_layers.
        bottleneck: Width of the second.
        dropout: Share dropped after pooling and inside attention.
        hidden_dropout: Share dropped after the first layer of the readout.
        bottleneck_dropout: Share dropped after the second.
    """

    num_filters: int = 40
    kernel_s: float = 0.1
    pool_s: float = 0.3
    stride_s: float = 0.06
    num_layers: int = 2
    num_heads: int = 10
    hidden: int = 64
    bottleneck: int = 32
    dropout: float = 0.5
    hidden_dropout: float = 0.5
    bottleneck_dropout: float = 0.3


class ConformerCore(nn.Module):
    """The paper's network on windows of one length: (N, C, S) -> (N, D), with D in the place of the classes."""

    def __init__(
        self, config: ConformerConfig, *, num_channels: int, num_samples: int, kernel: int, pool: int, stride: int
    ) -> None:
        super().__init__()
        width = config.num_filters
        self.pool, self.stride = pool, stride
        self.temporal = nn.Conv2d(1, width, (1, kernel))
        self.spatial = nn.Conv2d(width, width, (num_channels, 1))
        self.norm = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(config.dropout)
        self.patches = nn.Linear(width, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, config.num_heads, config.dropout, key_bias=True) for _ in range(config.num_layers)
        )
        num_patches = (num_samples - kernel + 1 - pool) // stride + 1
        self.readout = nn.Sequential(
            nn.Linear(num_patches * width, config.hidden),
            nn.ELU(),
            nn.Dropout(config.hidden_dropout),
            nn.Linear(config.hidden, config.bottleneck),
            nn.ELU(),
            nn.Dropout(config.bottleneck_dropout),
            nn.Linear(config.bottleneck, config.width),
        )

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Gives (N, D) for (N, C, S)."""
        sources = functional.elu(self.norm(self._filter(windows)))
        pooled = functional.avg_pool1d(sources, self.pool, self.stride)
        tokens = self.patches(self.dropout(pooled).transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens)
        return self.readout(tokens.flatten(1))

    def _filter(self, windows: torch.Tensor) -> torch.Tensor:
        """Both convolutions as one: (N, C, S) -> (N, F, time).

        Why: nothing stands between them, so that their product is one filter over channels and time; the F filtered
        copies of every channel, the largest tensor by far, are never made.
        """
        temporal, spatial = self.temporal.weight[:, 0, 0], self.spatial.weight[..., 0]  # (F, kernel), (F, F, C)
        weight = torch.einsum("gfc,fk->gck", spatial, temporal)
        temporal_bias, spatial_bias = cast(torch.Tensor, self.temporal.bias), cast(torch.Tensor, self.spatial.bias)
        bias = spatial_bias + spatial.sum(-1) @ temporal_bias
        return functional.conv1d(windows, weight, bias)


class ConformerEncoder(WindowEncoder):
    """Runs EEG-Conformer on the window of each token."""

    Config = ConformerConfig

    def __init__(self, config: ConformerConfig, info: StreamInfo, context: BuildContext) -> None:
        super().__init__(config, info, context)
        kernel, pool, stride = (
            max(1, round(seconds * info.rate_hz)) for seconds in (config.kernel_s, config.pool_s, config.stride_s)
        )
        num_samples = self.windows.num_rows
        if num_samples < kernel + pool - 1:
            raise ConfigError(
                f"conformer needs {kernel + pool - 1} samples a window (kernel_s + pool_s), a token's has "
                f"{num_samples} at {info.rate_hz:g} Hz; raise context_s (now {config.context_s:g})"
            )
        self.core = ConformerCore(
            config, num_channels=info.num_channels, num_samples=num_samples, kernel=kernel, pool=pool, stride=stride
        )

    def encode_windows(self, windows: torch.Tensor) -> torch.Tensor:
        """Gives (N, D) tokens for (N, C, S) windows."""
        return self.core(windows)
