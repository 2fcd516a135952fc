"""Common steps for streams of unequal length, and LSTMs that know masks."""

import numpy as np
import pytest
import torch

from mersuite.errors import ConfigError
from mersuite.models.base import Encoded
from mersuite.models.sequence_layers import (
    GatedMemory,
    LstmSystem,
    MaskedLstm,
    align_streams,
    delta_cells,
    last_real,
    resample_tokens,
    sub_network,
)

HOLES = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]).bool()


def random_stream(mask=HOLES, width=3, seed=0):
    """Tokens that are not zero where the mask is False: no layer may look there."""
    return Encoded(torch.randn(*mask.shape, width, generator=torch.Generator().manual_seed(seed)), mask)


def ramp(length, *, padding=0):
    tokens = torch.arange(float(length)).view(1, -1, 1)
    mask = torch.ones(1, length, dtype=torch.bool)
    return Encoded(
        torch.nn.functional.pad(tokens, (0, 0, 0, padding), value=99.0), torch.nn.functional.pad(mask, (0, padding))
    )


def test_resampling_to_more_steps_is_linear_interpolation_at_the_middles_of_equal_parts():
    values = np.random.default_rng(0).normal(size=4)
    stream = Encoded(torch.tensor(values).view(1, 4, 1), torch.ones(1, 4, dtype=torch.bool))
    found = resample_tokens(stream, 10).tokens.flatten()
    expected = np.interp((np.arange(10) + 0.5) * 4 / 10 - 0.5, np.arange(4), values)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_resampling_to_as_many_steps_as_there_are_real_tokens_keeps_them():
    stream = random_stream()
    found = resample_tokens(stream, 3)
    torch.testing.assert_close(found.tokens[0], stream.tokens[0, [0, 1, 3]])
    assert found.mask.tolist() == [[True] * 3, [True] * 3, [False] * 3, [True] * 3]
    assert (found.tokens[2] == 0).all()
    torch.testing.assert_close(found.tokens[3], stream.tokens[3, [0]].expand(3, -1))


def test_resampling_to_fewer_steps_uses_every_token_and_keeps_a_straight_line():
    stream = ramp(12)
    stream.tokens.requires_grad_()
    found = resample_tokens(stream, 4).tokens.flatten()
    found.square().sum().backward()
    assert (stream.tokens.grad[:, 1:].abs() > 0).all()
    torch.testing.assert_close(found[1:3].detach(), torch.tensor([4.0, 7.0]))
    assert found.detach().diff().min() > 2.0


@pytest.mark.parametrize("num_steps", [2, 5, 9])
def test_resampling_does_not_see_padding(num_steps):
    bare, padded = resample_tokens(ramp(5), num_steps), resample_tokens(ramp(5, padding=4), num_steps)
    torch.testing.assert_close(padded.tokens, bare.tokens)
    assert torch.equal(padded.mask, bare.mask)


def test_streams_are_aligned_to_the_longest_of_each_row_and_to_the_limit():
    long, short = ramp(8), ramp(2, padding=3)
    found = align_streams([long, short], 50)
    assert [part.tokens.shape for part in found] == [(1, 8, 1)] * 2
    torch.testing.assert_close(found[0].tokens, long.tokens)
    expected = np.interp((np.arange(8) + 0.5) / 4 - 0.5, [0, 1], [0.0, 1.0])
    np.testing.assert_allclose(found[1].tokens.flatten(), expected, atol=1e-6)
    assert align_streams([long, short], 6)[1].mask.sum() == 6
    one = align_streams([ramp(1, padding=7), ramp(1)], 50)
    assert [part.mask.sum().item() for part in one] == [1, 1]


