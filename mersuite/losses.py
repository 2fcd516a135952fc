"""Losses over rows of which some are padding or have no truth.

All regression losses have one signature: preds and target of one shape, a mask of real rows, a weight a sample.
Axes: B batch, T time, D dimension (valence, arousal, ...), C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from mersuite.errors import ConfigError, DataError


@dataclass(frozen=True, slots=True, kw_only=True)
class LossConfig:
    """Which loss a regression head is trained with.

    Attributes:
        name: l1, mse, huber, quantile or ccc. Why l1: where a challenge ranks by absolute error its best answer is the
            median, and mse would give the mean.
        ccc_weight: Weight of an added concordance loss. Why 0: it inflates the variance of the answers, which costs
            absolute error; it helps where concordance ranks.
        quantile: Which quantile `quantile` gives; 0.5 is half of l1.
        huber_delta: Error at which `huber` turns from square to straight, in the target's unit.
    """

    name: Literal["l1", "mse", "huber", "quantile", "ccc"] = "l1"
    ccc_weight: float = 0.0
    quantile: float = 0.5
    huber_delta: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 < self.quantile < 1.0:
            raise ConfigError(f"quantile: need 0 < quantile < 1, got {self.quantile}")
        if self.huber_delta <= 0.0:
            raise ConfigError(f"huber_delta: need an error above 0, got {self.huber_delta}")
        if self.ccc_weight < 0.0:
            raise ConfigError(f"ccc_weight: need 0 or more, got {self.ccc_weight}")


def regression_loss(
    config: LossConfig,
    preds: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
) -> torch.Tensor:
    """Gives the configured loss with its auxiliary concordance term.

    Args:
        config: Which loss.
        preds: (B, ..., D) or (B,) float.
        target: As preds; NaN where the truth is unknown.
        mask: Bool, the leading axes of preds: (B,), (B, T), ...; None counts every row.
        weight: (B,) float, a weight a sample; None means all 1.

    Returns:
        A scalar; zero, with a gradient of zero, where nothing counts.

    Raises:
        DataError: If the shapes do not fit.
    """
    loss = _LOSSES[config.name](config, preds, target, mask, weight)
    if config.ccc_weight > 0.0:
        loss = loss + config.ccc_weight * ccc_loss(preds, target, mask, weight)
    return loss


def l1_loss(
    preds: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean absolute error. Arguments as in regression_loss.

    >>> l1_loss(torch.tensor([1.0, 2.0]), torch.tensor([0.0, float("nan")]))
    tensor(1.)
    """
    gap, weights = _gap_and_weights(preds, target, mask, weight)
    return _mean(gap.abs(), weights)


