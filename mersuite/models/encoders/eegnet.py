"""EEGNet: temporal filters, spatial filters of each, a separable convolution.

Source: Lawhern et al. 2018, "EEGNet: a compact convolutional neural network for EEG-based brain-computer interfaces",
J. Neural Eng. 15 056013, Table 2.
Axes: N windows, C channels, S samples, F temporal filters, M = F * depth spatial filters, P pointwise filters, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.layers import max_norm
from mersuite.models.window_encoder import WindowConfig, WindowEncoder

POOLS = (4, 8)
"""Samples averaged after the spatial and after the separable convolution."""

_EPS = 1e-3  # Keras' value, with which the paper's figures were made


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
        norm_momentum: How fast the batch norms' running statistics follow. Why 0.1 and not the paper's 0.01: a run here
            may have a few hundred steps, after which 0.01 would still remember the values it started with.
    """

    num_filters: int = 8
    depth: int = 2
    num_pointwise: int = 16
    kernel_s: float = 0.5
    separable_kernel: int = 16
    spatial_max_norm: float = 1.0
    dropout: float = 0.25
    norm_momentum: float = 0.1


class EegNetCore(nn.Module):
    """The paper's network on windows of one length: (N, C, S) -> (N, D), with D in the place of the classes.

    Why the spatial filters run before the temporal ones: both are linear and the batch norm between them only scales
    and shifts each filter, so that the order changes nothing but the work: M sources are filtered instead of F copies
    of all C channels. What the norm needs of those copies, their mean and variance, follows from the covariance of the
    windows' samples, and the largest tensor by far is never made. With 64 channels at 200 Hz a training step takes a
    sixth of the time.
    """

    def __init__(self, config: EegNetConfig, *, num_channels: int, num_samples: int, kernel: int) -> None:
        super().__init__()
        num_spatial = config.num_filters * config.depth
        self.depth = config.depth
        self.spatial_max_norm = config.spatial_max_norm
        self.temporal = nn.Parameter(torch.empty(config.num_filters, kernel))
        self.temporal_norm = nn.BatchNorm1d(config.num_filters, eps=_EPS, momentum=config.norm_momentum)
        self.spatial = nn.Parameter(torch.empty(num_spatial, num_channels))
        self.spatial_norm = nn.BatchNorm1d(num_spatial, eps=_EPS, momentum=config.norm_momentum)
        self.separable = nn.Conv1d(
            num_spatial,
            num_spatial,
            config.separable_kernel,
            padding=config.separable_kernel // 2,
            groups=num_spatial,
            bias=False,
        )
        self.pointwise = nn.Conv1d(num_spatial, config.num_pointwise, 1, bias=False)
        self.pointwise_norm = nn.BatchNorm1d(config.num_pointwise, eps=_EPS, momentum=config.norm_momentum)
        self.dropout = nn.Dropout(config.dropout)
        frames = _convolved(num_samples, kernel) // POOLS[0]
        frames = _convolved(frames, config.separable_kernel) // POOLS[1]
        self.readout = nn.Linear(config.num_pointwise * max(frames, 1), config.width)
        self._initialise()

    def _initialise(self) -> None:
        """Glorot's uniform weights, as in the paper, with the fans of the convolutions that the filters stand for."""
        for weight in (self.temporal.data[:, None], self.spatial.data[:, None], self.separable.weight.data):
            nn.init.xavier_uniform_(weight)
        nn.init.xavier_uniform_(self.pointwise.weight)
        nn.init.xavier_uniform_(self.readout.weight)
        nn.init.zeros_(self.readout.bias)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Gives (N, D) for (N, C, S)."""
        sources = functional.elu(self.spatial_norm(self._filter(windows)))
        sources = self.dropout(functional.avg_pool1d(sources, POOLS[0]))
        mixed = functional.elu(self.pointwise_norm(self.pointwise(self.separable(sources))))
        return self.readout(self.dropout(functional.avg_pool1d(mixed, POOLS[1])).flatten(1))

    def _filter(self, windows: torch.Tensor) -> torch.Tensor:
        """Temporal filters, their norm, spatial filters: (N, C, S) -> (N, M, time)."""
        if self.training:
            with torch.autocast(windows.device.type, enabled=False):  # sums of squares need all digits
                mean, variance = self._filter_moments(windows.float() if windows.dtype.itemsize < 4 else windows)
        else:
            mean, variance = self._running_moments()
        scale = self.temporal_norm.weight * (variance + self.temporal_norm.eps).rsqrt()
        shift = self.temporal_norm.bias - mean * scale
        spatial = max_norm(self.spatial, self.spatial_max_norm)
        sources = torch.matmul(spatial, windows)
        kernels = (self.temporal * scale.unsqueeze(1)).repeat_interleave(self.depth, dim=0)
        offsets = shift.repeat_interleave(self.depth) * spatial.sum(1)
        padding = self.temporal.shape[1] // 2
        return functional.conv1d(sources, kernels.unsqueeze(1), offsets, padding=padding, groups=len(kernels))

    def _running_moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        norm = self.temporal_norm
        return cast(torch.Tensor, norm.running_mean), cast(torch.Tensor, norm.running_var)

    def _filter_moments(self, windows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and variance (F,) of every temporally filtered channel; the norm's running values follow them."""
        kernel = self.temporal.shape[1]
        padding = kernel // 2
        rows = windows.flatten(0, 1)  # (N * C, S)
        length = _convolved(rows.shape[1], kernel)
        count = rows.shape[0] * length
        sums = functional.pad(rows.sum(0), (padding, padding)).unfold(0, length, 1).sum(1)  # (kernel,)
        products = functional.pad(rows.T @ rows, (padding, padding, padding, padding))
        # Entry (i, j) sums what taps i and j of a filter see together, over all its positions.
        lagged = products.unfold(0, length, 1).unfold(1, length, 1).diagonal(dim1=2, dim2=3).sum(-1)
        mean = self.temporal @ sums / count
        square = ((self.temporal @ lagged) * self.temporal).sum(1) / count
        variance = (square - mean.square()).clamp(min=0.0)
        with torch.no_grad():
            running_mean, running_variance = self._running_moments()
            momentum = cast(float, self.temporal_norm.momentum)
            running_mean.lerp_(mean, momentum)
            running_variance.lerp_(variance * count / max(count - 1, 1), momentum)
            cast(torch.Tensor, self.temporal_norm.num_batches_tracked).add_(1)
        return mean, variance


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