def test_fewer_than_one_step_is_refused():
    with pytest.raises(ConfigError, match="num_steps: need 1 or more steps, got 0"):
        resample_tokens(ramp(3), 0)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_masked_lstm_is_an_lstm_over_the_real_tokens_alone(bidirectional, num_layers):
    torch.manual_seed(0)
    masked = MaskedLstm(3, 4, num_layers=num_layers, bidirectional=bidirectional)
    plain = torch.nn.LSTM(3, 4, num_layers, batch_first=True, bidirectional=bidirectional)
    with torch.no_grad():
        for i in range(num_layers):
            for layers, suffix in ((masked.forwards, ""), (masked.backwards, "_reverse")):
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh") if len(layers) else ():
                    getattr(plain, f"{name}_l{i}{suffix}").copy_(getattr(layers[i], f"{name}_l0"))
    stream = random_stream()
    outputs, ends = masked(stream)
    for row in (0, 1, 3):
        expected, (hidden, _) = plain(stream.tokens[[row]][:, stream.mask[row]])
        torch.testing.assert_close(outputs.tokens[row, stream.mask[row]], expected[0])
        torch.testing.assert_close(ends[row], hidden[-2 if bidirectional else -1 :, 0].flatten())
    assert (outputs.tokens[~stream.mask] == 0).all()
    assert (ends[2] == 0).all()


def test_lstms_of_a_system_are_lstms_that_keep_their_state_where_a_stream_is_not_real():
    torch.manual_seed(0)
    system = LstmSystem([3, 2], 4)
    streams = [random_stream(), random_stream(HOLES.flip(1), width=2)]
    hidden, cells = system(streams)
    assert hidden.shape == cells.shape == (4, 5, 2, 4)
    for s, stream in enumerate(streams):
        cell = torch.nn.LSTMCell(stream.tokens.shape[2], 4)
        with torch.no_grad():
            cell.weight_ih.copy_(system.inputs[s].weight)
            cell.bias_ih.copy_(system.inputs[s].bias)
            cell.weight_hh.copy_(system.recurrent[s].T)
            cell.bias_hh.zero_()
        for row in range(4):
            state = torch.zeros(1, 4), torch.zeros(1, 4)
            for step in range(5):
                if stream.mask[row, step]:
                    state = cell(stream.tokens[[row], step], state)
                torch.testing.assert_close(hidden[row, step, s], state[0][0])
                torch.testing.assert_close(cells[row, step, s], state[1][0])


def test_cells_before_the_first_step_are_zero():
    cells = torch.arange(1.0, 13.0).view(1, 3, 2, 2)
    found = delta_cells(cells)
    assert found.shape == (1, 3, 8)
    assert (found[0, 0, :4] == 0).all()
    assert torch.equal(found[0, 1:, :4], cells[0, :2].flatten(1))
    assert torch.equal(found[0, :, 4:], cells[0].flatten(1))


def test_memory_stands_still_at_steps_that_are_not_real():
    torch.manual_seed(0)
    memory = GatedMemory(3, 2, 5, 0.0)
    stream = random_stream()
    found = memory(stream.tokens, stream.mask)
    packed = memory(stream.tokens[:1, stream.mask[0]], torch.ones(1, 3, dtype=torch.bool))
    torch.testing.assert_close(found[0, stream.mask[0]], packed[0])
    assert torch.equal(found[0, 2], found[0, 1])
    assert (found[2] == 0).all()


def test_last_real_token_may_be_followed_by_holes_and_padding():
    stream = random_stream()
    expected = torch.stack([stream.tokens[0, 3], stream.tokens[1, 4], torch.zeros(3), stream.tokens[3, 0]])
    assert torch.equal(last_real(stream), expected)


def test_widths_and_layers_below_one_are_refused():
    with pytest.raises(ConfigError, match="an LSTM needs layers and a hidden width of 1 or more, got 0 and 4"):
        MaskedLstm(3, 4, num_layers=0)
    with pytest.raises(ConfigError, match="an LSTM needs a hidden width of 1 or more, got 0"):
        LstmSystem([3], 0)
    with pytest.raises(ConfigError, match="a sub-network needs layers and a width of 1 or more, got 0 and 8"):
        sub_network(3, 8, 0, 0.1)
