"""EEGNet: temporal filters, spatial filters of each, a separable convolution.

Source: Lawhern et al. 2018, "EEGNet: a compact convolutional neural network for EEG-based brain-computer interfaces",
J. Neural Eng. 15 056013, Table 2.
Axes: N windows, C channels, S samples, F temporal filters, M = F * depth spatial filters, P pointwise filters, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.layers import max_norm
from mersuite.models.window_encoder import WindowConfig, WindowEncoder

POOLS = (4, 8)
"""Samples averaged after the spatial and after the separable convolution."""

_EPS, _MOMENTUM = 1e-3, 0.01  # Keras' values, with which the paper's figures were made


@dataclass(frozen=True, slots=True, kw_only=True)
class EegNetConfig(WindowConfig):
    """Knobs of EEGNet; the paper's EEGNet-8,2 unless said otherwise.

    Attributes:
        num_filters: F, temporal filters.
        depth: Spatial filters of each temporal filter.
        num_pointwise: P, outputs of the separable convolution. Why 16: F * depth, as in the paper.
        kernel_s: Length of the temporal filters. Why 0.5: the paper's half of the sampling rate reaches down to 2 Hz.
        separable_kernel: Length of the separable filters, in samples after the first pooling.
        spatial_max_norm: Largest norm of a spatial filter.
        dropout: Why 0.25: the paper's value for people that were not trained on.
    """

    num_filters: int = 8
    depth: int = 2
    num_pointwise: int = 16
    kernel_s: float = 0.5
    separable_kernel: int = 16
    spatial_max_norm: float = 1.0
    dropout: float = 0.25


class EegNetCore(nn.Module):
    """The paper's network on windows of one length: (N, C, S) -> (N, D), with D in the place of the classes."""

    def __init__(self, config: EegNetConfig, *, num_channels: int, num_samples: int, kernel: int) -> None:
        super().__init__()
        num_spatial = config.num_filters * config.depth
        self.temporal = nn.Conv2d(1, config.num_filters, (1, kernel), padding=(0, kernel // 2), bias=False)
        self.temporal_norm = nn.BatchNorm2d(config.num_filters, eps=_EPS, momentum=_MOMENTUM)
        self.spatial = nn.Conv2d(
            config.num_filters, num_spatial, (num_channels, 1), groups=config.num_filters, bias=False
        )
        self.spatial_norm = nn.BatchNorm2d(num_spatial, eps=_EPS, momentum=_MOMENTUM)
        self.spatial_max_norm = config.spatial_max_norm
        self.separable = nn.Conv2d(
            num_spatial,
            num_spatial,
            (1, config.separable_kernel),
            padding=(0, config.separable_kernel // 2),
            groups=num_spatial,
            bias=False,
        )
        self.pointwise = nn.Conv2d(num_spatial, config.num_pointwise, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm2d(config.num_pointwise, eps=_EPS, momentum=_MOMENTUM)
        self.dropout = nn.Dropout(config.dropout)
        num_frames = _pooled(
            _convolved(_pooled(_convolved(num_samples, kernel), POOLS[0]), config.separable_kernel), POOLS[1]
        )
        self.readout = nn.Linear(config.num_pointwise * max(num_frames, 1), config.width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Gives (N, D) for (N, C, S)."""
        filtered = self.temporal_norm(self.temporal(windows.unsqueeze(1)))
        weight = max_norm(self.spatial.weight, self.spatial_max_norm)
        sources = functional.conv2d(filtered, weight, groups=self.spatial.groups)
        sources = functional.avg_pool2d(functional.elu(self.spatial_norm(sources)), (1, POOLS[0]))
        mixed = self.pointwise_norm(self.pointwise(self.separable(self.dropout(sources))))
        mixed = functional.avg_pool2d(functional.elu(mixed), (1, POOLS[1]))
        return self.readout(self.dropout(mixed).flatten(1))


class EegNetEncoder(WindowEncoder):
    """Runs EEGNet on the window of each token."""

    Config = EegNetConfig

    def __init__(self, config: EegNetConfig, info: StreamInfo, context: BuildContext) -> None:
        super().__init__(config, info, context)
        needed = POOLS[0] * POOLS[1]
        if self.windows.num_rows < needed:
            raise ConfigError(
                f"eegnet pools {needed} samples into one, a token's window has {self.windows.num_rows} "
                f"at {info.rate_hz:g} Hz; raise context_s (now {config.context_s:g})"
            )
        kernel = max(1, round(config.kernel_s * info.rate_hz))
        self.core = EegNetCore(config, num_channels=info.num_channels, num_samples=self.windows.num_rows, kernel=kernel)

    def encode_windows(self, windows: torch.Tensor) -> torch.Tensor:
        """Gives (N, D) tokens for (N, C, S) windows."""
        return self.core(windows)


def _convolved(num_samples: int, kernel: int) -> int:
    return num_samples + 2 * (kernel // 2) - kernel + 1


def _pooled(num_samples: int, pool: int) -> int:
    return num_samples // pool
