"""MCTN: one stream is translated into the others and back; what the translation needs to know is the answer.

Source: Pham et al. 2019, "Found in translation: learning robust joint representations by cyclic translations between
modalities".
Axes: B batch, K tokens, D width, S streams.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from mersuite.errors import ConfigError, did_you_mean
from mersuite.models.attention import Attention, index_code
from mersuite.models.base import BuildContext, Encoded, Fused, Fusion
from mersuite.models.batch_losses import squared_error
from mersuite.models.sequence_layers import MaskedLstm, last_real
from mersuite.schema import require


@dataclass(frozen=True, slots=True, kw_only=True)
class MctnConfig:
    """Knobs of MCTN.

    Attributes:
        width: D of the joint encodings and of the result; num_heads divides it.
        source: The stream that answers; "" takes the first of model.encoders.
        num_heads: Heads of the decoders' attention.
        dropout: Share of values and attention weights dropped in training.
        translation_weight: Weight of the error of the translations into the other streams.
        cycle_weight: Weight of the error of the way back.
    """

    width: int = 32
    source: str = ""
    num_heads: int = 4
    dropout: float = 0.1
    translation_weight: float = 0.1
    cycle_weight: float = 0.1

    def __post_init__(self) -> None:
        weights = (self.translation_weight, self.cycle_weight)
        require(min(weights) >= 0, f"need weights of the losses of 0 or more, got {weights}")


class Decoder(nn.Module):
    """Writes a sequence of any length from a joint encoding: attention for each place, then an LSTM, then one layer.

    The paper's decoder takes its own last output as an input. This one takes the code of its place alone. Why: all
    places are then attended to at once, and training needs no rule on whose output to feed.
    """

    def __init__(self, width: int, num_outputs: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.width = width
        # An LSTM's outputs begin small and much alike; attention would hardly tell them apart.
        self.norm = nn.LayerNorm(width)
        self.attention = Attention(width, num_heads, dropout)
        self.recurrent = MaskedLstm(width, width)
        self.output = nn.Linear(width, num_outputs)

    def forward(self, joint: Encoded, mask: torch.Tensor) -> Encoded:
        """Gives (B, K, num_outputs) at the places of the (B, K) bool mask, from joint tokens of any number."""
        places = index_code(mask.shape[1], self.width, device=mask.device, dtype=joint.tokens.dtype)
        found = self.attention(places.expand(len(mask), -1, -1), self.norm(joint.tokens), joint.mask)
        written, _ = self.recurrent(Encoded(found, mask))
        return Encoded(self.output(written.tokens) * mask.unsqueeze(-1), mask)


class MctnFusion(Fusion):
    """The source stream alone answers; the others teach it while it is trained.

    Level 1 encodes the source; level n > 1 encodes the joint encoding of the level before. Each level is translated
    into one further stream, and the translation is encoded by an encoder of its own and translated back into the source
    (the paper's hierarchical model for three streams, for any number of them). The last level's encoding is the result.
    Rows that lack the source or the target have no part in a level's losses. Without a gradient (a prediction) nothing
    is translated.

    Other streams never change an answer. A row without the source has none: its tokens are missing and its vector is
    zero; so model.modality_dropout, which hides the source as well, does not go with this fusion.

    Targets are the streams' tokens as they stand, without a gradient. Why: in the paper they are data; an encoder that
    could change them would learn tokens that are easily written. The weights of the other streams' encoders therefore
    stay as they were made: choose ones that are of use untrained.
    """

    Config = MctnConfig
    config: MctnConfig

    def __init__(self, config: MctnConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        if config.source and config.source not in widths:
            raise ConfigError(
                f"source: there is no encoder for the stream {config.source!r}; {did_you_mean(config.source, widths)}"
            )
        self.source = config.source or self.stream_names[0]
        self.targets = self.teachers = tuple(name for name in self.stream_names if name != self.source)
        width, translates = config.width, config.translation_weight > 0
        self.width = width
        num_levels = max(1, len(self.targets))
        read = [widths[self.source], *[width] * (num_levels - 1)]
        written = [widths[name] for name in self.targets] if translates or config.cycle_weight > 0 else []
        cycled = written if config.cycle_weight > 0 else []
        self.encoders = nn.ModuleList(MaskedLstm(size, width) for size in read)
        self.decoders = nn.ModuleList(Decoder(width, size, config.num_heads, config.dropout) for size in written)
        self.back_encoders = nn.ModuleList(MaskedLstm(size, width) for size in cycled)
        self.back_decoders = nn.ModuleList(Decoder(width, read[0], config.num_heads, config.dropout) for _ in cycled)
        self.output = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(width, width))

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Encodes the source; the other streams are only compared with its translations."""
        stream = encoded[self.source]
        source = Encoded(stream.tokens * stream.mask.unsqueeze(-1), stream.mask)
        joint: list[Encoded] = []
        for encoder in self.encoders:
            joint.append(encoder(joint[-1] if joint else source)[0])
        tokens = self.output(joint[-1].tokens) * stream.mask.unsqueeze(-1)
        losses = {}
        if torch.is_grad_enabled():
            losses = self._losses(source, joint, [encoded[name] for name in self.targets])
        return Fused(tokens=tokens, mask=stream.mask, pooled=last_real(Encoded(tokens, stream.mask)), losses=losses)

    def _losses(self, source: Encoded, joint: list[Encoded], targets: list[Encoded]) -> dict[str, torch.Tensor]:
        """Gives the weighted errors of the translations and of the ways back."""
        translation, cycle = [], []
        for i, decoder in enumerate(self.decoders):
            there = (targets[i].mask.any(1) & source.mask.any(1)).unsqueeze(1)
            written = decoder(joint[i], targets[i].mask & there)
            translation.append(squared_error(written.tokens, targets[i].tokens.detach(), written.mask))
            if self.back_encoders:
                again = self.back_decoders[i](self.back_encoders[i](written)[0], source.mask & there)
                cycle.append(squared_error(again.tokens, source.tokens.detach(), again.mask))
        losses = {}
        if translation and self.config.translation_weight > 0:
            losses["translation"] = self.config.translation_weight * torch.stack(translation).mean()
        if cycle:
            losses["cycle"] = self.config.cycle_weight * torch.stack(cycle).mean()
        return losses
