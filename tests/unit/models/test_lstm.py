"""What the LSTM encoder adds to the contract that every encoder keeps to."""

from __future__ import annotations

import pytest
import torch

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.encoders.lstm import LstmConfig, LstmEncoder


def build(config: LstmConfig) -> LstmEncoder:
    info = StreamInfo(num_channels=5, rate_hz=1.0)
    torch.manual_seed(0)
    return LstmEncoder(config, info, BuildContext(streams={"x": info})).eval()


def rows(num_rows: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, num_rows, 5, generator=generator), torch.ones(2, num_rows, dtype=torch.bool)


def test_a_token_is_the_state_after_its_row():
    encoder = build(LstmConfig(width=4, input_norm=False))
    stream, mask = rows()
    layer = encoder.lstm.forwards[0]
    state = None
    for step in range(stream.shape[1]):
        _, state = layer(encoder.input(stream[:, step : step + 1]), state)
        torch.testing.assert_close(encoder(stream, mask).tokens[:, step], state[0][0])


@pytest.mark.parametrize("bidirectional", [False, True])
def test_later_rows_are_seen_by_both_directions_only(bidirectional: bool):
    encoder = build(LstmConfig(width=4, bidirectional=bidirectional))
    stream, mask = rows()
    later = stream.clone()
    later[:, 4:] += 1.0
    moved = (encoder(stream, mask).tokens - encoder(later, mask).tokens).abs().amax((0, 2))
    assert (moved[:4] > 0).all() == bidirectional and (moved[4:] > 0).all()


def test_rows_that_are_not_real_are_never_read_without_a_norm_either():
    encoder = build(LstmConfig(width=4, input_norm=False))
    stream, mask = rows()
    mask[:, 2] = False
    holed = stream.clone()
    holed[:, 2] = float("nan")
    bare = encoder(stream[:, [0, 1, 3, 4, 5]], mask[:, [0, 1, 3, 4, 5]]).tokens
    torch.testing.assert_close(encoder(holed, mask).tokens[:, [0, 1, 3, 4, 5]], bare)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (LstmConfig(width=0), "need a width of 1 or more, an even one with bidirectional, got width=0"),
        (LstmConfig(width=5, bidirectional=True), "an even one with bidirectional, got width=5"),
        (LstmConfig(num_layers=0), "an LSTM needs layers and a hidden width of 1 or more, got 0"),
    ],
)
def test_knobs_out_of_range_are_refused(config: LstmConfig, message: str):
    with pytest.raises(ConfigError, match=message):
        build(config)
