"""Low-rank tensor fusion: tensor fusion with one linear layer whose weights are a sum of few outer products.

Source: Liu et al. 2018, "Efficient low-rank multimodal fusion with modality-specific factors", equation 6 with weights
over the ranks: h = sum over r of w_r * (product over streams of F_s[r]^T [z_s; 1]) + b.
Axes: B batch, K tokens, D width, H hidden width, R ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Fused, Fusion
from mersuite.models.sequence_layers import fuse_vectors, sub_network


@dataclass(frozen=True, slots=True, kw_only=True)
class LmfConfig:
    """Knobs of low-rank fusion.

    Attributes:
        width: D of the result.
        hidden: H, width of each stream's vector.
        rank: R. Why 4: amid the 3 to 6 that the organisers of the MER challenges try.
        num_layers: Layers of each stream's network.
        dropout: Share of values dropped in training, before each network.
    """

    width: int = 32
    hidden: int = 32
    rank: int = 4
    num_layers: int = 2
    dropout: float = 0.1


class LmfFusion(Fusion):
    """Tensor fusion whose cost grows with the sum of the streams' widths, not with their product.

    A missing stream is [0; 1]. With a token rate each step is fused by itself. Without, the streams are averaged first,
    and each token passes alone, as if the others were missing.
    """

    Config = LmfConfig
    config: LmfConfig

    def __init__(self, config: LmfConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        if config.rank < 1 or config.width < 1:
            raise ConfigError(f"need rank and width of 1 or more, got {config.rank} and {config.width}")
        self.width = config.width
        self.networks = nn.ModuleList(
            sub_network(width, config.hidden, config.num_layers, config.dropout) for width in widths.values()
        )
        self.low_rank = LowRankProduct([config.hidden] * len(widths), config.width, config.rank)

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [encoded[name] for name in self.stream_names]
        return fuse_vectors(streams, list(self.networks), self.low_rank, in_time=self.context.token_rate_hz is not None)


class LowRankProduct(nn.Module):
    """The linear map over the outer product of [z_s; 1], without the product.

    Args:
        widths: H of each stream.
        width: D of the result.
        rank: R.
    """

    def __init__(self, widths: list[int], width: int, rank: int) -> None:
        super().__init__()
        self.factors = nn.ParameterList(torch.empty(rank, size + 1, width) for size in widths)
        for factor in self.factors:
            for matrix in factor:  # each rank is a linear map of its own
                nn.init.xavier_normal_(matrix)
        self.weights = nn.Parameter(torch.empty(1, rank))
        nn.init.xavier_normal_(self.weights)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, vectors: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """Gives (B, K, D) for (B, K, H) vectors by the places of their streams; those not given are [0; 1].

        The product over streams is taken in float32 or better; the result has the weights' type, also under autocast.
        """
        like = next(iter(vectors.values()))
        product = like.new_ones((*like.shape[:-1], 1, 1), dtype=torch.promote_types(like.dtype, torch.float32))
        for place, factor in enumerate(self.factors):
            if place in vectors:
                longer = functional.pad(vectors[place], (0, 1), value=1.0)
                product = product * torch.einsum("bkh,rhd->bkrd", longer, factor)
            else:
                product = product * factor[:, -1]
        return ((product * self.weights.squeeze(0).unsqueeze(-1)).sum(-2) + self.bias).to(self.bias.dtype)
