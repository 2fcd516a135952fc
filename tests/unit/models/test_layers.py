import numpy as np
import pytest
import torch

from mersuite.models.layers import RunningNorm, TokenWindows, count_tokens, keep_in_graph, max_norm, pool_rows


def test_running_norm_gathers_the_moments_of_all_real_rows():
    norm = RunningNorm(3)
    generator = torch.Generator().manual_seed(0)
    seen = []
    for size in (5, 2, 11):
        rows = torch.randn(2, size, 3, generator=generator) * torch.tensor([1.0, 20.0, 1e-5]) + torch.tensor(
            [0.0, 99.0, 0.0]
        )
        mask = torch.rand(2, size, generator=generator) > 0.4
        norm(rows, mask)
        seen.append(rows[mask])
    rows = torch.cat(seen).double().numpy()
    np.testing.assert_allclose(norm.mean, rows.mean(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(norm.variance, rows.var(0), rtol=1e-4)
    assert norm.num_rows == len(rows)


def test_running_norm_learns_nothing_in_evaluation_or_from_padding():
    norm = RunningNorm(2)
    rows, none = torch.randn(2, 4, 2), torch.zeros(2, 4, dtype=torch.bool)
    norm(rows, none)
    norm.eval()(rows, ~none)
    assert norm.num_rows == 0
    assert norm.variance.tolist() == [1.0, 1.0]


def test_running_norm_is_one_function_in_training_and_evaluation():
    norm = RunningNorm(4)
    rows, mask = torch.randn(3, 50, 4) * 7 - 2, torch.ones(3, 50, dtype=torch.bool)
    torch.testing.assert_close(norm(rows, mask), norm.eval()(rows, mask))


def test_running_norm_clamps_outliers_and_silences_what_was_constant():
    norm = RunningNorm(2, limit=5.0)
    rows = torch.randn(1, 200, 2)
    rows[..., 1] = 0.7
    mask = torch.ones(1, 200, dtype=torch.bool)
    norm(rows, mask)
    result = norm.eval()(torch.full((1, 1, 2), 1e6), mask[:, :1])
    assert result.tolist() == [[[5.0, 0.0]]]


def test_shared_scale_keeps_the_ratio_of_channels():
    norm = RunningNorm(2, shared_scale=True)
    rows = torch.randn(1, 4000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 3.0]) * 1e-6
    result = norm(rows, torch.ones(1, 4000, dtype=torch.bool))
    assert (result[..., 1].std() / result[..., 0].std()).item() == pytest.approx(3.0, rel=0.05)
    assert result.square().mean().item() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize(("rate", "token_rate"), [(4.0, 1.0), (1000 / 21, 1.0), (1.0, 4.0), (25.0, 2.0), (1.0, 1.0)])
@pytest.mark.parametrize("seconds", [6.0, 5.4])
def test_pooled_rows_do_not_change_with_padding(rate, token_rate, seconds):
    rows = torch.randn(2, int(seconds * rate), 3)
    mask = torch.ones(rows.shape[:2], dtype=torch.bool)
    bare = pool_rows(rows, mask, rate, token_rate)
    num_more = int(4 * rate)
    padded = pool_rows(
        torch.nn.functional.pad(rows, (0, 0, 0, num_more), value=9.0),
        torch.nn.functional.pad(mask, (0, num_more)),
        rate,
        token_rate,
    )
    length = bare.tokens.shape[1]
    assert length == count_tokens(rows.shape[1], rate, token_rate)
    torch.testing.assert_close(padded.tokens[:, :length][bare.mask], bare.tokens[bare.mask])
    assert torch.equal(padded.mask[:, :length], bare.mask)
    assert not padded.mask[:, length:].any()


def test_pooled_rows_are_means_of_the_real_rows_of_each_second():
    rows = torch.arange(8.0).view(1, 8, 1)
    mask = torch.tensor([[True, True, True, False, False, False, False, True]])
    tokens, token_mask = pool_rows(rows, mask, 4.0, 1.0)
    assert tokens.flatten().tolist() == [1.0, 0.0]
    assert token_mask.tolist() == [[True, False]]


def test_slow_rows_are_repeated():
    tokens, _ = pool_rows(torch.arange(3.0).view(1, 3, 1), torch.ones(1, 3, dtype=torch.bool), 0.5, 1.0)
    assert tokens.flatten().tolist() == [0, 0, 1, 1, 2, 2]


def test_windows_start_at_their_token_with_an_uneven_rate():
    rate = 1000 / 21
    windows = TokenWindows(rate, 1.0, 0.5)
    stream = torch.arange(1.0, 477.0).view(1, 476, 1)
    cut, mask = windows(stream, torch.ones(1, 476, dtype=torch.bool))
    assert mask.shape == (1, 10)
    assert cut.shape == (10, 48 + 2 * 24, 1)
    starts = [round(second * rate) for second in range(10)]
    assert cut[:, 24, 0].tolist() == [start + 1 for start in starts]
    assert (cut[0, :24] == 0).all()
    assert cut[9, 24 + 476 - starts[9] :].abs().sum() == 0


def test_windows_of_padding_are_not_cut():
    mask = torch.ones(2, 40, dtype=torch.bool)
    mask[0, 14:] = False  # 1.4 tokens of 10 rows
    cut, token_mask = TokenWindows(10.0, 1.0, 0.0)(torch.ones(2, 40, 3), mask)
    assert token_mask.tolist() == [[True, False, False, False], [True] * 4]
    assert cut.shape == (5, 10, 3)


def test_max_norm_shrinks_long_slices_only():
    weight = torch.tensor([[3.0, 4.0], [0.3, 0.4]])
    torch.testing.assert_close(max_norm(weight, 1.0), torch.renorm(weight, 2, 0, 1.0), rtol=1e-5, atol=1e-6)


def test_kept_graph_changes_no_value_and_has_zero_gradients():
    layer = torch.nn.Linear(2, 2)
    tokens = keep_in_graph(torch.ones(1, 2), layer.parameters())
    assert tokens.tolist() == [[1.0, 1.0]]
    tokens.sum().backward()
    assert layer.weight.grad.abs().sum() == 0
