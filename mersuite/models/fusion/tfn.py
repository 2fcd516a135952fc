"""Tensor fusion: dense layers over the outer product of all streams, each with an appended 1.

Source: Zadeh et al. 2017, "Tensor fusion network for multimodal sentiment analysis": Z = outer product over streams of
[z_s; 1].
Axes: B batch, K tokens, D width, H hidden width, P entries of the product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Fused, Fusion
from mersuite.models.sequence_layers import fuse_vectors, sub_network


@dataclass(frozen=True, slots=True, kw_only=True)
class TfnConfig:
    """Knobs of tensor fusion.

    Attributes:
        width: D of the result.
        hidden: H, width of each stream's vector; the product has (H + 1) ** streams entries. None takes 16, with which
            three streams make 4,913, or for more streams the largest that max_product allows.
        num_layers: Layers of each stream's network.
        dense: Width of the layer that reads the product.
        dropout: Share of values dropped in training, before each network and of the product.
        max_product: Entries above which the model is refused. Why 50,000: the layer that reads them then has 1.6
            million parameters, and the product of each clip, or of each step in time, takes 200 kB.
    """

    width: int = 32
    hidden: int | None = None
    num_layers: int = 2
    dense: int = 32
    dropout: float = 0.1
    max_product: int = 50_000


class TfnFusion(Fusion):
    """Every product of one value a stream is a feature; the ones keep what fewer streams say, down to each alone.

    A missing stream is [0; 1], so that the product is that of the others. With a token rate each step is fused by
    itself. Without, the streams are averaged first, and each token passes alone, as if the others were missing.
    """

    Config = TfnConfig
    config: TfnConfig

    def __init__(self, config: TfnConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        hidden = _largest_hidden(len(widths), config.max_product) if config.hidden is None else config.hidden
        num_entries = (hidden + 1) ** len(widths)
        if num_entries > config.max_product:
            raise ConfigError(
                f"the outer product of {len(widths)} streams with hidden={hidden} has {num_entries:,} entries, "
                f"more than max_product={config.max_product:,}: lower hidden, read fewer streams, take the fusion lmf, "
                "which never builds the product, or raise max_product"
            )
        self.width = config.width
        self.sizes = (hidden + 1,) * len(widths)
        self.networks = nn.ModuleList(
            sub_network(width, hidden, config.num_layers, config.dropout) for width in widths.values()
        )
        self.product = nn.Linear(num_entries, config.dense)
        nn.init.xavier_uniform_(self.product.weight)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Sequential(nn.ReLU(), nn.Linear(config.dense, config.width), nn.ReLU())

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [encoded[name] for name in self.stream_names]
        return fuse_vectors(streams, list(self.networks), self._join, in_time=self.context.token_rate_hz is not None)

    def _join(self, vectors: Mapping[int, torch.Tensor]) -> torch.Tensor:
        weight = self.product.weight.unflatten(1, self.sizes)
        for place in reversed(range(len(self.sizes))):
            if place not in vectors:
                weight = weight.select(1 + place, -1)  # of [0; 1] only the one meets a weight
        product = self.dropout(outer_with_ones([vectors[place] for place in sorted(vectors)]))
        return self.output(functional.linear(product, weight.flatten(1), self.product.bias))


def _largest_hidden(num_streams: int, max_product: int) -> int:
    """Gives the largest H from 1 to 16 whose product has max_product entries at most; 1 where none does."""
    return max(hidden for hidden in range(1, 17) if hidden == 1 or (hidden + 1) ** num_streams <= max_product)


def outer_with_ones(vectors: Sequence[torch.Tensor]) -> torch.Tensor:
    """Gives the outer product of vectors with a 1 appended to each: (..., H_s) -> (..., product of H_s + 1).

    The last vector's index runs fastest.

    >>> outer_with_ones([torch.tensor([2.0]), torch.tensor([3.0, 5.0])])
    tensor([ 6., 10.,  2.,  3.,  5.,  1.])
    """
    product = vectors[0].new_ones((*vectors[0].shape[:-1], 1))
    for vector in vectors:
        longer = functional.pad(vector, (0, 1), value=1.0)
        product = (product.unsqueeze(-1) * longer.unsqueeze(-2)).flatten(-2)
    return product
