"""A multilayer perceptron on each row of features, or on one vector a clip."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Encoder, StreamInfo
from mersuite.models.layers import RunningNorm, pool_rows

_ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU}


@dataclass(frozen=True, slots=True, kw_only=True)
class MlpConfig:
    """Knobs of the perceptron.

    Attributes:
        width: D of the tokens. Why 32: small beside the number of people that can be learned from.
        hidden: Width of the hidden layers. Why 64: 320 band powers give 23 thousand parameters.
        num_layers: Linear layers in all, the last one included; 1 is a linear map.
        dropout: Share of hidden values dropped in training.
        activation: What follows each layer but the last.
        activate_output: Let it follow the last layer, too. Why off: a linear last layer leaves the sign to the fusion.
            The organisers' baseline of MER-Cross has it on.
        input_norm: Standardise each feature with statistics of the training rows.
        input_dropout: Share of standardised inputs dropped in training. Why 0.5: for the first layer it is a ridge
            penalty of p / (1 - p) on standardised features (Wager et al. 2013), near what a ridge regression chooses
            with some twenty people and hundreds of correlated features.
    """

    width: int = 32
    hidden: int = 64
    num_layers: int = 2
    dropout: float = 0.25
    activation: Literal["gelu", "relu"] = "gelu"
    activate_output: bool = False
    input_norm: bool = True
    input_dropout: float = 0.5


class MlpEncoder(Encoder):
    """Encodes every row by itself; rows faster than the track's token rate are averaged afterwards."""

    Config = MlpConfig
    accepts = "feature"
    config: MlpConfig

    def __init__(self, config: MlpConfig, info: StreamInfo, context: BuildContext) -> None:
        super().__init__(config, info, context)
        if config.num_layers < 1 or config.width < 1 or config.hidden < 1:
            raise ConfigError(
                "need num_layers, width and hidden of 1 or more, "
                f"got num_layers={config.num_layers}, width={config.width}, hidden={config.hidden}"
            )
        self.width = config.width
        self.norm = RunningNorm(info.num_channels) if config.input_norm else None
        self.input_dropout = nn.Dropout(config.input_dropout)
        layers: list[nn.Module] = []
        num_inputs = info.num_channels
        for _ in range(config.num_layers - 1):
            layers += [
                nn.Linear(num_inputs, config.hidden),
                _ACTIVATIONS[config.activation](),
                nn.Dropout(config.dropout),
            ]
            num_inputs = config.hidden
        last: list[nn.Module] = [_ACTIVATIONS[config.activation]()] if config.activate_output else []
        self.layers = nn.Sequential(*layers, nn.Linear(num_inputs, config.width), *last)

    def forward(self, stream: torch.Tensor, mask: torch.Tensor) -> Encoded:
        """Encodes (B, T, C) rows with their (B, T) mask into (B, K, D) tokens."""
        if self.norm is not None:
            stream = self.norm(stream, mask)
        tokens = self.layers(self.input_dropout(stream)) * mask.unsqueeze(-1)
        return pool_rows(tokens, mask, self.info.rate_hz, self.context.token_rate_hz)
