"""Layers that several encoders and fusions share.

Axes: B batch, T time rows of a stream, C channels or features, K tokens, N real tokens of a batch, S rows of a token's
window, D width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import nn

from mersuite.models.base import Encoded, masked_mean


class RunningNorm(nn.Module):
    """Standardises with the mean and variance of all real rows seen in training, which it gathers itself.

    Why not a batch norm: this is one function in training and evaluation, it does not depend on who else is in the
    batch, and rows of padding never count. Why not a layer norm: features of other units and offsets stand side by
    side, and the level over all features (overall power) carries information that a layer norm removes. Held-out people
    never enter: the statistics only move in training mode.

    Source of the merging of means and variances: Chan, Golub, LeVeque 1983, "Algorithms for computing the sample
    variance".

    Args:
        num_features: C.
        shared_scale: Divide all features by one common deviation instead of each by its own. For recordings, where the
            ratio of the channels' amplitudes is information.
        limit: Standardised values are clamped to this many deviations. Why: an electrode off the scalp of an unseen
            person lies thousands of deviations out and would own the network.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    num_rows: torch.Tensor

    def __init__(self, num_features: int, *, shared_scale: bool = False, limit: float = 10.0) -> None:
        super().__init__()
        self.shared_scale = shared_scale
        self.limit = limit
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("variance", torch.ones(num_features))
        self.register_buffer("num_rows", torch.zeros((), dtype=torch.int64))

    def forward(self, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Standardises (B, T, C) rows; those that the (B, T) mask rules out become zero."""
        rows = torch.where(mask.unsqueeze(-1), rows, torch.zeros((), dtype=rows.dtype, device=rows.device))
        if self.training:
            self._gather(rows.detach(), mask)
        scaled = ((rows - self.mean) * self.inverse_scale()).clamp(-self.limit, self.limit)
        return scaled * mask.unsqueeze(-1)

    def inverse_scale(self) -> torch.Tensor:
        """One over the deviation, (C,) or (1,); zero for a feature that was constant in training."""
        variance = self.variance.mean(0, keepdim=True) if self.shared_scale else self.variance
        level = self.mean.abs().amax(0, keepdim=True) if self.shared_scale else self.mean.abs()
        deviation = variance.sqrt()
        varies = deviation > 1e-5 * level
        return torch.where(varies, 1.0 / deviation.clamp(min=1e-30), torch.zeros_like(deviation))

    @torch.no_grad()
    def _gather(self, rows: torch.Tensor, mask: torch.Tensor) -> None:
        weights = mask.to(rows.dtype).unsqueeze(-1)
        new = mask.sum()
        divisor = new.clamp(min=1)
        mean = (rows * weights).sum((0, 1)) / divisor
        variance = ((rows - mean).square() * weights).sum((0, 1)) / divisor
        total = self.num_rows + new
        share = new / total.clamp(min=1)
        gap = mean - self.mean
        # Before the first row the buffers hold 0 and 1, which must not be merged.
        merged = self.variance * (1 - share) + variance * share + gap.square() * share * (1 - share)
        self.variance.copy_(torch.where(share == 1, variance, merged))
        self.mean.add_(gap * share)
        self.num_rows.copy_(total)


def count_tokens(num_rows: int, rate_hz: float, token_rate_hz: float | None) -> int:
    """Gives K for T rows: T itself without a token rate, and for a vector that describes a whole clip.

    >>> count_tokens(2000, 200.0, 1.0)
    10
    >>> count_tokens(477, 1000 / 21, 1.0)
    10
    """
    if token_rate_hz is None or rate_hz == 0.0:
        return num_rows
    return max(1, math.floor(num_rows / rate_hz * token_rate_hz + 0.5))


def pool_rows(rows: torch.Tensor, mask: torch.Tensor, rate_hz: float, token_rate_hz: float | None) -> Encoded:
    """Brings rows to the token rate: averages real rows where there are more, repeats them where there are fewer.

    A token is real when at least half of its rows are.

    Args:
        rows: (B, T, D).
        mask: (B, T) bool.
        rate_hz: Rows per second; 0.0 for one vector a clip.
        token_rate_hz: Tokens per second; None keeps one token a row.
    """
    if token_rate_hz is None or rate_hz in (0.0, token_rate_hz):
        return Encoded(rows * mask.unsqueeze(-1), mask)
    num_rows, ratio = rows.shape[1], token_rate_hz / rate_hz
    num_tokens = count_tokens(num_rows, rate_hz, token_rate_hz)
    if ratio > 1:
        source = (torch.arange(num_tokens, device=rows.device) + 0.5) / ratio
        index = source.floor().long().clamp(max=num_rows - 1)
        return Encoded((rows * mask.unsqueeze(-1))[:, index], mask[:, index])
    # Rows that a last, unfinished token would hold: they count as missing, as they would after padding.
    horizon = max(num_rows, math.ceil(num_tokens / ratio))
    token_of_row = ((torch.arange(horizon, device=rows.device) + 0.5) * ratio).floor()
    member = (token_of_row == torch.arange(num_tokens, device=rows.device).unsqueeze(1)).to(rows.dtype)  # (K, horizon)
    weights = mask.to(rows.dtype)
    sums = torch.einsum("kt,btd->bkd", member[:, :num_rows], rows * weights.unsqueeze(-1))
    counts = weights @ member[:, :num_rows].T
    token_mask = counts * 2 >= member.sum(1)
    tokens = sums / counts.clamp(min=1.0).unsqueeze(-1)
    return Encoded(tokens * token_mask.unsqueeze(-1), token_mask)


class TokenWindows(nn.Module):
    """Cuts a recording into one window a token, with context on both sides.

    Args:
        rate_hz: Samples per second.
        token_rate_hz: Tokens per second.
        context_s: Seconds that a window reaches beyond its token on either side; zeros beyond the recording.
    """

    def __init__(self, rate_hz: float, token_rate_hz: float, context_s: float) -> None:
        super().__init__()
        self.rate_hz = rate_hz
        self.token_rate_hz = token_rate_hz
        self.num_context = round(context_s * rate_hz)
        self.num_inner = max(1, round(rate_hz / token_rate_hz))

    @property
    def num_rows(self) -> int:
        """S, rows of a window."""
        return self.num_inner + 2 * self.num_context

    def forward(self, stream: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cuts the windows of real tokens only, so that padding costs nothing and no statistic sees it.

        Args:
            stream: (B, T, C), zero where the mask is False.
            mask: (B, T) bool.

        Returns:
            (N, S, C) windows, and the (B, K) bool mask that has N True; a token is real when half of its rows are.
        """
        num_tokens = count_tokens(stream.shape[1], self.rate_hz, self.token_rate_hz)
        first_rows = [round(token * self.rate_hz / self.token_rate_hz) for token in range(num_tokens)]
        starts = torch.tensor(first_rows, device=stream.device)
        after = max(0, first_rows[-1] + self.num_inner - stream.shape[1])
        real = nn.functional.pad(mask, (0, after))[
            :, starts.unsqueeze(1) + torch.arange(self.num_inner, device=mask.device)
        ]
        token_mask = real.sum(-1) * 2 >= self.num_inner
        padded = nn.functional.pad(stream, (0, 0, self.num_context, after + self.num_context))
        row, token = token_mask.nonzero(as_tuple=True)
        inside = starts[token].unsqueeze(1) + torch.arange(self.num_rows, device=stream.device)
        return padded[row.unsqueeze(1), inside], token_mask


def scatter_tokens(values: torch.Tensor, token_mask: torch.Tensor) -> Encoded:
    """Puts (N, D) values of real tokens at their places: (B, K, D), zero elsewhere."""
    tokens = values.new_zeros((*token_mask.shape, values.shape[-1]))
    tokens[token_mask] = values
    return Encoded(tokens, token_mask)


def max_norm(weight: torch.Tensor, limit: float) -> torch.Tensor:
    """Shrinks each slice weight[i] to an L2 norm of at most `limit`.

    Why computed in the forward pass and not written into the weights: the result is the same, and gradients, averaged
    weights and checkpoints then all see one parameter.
    """
    norms = weight.flatten(1).norm(dim=1).view(-1, *([1] * (weight.dim() - 1)))
    return weight * (limit / norms.clamp(min=limit))


def keep_in_graph(tokens: torch.Tensor, parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Gives the tokens, tied to the parameters with a gradient of zero.

    Why: where a batch lacks a stream its encoder does not run, and processes that train together would wait for its
    gradients for ever.
    """
    return tokens + sum(
        (parameter.sum() * 0.0 for parameter in parameters if parameter.requires_grad), tokens.new_zeros(())
    )


def any_mask(streams: Iterable[Encoded]) -> torch.Tensor:
    """Gives (B, K) bool, True where at least one of several streams of equal length is real."""
    return torch.stack([stream.mask for stream in streams]).any(0)


def pool_stream(stream: Encoded) -> Encoded:
    """Averages a stream into one token: (B, K, D) -> (B, 1, D), real where any of its tokens is."""
    return Encoded(masked_mean(stream.tokens, stream.mask).unsqueeze(1), stream.mask.any(1, keepdim=True))


def join_tokens(streams: Iterable[Encoded]) -> Encoded:
    """Puts the tokens of several streams of one width one after the other."""
    parts = list(streams)
    return Encoded(torch.cat([part.tokens for part in parts], dim=1), torch.cat([part.mask for part in parts], dim=1))


def mean_over_streams(streams: Sequence[Encoded]) -> torch.Tensor:
    """Averages streams of equal length and width over those that are there, token by token: (B, K, D)."""
    tokens = torch.stack([stream.tokens for stream in streams], dim=2)
    weights = torch.stack([stream.mask for stream in streams], dim=2).to(tokens.dtype).unsqueeze(-1)
    return (tokens * weights).sum(2) / weights.sum(2).clamp(min=1.0)
