"""Loss terms that compare the rows of a batch: what fusions add to a track's loss.

All take float vectors (N, D) and a (N,) bool that says which rows count, are computed in float32 or better whatever
autocast says, and stay finite where one row or none counts.
Axes: N rows of a batch, D width.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Concatenate, ParamSpec

import torch
from torch.nn import functional

_P = ParamSpec("_P")

_LEAST_LENGTH = 1e-6
"""Vectors shorter than this are not drawn out to a length of one: they are rounding."""

VARIANCE_FLOOR = 1e-3
"""Added to the variances of a batch before their determinant is taken."""


def _exactly(
    function: Callable[Concatenate[torch.Tensor, _P], torch.Tensor],
) -> Callable[Concatenate[torch.Tensor, _P], torch.Tensor]:
    """Runs a function without autocast; it widens its own inputs."""

    @functools.wraps(function)
    def exact(first: torch.Tensor, /, *args: _P.args, **kwargs: _P.kwargs) -> torch.Tensor:
        with torch.autocast(first.device.type, enabled=False):
            return function(first, *args, **kwargs)

    return exact


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _mean(values: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Mean over the rows that count: (N, ...) -> (...); zero where none does."""
    weights = rows.to(values.dtype).view(-1, *([1] * (values.dim() - 1)))
    return (values * weights).sum(0) / weights.sum().clamp(min=1.0)


