"""Memory fusion: an LSTM a stream, attention over how their cells change, and a memory over all of them.

Source: Zadeh et al. 2018, "Memory fusion network for multi-view sequential learning". With c[t] the cells of all LSTMs:
a = softmax(D_a(c[t-1, t])), seen = a * c[t-1, t], u[t] = retain(seen) * u[t-1] + update(seen) * tanh(D_u(seen)); the
result is read from [h of every stream; u].
Axes: B batch, K tokens, D width, S streams, H hidden width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Fused, Fusion
from mersuite.models.layers import any_mask
from mersuite.models.sequence_layers import GatedMemory, LstmSystem, align_streams, delta_cells, last_real, two_layers


@dataclass(frozen=True, slots=True, kw_only=True)
class MfnConfig:
    """Knobs of memory fusion.

    Attributes:
        width: D of the result.
        hidden: H of each stream's LSTM.
        memory: Width of the memory.
        attention: Width of the hidden layer of the attention's network.
        gates: Width of the hidden layer of the memory's three networks.
        num_steps: Without a token rate, steps at most that the streams of a clip are brought to.
        dropout: Share of hidden values dropped in training.
    """

    width: int = 32
    hidden: int = 32
    memory: int = 32
    attention: int = 32
    gates: int = 32
    num_steps: int = 50
    dropout: float = 0.1


class MfnFusion(Fusion):
    """`pooled` comes from the states at the last real step, tokens from the states at each step.

    A stream keeps its state where it is not real, so that one missing from a row holds zeros; the memory keeps its
    where no stream is real.
    """

    Config = MfnConfig
    config: MfnConfig

    def __init__(self, config: MfnConfig, widths: Mapping[str, int], context: BuildContext) -> None:
        super().__init__(config, widths, context)
        if min(config.width, config.memory, config.attention, config.gates, config.num_steps) < 1:
            raise ConfigError(
                "need width, memory, attention, gates and num_steps of 1 or more, got "
                f"{config.width}, {config.memory}, {config.attention}, {config.gates} and {config.num_steps}"
            )
        self.width = config.width
        self.lstms = LstmSystem(list(widths.values()), config.hidden)
        num_cells = 2 * len(widths) * config.hidden
        self.attend = two_layers(num_cells, config.attention, num_cells, config.dropout)
        self.memory = GatedMemory(num_cells, config.memory, config.gates, config.dropout)
        self.output = two_layers(
            len(widths) * config.hidden + config.memory, config.width, config.width, config.dropout
        )

    def forward(self, encoded: Mapping[str, Encoded]) -> Fused:
        """Joins the streams."""
        streams = [encoded[name] for name in self.stream_names]
        if self.context.token_rate_hz is None:
            streams = align_streams(streams, self.config.num_steps)
        mask = any_mask(streams)
        hidden, cells = self.lstms(streams)
        change = delta_cells(cells)
        memory = self.memory(self.attend(change).softmax(-1) * change, mask)
        tokens = self.output(torch.cat([hidden.flatten(2), memory], dim=-1)) * mask.unsqueeze(-1)
        return Fused(tokens=tokens, mask=mask, pooled=last_real(Encoded(tokens, mask)))
