"""MFM: one factor that answers, one factor a stream that only helps to rebuild it, all of them near a normal prior.

Source: Tsai et al. 2019, "Learning factorized multimodal representations".
Axes: B batch, K tokens, D width, S streams, L width of a latent vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mersuite.models.base import BuildContext, Encoded, Fused, Fusion, masked_mean
from mersuite.models.batch_losses import normal_discrepancy, squared_error
from mersuite.models.layers import any_mask, join_tokens, pool_stream
from mersuite.models.sequence_layers import two_layers
from mersuite.schema import require


@dataclass(frozen=True, slots=True, kw_only=True)
class MfmConfig:
    """Knobs of MFM.

    Attributes:
        width: D of the discriminative factor, which is the result.
        factor_width: Width of the generative factor of each stream.
        latent_width: L of the latent vectors, one behind each factor.
        dropout: Share of hidden values dropped in training.
        reconstruction_weight: Weight of rebuilding each stream from its own and the discriminative factor.
        prior_weight: Weight of the distance between latent vectors and the unit normal distribution.
    """

    width: int = 32
    factor_width: int = 16
    latent_width: int = 16
    dropout: float = 0.1
    reconstruction_weight: float = 0.1
    prior_weight: float = 0.1

    def __post_init__(self) -> None:
        weights = (self.reconstruction_weight, self.prior_weight)
        require(min(weights) >= 0, f"need weights of the losses of 0 or more, got {weights}")


class MfmFusion(Fusion):
    """Streams -> latent vectors z -> factors f -> the streams again; the result is the discriminative factor f_y.

    z_y sees all streams, z_m stream m alone; f_y and f_m are networks of these, and stream m is rebuilt from both. The
    two losses are the model's generative half. Without a reconstruction_weight, z_m and f_m have no use and are not
    built.

    What is rebuilt are the stream's tokens as they stand, without a gradient to them. Why: in the paper they are data;
    an encoder that could change them would learn tokens that are easily rebuilt.
    With a token rate every time step is a sample of its own. Without, the streams' averages are, and each token passes
    alone, as if the other streams were missing. The paper reads sequences with an MFN, here the encoders do.
    """

    Config = MfmConfig
    config: MfmConfig

    def __init__(self, config: MfmConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        self.width = config.width
        self.sizes = tuple(widths.values())
        width, latent, factor = config.width, config.latent_width, config.factor_width
        self.latent = two_layers(sum(widths.values()) + len(widths), width, latent, config.dropout)
        self.factor = two_layers(latent, width, width, config.dropout)
        sizes = self.sizes if config.reconstruction_weight > 0 else ()
        self.own_latents = nn.ModuleList(two_layers(size, width, latent, config.dropout) for size in sizes)
        self.own_factors = nn.ModuleList(two_layers(latent, factor, factor, config.dropout) for _ in sizes)
        self.rebuild = nn.ModuleList(two_layers(factor + width, width, size, config.dropout) for size in sizes)

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [encoded[name] for name in self.stream_names]
        in_time = self.context.token_rate_hz is not None
        samples = dict(enumerate(streams if in_time else [pool_stream(stream) for stream in streams]))
        latent, mask = self._meet(samples)
        factor = self.factor(latent)
        losses = self._losses(latent, factor, list(samples.values()), mask)
        tokens = factor * mask.unsqueeze(-1)
        if in_time:
            return Fused(tokens=tokens, mask=mask, pooled=masked_mean(tokens, mask), losses=losses)
        alone = join_tokens([self._meet({i: stream}) for i, stream in enumerate(streams)])
        each = self.factor(alone.tokens) * alone.mask.unsqueeze(-1)
        return Fused(tokens=each, mask=alone.mask, pooled=tokens.squeeze(1), losses=losses)

    def _meet(self, streams: Mapping[int, Encoded]) -> Encoded:
        """Gives z_y for the streams that are given, by their places; the others count as missing."""
        like = next(iter(streams.values()))
        parts, flags = [], []
        for i, size in enumerate(self.sizes):
            mask = streams[i].mask if i in streams else torch.zeros_like(like.mask)
            tokens = streams[i].tokens if i in streams else like.tokens.new_zeros((*mask.shape, size))
            parts.append(tokens * mask.unsqueeze(-1))
            flags.append(~mask)
        seen = torch.cat([*parts, torch.stack(flags, dim=-1).to(parts[0].dtype)], dim=-1)
        return Encoded(self.latent(seen), any_mask(streams.values()))

    def _losses(
        self, latent: torch.Tensor, factor: torch.Tensor, streams: Sequence[Encoded], mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Gives the weighted terms of z_y, f_y and the streams."""
        wanted = [stream.tokens * stream.mask.unsqueeze(-1) for stream in streams]
        own = [layer(tokens) for layer, tokens in zip(self.own_latents, wanted, strict=bool(self.own_latents))]
        losses = {}
        if own:
            factors = [layer(item) for layer, item in zip(self.own_factors, own, strict=True)]
            terms = [
                squared_error(layer(torch.cat([item, factor], dim=-1)), tokens.detach(), stream.mask)
                for layer, item, tokens, stream in zip(self.rebuild, factors, wanted, streams, strict=True)
            ]
            losses["reconstruction"] = self.config.reconstruction_weight * torch.stack(terms).mean()
        if self.config.prior_weight > 0:
            pairs = [(latent, mask), *((item, stream.mask) for item, stream in zip(own, streams, strict=bool(own)))]
            terms = [normal_discrepancy(item.flatten(0, 1), rows.flatten()) for item, rows in pairs]
            losses["prior"] = self.config.prior_weight * torch.stack(terms).sum()
        return losses