@_exactly
def squared_error(rebuilt: torch.Tensor, wanted: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Mean squared difference over the rows that count and their features.

    Args:
        rebuilt: (N, D), or (B, K, D).
        wanted: As rebuilt.
        rows: (N,) or (B, K) bool.
    """
    return _mean((_wide(rebuilt) - _wide(wanted)).square().mean(-1).flatten(), rows.flatten())


@_exactly
def moment_discrepancy(
    one: torch.Tensor, other: torch.Tensor, rows: torch.Tensor, num_moments: int = 5, span: float = 1.0
) -> torch.Tensor:
    """Central moment discrepancy of two sets of vectors: 0 where their first moments are equal.

    |E(x) - E(y)| / span + sum over k = 2 .. num_moments of |C_k(x) - C_k(y)| / span**k, where C_k is the vector of the
    k-th central moments and |.| the Euclidean norm.

    Source: Zellinger et al. 2017, "Central moment discrepancy (CMD) for domain-invariant representation learning",
    definition 2.

    Args:
        one: (N, D), within an interval of length `span`.
        other: (N, D), in the same interval.
        rows: (N,) bool, rows that count, in both. Why both: a stream may be missing from some kinds of clips, and the
            moments of other clips would then be compared.
        num_moments: Highest moment.
        span: Length of the interval.
    """
    one, other = _wide(one), _wide(other)
    means = _mean(one, rows), _mean(other, rows)
    terms = [torch.linalg.vector_norm(means[0] - means[1]) / span]
    centred = one - means[0], other - means[1]
    for power in range(2, num_moments + 1):
        gap = _mean(centred[0].pow(power), rows) - _mean(centred[1].pow(power), rows)
        terms.append(torch.linalg.vector_norm(gap) / span**power)
    return torch.stack(terms).sum()


@_exactly
def subspace_overlap(one: torch.Tensor, other: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """How much the features of two sets of vectors go together over the batch: |A^T B|_F^2 / N^2, from 0 to 1.

    A and B are the sets with the mean over the batch taken off and each row drawn to a length of one. The term is 0
    where the spaces that their features span are orthogonal, a feature being a vector over the N rows: those of one
    set are then uncorrelated with those of the other.

    Source: Hazarika et al. 2020, "MISA: modality-invariant and -specific representations for multimodal sentiment
    analysis", section 3.4.2. Why divided by N^2, which the paper does not do: the term then has one size for every
    batch and its weight one meaning.

    Args:
        one: (N, D).
        other: (N, D).
        rows: (N,) bool, rows that count, in both.
    """
    weights = rows.unsqueeze(-1)
    parts = []
    for values in (_wide(one), _wide(other)):
        centred = (values - _mean(values, rows)) * weights
        parts.append(functional.normalize(centred, dim=-1, eps=_LEAST_LENGTH))
    return (parts[0].T @ parts[1]).square().sum() / rows.sum().clamp(min=1).square()


@_exactly
def normal_discrepancy(vectors: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Squared maximum mean discrepancy between vectors and the unit normal distribution N(0, I).

    E k(x, x') - 2 E k(x, z) + E k(z, z') with the kernel k(x, y) = exp(-|x - y|^2 / (2 s)), s = D, and z normal. Both
    expectations over z are known in closed form: (s / (s + 1))^(D/2) exp(-|x|^2 / (2 (s + 1))) and (s / (s + 2))^(D/2).
    Why not draws from the prior, as published networks have it: their noise is larger than the term itself.
    Why s = D: the mean squared distance of two normal vectors is 2 D.

    Source: Gretton et al. 2012, "A kernel two-sample test", equation 5 (the biased estimate, which is never negative).

    Args:
        vectors: (N, D).
        rows: (N,) bool, rows that count.
    """
    vectors = _wide(vectors)
    width = vectors.shape[1]
    squares = vectors.square().sum(1)
    distances = (squares.unsqueeze(1) + squares - 2 * vectors @ vectors.T).clamp(min=0.0)
    pairs = (rows.unsqueeze(1) & rows).to(vectors.dtype)
    among = ((-distances / (2 * width)).exp() * pairs).sum() / pairs.sum().clamp(min=1.0)
    to_prior = (width / (width + 1)) ** (width / 2) * _mean((-squares / (2 * (width + 1))).exp(), rows)
    within_prior = (width / (width + 2)) ** (width / 2)
    return torch.where(rows.any(), among - 2 * to_prior + within_prior, 0.0 * among)


@_exactly
def contrast(
    predicted: torch.Tensor, vectors: torch.Tensor, rows: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """InfoNCE: the mean cross entropy, in nats, of telling the row's own vector from those of the other rows.

    Both are drawn to a length of one; the score is their product over the temperature. log(rows that count) minus the
    result is a lower bound of the mutual information, and never above log(rows that count); one row gives 0.

    Source: van den Oord et al. 2018, "Representation learning with contrastive predictive coding", equation 4.

    Args:
        predicted: (N, D), what is known about the vector.
        vectors: (N, D), what is to be told.
        rows: (N,) bool, rows that count.
        temperature: Above 0.
    """
    seen, wanted = (functional.normalize(_wide(item), dim=-1, eps=_LEAST_LENGTH) for item in (predicted, vectors))
    scores = seen @ wanted.T / temperature
    own = scores.diagonal()
    others = scores.masked_fill(~rows.unsqueeze(0), -math.inf).masked_fill(~rows.unsqueeze(1), 0.0)
    return _mean(others.logsumexp(1) - own, rows)


@_exactly
def information_bound(
    vectors: torch.Tensor, mean: torch.Tensor, log_variance: torch.Tensor, rows: torch.Tensor
) -> torch.Tensor:
    """Barber-Agakov bound of the mutual information I(x; y), in nats: E log q(y | x) + H(y).

    q is a normal distribution whose mean and (diagonal) variance a network gives for each x. The entropy is that of
    one normal distribution with the batch's covariance S: log det(2 pi e (S + VARIANCE_FLOOR I)) / 2.
    What is kept of the bound: it lies below I(x; y) for every q where y is normally distributed and the batch is
    large. For other y the entropy is an upper estimate (of all densities with covariance S the normal one has the
    largest), and in a batch of no more rows than D the floor decides: it then spreads y, and is no bound.

    Source: Barber and Agakov 2003, "The IM algorithm: a variational approach to information maximization", equation 3.
    Han et al. 2021, section 3.3, take one normal distribution for each polarity of the label, over several batches: a
    fusion knows no labels.

    Args:
        vectors: (N, D), y.
        mean: (N, D), of q.
        log_variance: (N, D), of q.
        rows: (N,) bool, rows that count.
    """
    vectors, mean, log_variance = _wide(vectors), _wide(mean), _wide(log_variance)
    width = vectors.shape[1]
    log_density = -0.5 * ((vectors - mean).square() * (-log_variance).exp() + log_variance + math.log(2 * math.pi))
    centred = (vectors - _mean(vectors, rows)) * rows.unsqueeze(-1)
    covariance = centred.T @ centred / rows.sum().clamp(min=1)
    floor = VARIANCE_FLOOR * torch.eye(width, dtype=vectors.dtype, device=vectors.device)
    entropy = 0.5 * (width * math.log(2 * math.pi * math.e) + torch.linalg.slogdet(covariance + floor)[1])
    return torch.where(rows.any(), _mean(log_density.sum(1), rows) + entropy, 0.0 * log_density.sum())
