"""An LSTM over rows of features whose order tells something, such as the turns of a dialogue."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Encoder, StreamInfo
from mersuite.models.layers import RunningNorm, pool_rows
from mersuite.models.sequence_layers import MaskedLstm


@dataclass(frozen=True, slots=True, kw_only=True)
class LstmConfig:
    """Knobs of the LSTM.

    Attributes:
        width: D of the tokens; with bidirectional one half is each direction's.
        num_layers: Layers of the LSTM.
        bidirectional: Read the rows from the end as well.
        dropout: Share of values dropped in training before the LSTM and between its layers.
        input_norm: Standardise each feature with statistics of the training rows.
        input_dropout: Share of inputs dropped in training. Why 0.3: as for the perceptron, a ridge penalty, but a
            milder one, because each row is seen beside others that say the same.
    """

    width: int = 32
    num_layers: int = 1
    bidirectional: bool = False
    dropout: float = 0.2
    input_norm: bool = True
    input_dropout: float = 0.3


class LstmEncoder(Encoder):
    """A linear map of each row, then an LSTM that skips what the mask rules out."""

    Config = LstmConfig
    accepts = "feature"
    config: LstmConfig

    def __init__(self, config: LstmConfig, info: StreamInfo, context: BuildContext) -> None:
        super().__init__(config, info, context)
        if config.width < 1 or (config.bidirectional and config.width % 2):
            raise ConfigError(f"need a width of 1 or more, an even one with bidirectional, got width={config.width}")
        self.width = config.width
        self.norm = RunningNorm(info.num_channels) if config.input_norm else None
        self.input_dropout = nn.Dropout(config.input_dropout)
        self.input = nn.Linear(info.num_channels, config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.lstm = MaskedLstm(
            config.width,
            config.width // 2 if config.bidirectional else config.width,
            num_layers=config.num_layers,
            bidirectional=config.bidirectional,
            dropout=config.dropout,
        )

    def forward(self, stream: torch.Tensor, mask: torch.Tensor) -> Encoded:
        """Encodes (B, T, C) rows with their (B, T) mask into (B, K, D) tokens, each what is known up to its rows."""
        if self.norm is not None:
            stream = self.norm(stream, mask)
        stream = torch.where(mask.unsqueeze(-1), stream, torch.zeros((), dtype=stream.dtype, device=stream.device))
        rows = self.dropout(self.input(self.input_dropout(stream)))
        read, _ = self.lstm(Encoded(rows, mask))
        return pool_rows(read.tokens, mask, self.info.rate_hz, self.context.token_rate_hz)