def mse_loss(
    preds: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error. Arguments as in regression_loss."""
    gap, weights = _gap_and_weights(preds, target, mask, weight)
    return _mean(gap.square(), weights)


def huber_loss(
    preds: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    *,
    delta: float,
) -> torch.Tensor:
    """Half the square below `delta`, delta * (error - delta / 2) above. Other arguments as in regression_loss.

    Source: Huber 1964, "Robust estimation of a location parameter", equation 1.3.
    """
    gap, weights = _gap_and_weights(preds, target, mask, weight)
    size = gap.abs()
    near = size.clamp(max=delta)
    return _mean(0.5 * near.square() + delta * (size - near), weights)


def quantile_loss(
    preds: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    *,
    quantile: float,
) -> torch.Tensor:
    """Pinball loss, least at the given quantile: q * e above the answer, (q - 1) * e below, e = target - preds.

    Source: Koenker and Bassett 1978, "Regression quantiles". Other arguments as in regression_loss.
    """
    gap, weights = _gap_and_weights(preds, target, mask, weight)
    error = -gap
    return _mean(torch.maximum(quantile * error, (quantile - 1.0) * error), weights)


def ccc_loss(
    preds: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None, weight: torch.Tensor | None = None
) -> torch.Tensor:
    """One minus the concordance, mean over the dimensions that have rows. Arguments as in regression_loss.

    Concordance is 2 cov / (var_preds + var_target + (mean gap)^2), all moments those of the population (divided by the
    number of rows), over all counted rows of the batch, for each entry of the last axis (of the only one for (B,)).
    Source: Lin 1989, "A concordance correlation coefficient to evaluate reproducibility", equation 4.

    Constants have no concordance (0, so a loss of 1); a small term in the divisor keeps value and gradient finite.
    """
    gap, weights = _gap_and_weights(preds, target, mask, weight)
    num_dims = preds.shape[-1] if preds.dim() > 1 else 1
    weights = weights.reshape(-1, num_dims)
    x = preds.reshape(-1, num_dims)
    y = x - gap.reshape(-1, num_dims)  # equals the target where it counts, and is never NaN
    total = weights.sum(0)
    share = weights / total.clamp(min=1e-12)
    x_mean, y_mean = (share * x).sum(0), (share * y).sum(0)
    covariance = (share * (x - x_mean) * (y - y_mean)).sum(0)
    spread = (share * ((x - x_mean).square() + (y - y_mean).square())).sum(0) + (x_mean - y_mean).square()
    ccc = 2.0 * covariance / (spread + 1e-8)
    counted = (total > 0).to(ccc.dtype)
    return ((1.0 - ccc) * counted).sum() / counted.sum().clamp(min=1.0)


def cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None = None,
    weight: torch.Tensor | None = None,
    *,
    class_weights: torch.Tensor | None = None,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Cross entropy over rows that count.

    Args:
        logits: (B, ..., C) float.
        target: (B, ...) int64 class indices; a negative one marks an unknown truth.
        mask: Bool, as target.
        weight: (B,) float, a weight a sample.
        class_weights: (C,) float; the mean is weighted by them, as PyTorch's is.
        label_smoothing: Share of the truth spread evenly over all classes.

    Raises:
        DataError: If the shapes do not fit.
    """
    if logits.shape[:-1] != target.shape:
        raise DataError(
            f"cross_entropy: logits {tuple(logits.shape)} need a target {tuple(logits.shape[:-1])}, "
            f"got {tuple(target.shape)}"
        )
    weights = _spread_weights(target.shape, target >= 0, mask, weight, logits.dtype)
    known = target.clamp(min=0)
    losses = functional.cross_entropy(
        logits.flatten(0, -2), known.flatten(), weight=class_weights, label_smoothing=label_smoothing, reduction="none"
    ).view(target.shape)
    if class_weights is None:
        return _mean(losses, weights)
    total = (weights * class_weights[known]).sum()
    return (losses * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))


def _gap_and_weights(
    preds: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None, weight: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gives preds - target, zero where the truth is unknown, and the weight of every entry."""
    if preds.shape != target.shape:
        raise DataError(f"loss: predictions {tuple(preds.shape)} and target {tuple(target.shape)} differ in shape")
    known = ~target.isnan()
    gap = preds - torch.where(known, target, preds.detach())
    return gap, _spread_weights(preds.shape, known, mask, weight, preds.dtype)


def _spread_weights(
    shape: torch.Size, known: torch.Tensor, mask: torch.Tensor | None, weight: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor:
    weights = known.to(dtype)
    for name, part in (("mask", mask), ("weight", weight)):
        if part is None:
            continue
        if part.shape != shape[: part.dim()]:
            raise DataError(f"loss: {name} {tuple(part.shape)} does not fit the first axes of {tuple(shape)}")
        weights = weights * part.to(dtype).view(*part.shape, *([1] * (len(shape) - part.dim())))
    return weights


def _mean(losses: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    total = weights.sum()
    return (losses * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))


_LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "l1": lambda config, *args: l1_loss(*args),
    "mse": lambda config, *args: mse_loss(*args),
    "huber": lambda config, *args: huber_loss(*args, delta=config.huber_delta),
    "quantile": lambda config, *args: quantile_loss(*args, quantile=config.quantile),
    "ccc": lambda config, *args: ccc_loss(*args),
}
