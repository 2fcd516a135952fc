"""Early fusion: all streams side by side at every step, one LSTM over the steps.

Source: EF-LSTM among the baselines of Tsai et al. 2019, "Multimodal transformer for unaligned multimodal language
sequences".
Axes: B batch, K tokens, D width, T steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Fused, Fusion
from mersuite.models.layers import any_mask
from mersuite.models.sequence_layers import MaskedLstm, align_streams, two_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class EfLstmConfig:
    """Knobs of early fusion.

    Attributes:
        width: D of the result.
        hidden: Width of the LSTM, in each direction.
        num_layers: Layers of the LSTM.
        bidirectional: Read each row from its end as well. Why false: an answer in time then depends on the past alone.
        num_steps: Without a token rate, steps at most that the streams of a clip are brought to.
        dropout: Share of values dropped in training, between layers and before the result.
    """

    width: int = 32
    hidden: int = 32
    num_layers: int = 1
    bidirectional: bool = False
    num_steps: int = 50
    dropout: float = 0.1


class EfLstmFusion(Fusion):
    """`pooled` comes from the state at the last real step, tokens from the states at each step.

    Steps at which no stream is real do not exist for the LSTM. A stream that is missing at a step holds zeros there.
    """

    Config = EfLstmConfig
    config: EfLstmConfig

    def __init__(self, config: EfLstmConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        if config.num_steps < 1:
            raise ConfigError(f"num_steps: need 1 or more steps, got {config.num_steps}")
        self.width = config.width
        self.lstm = MaskedLstm(
            sum(widths.values()),
            config.hidden,
            num_layers=config.num_layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout,
        )
        self.dropout = nn.Dropout(config.dropout)
        self.output = two_layers(self.lstm.width, config.hidden, config.width, config.dropout)

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [encoded[name] for name in self.stream_names]
        if self.context.token_rate_hz is None:
            streams = align_streams(streams, self.config.num_steps)
        mask = any_mask(streams)
        joined = torch.cat([stream.tokens * stream.mask.unsqueeze(-1) for stream in streams], dim=-1)
        states, last = self.lstm(Encoded(joined, mask))
        return Fused(
            tokens=self.output(self.dropout(states.tokens)) * mask.unsqueeze(-1),
            mask=mask,
            pooled=self.output(self.dropout(last)) * mask.any(1, keepdim=True),
        )
