import pytest
import torch
from torch.nn import functional

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.encoders.conformer import ConformerConfig, ConformerEncoder

PAPER = ConformerConfig(
    width=4,
    context_s=0.0,
    input_norm=False,
    num_layers=6,
    hidden=256,
    dropout=0.0,
    hidden_dropout=0.0,
    bottleneck_dropout=0.0,
)


def encoder_of(config=PAPER, *, channels=22, rate=250.0, token_rate=0.25):
    info = StreamInfo(num_channels=channels, rate_hz=rate)
    torch.manual_seed(0)
    return ConformerEncoder(config, info, BuildContext(streams={"eeg": info}, token_rate_hz=token_rate))


@pytest.mark.parametrize("channels", [1, 22, 64])
def test_number_of_parameters_is_that_of_the_papers_layers(channels):
    num_patches = (1000 - 25 + 1 - 75) // 15 + 1
    stem = 40 * 25 + 40 + 40 * 40 * channels + 40 + 2 * 40 + 40 * 40 + 40
    block = 4 * (40 * 40 + 40) + 40 * 160 + 160 + 160 * 40 + 40 + 4 * 40
    readout = num_patches * 40 * 256 + 256 + 256 * 32 + 32 + 32 * 4 + 4
    count = sum(value.numel() for value in encoder_of(channels=channels).parameters())
    assert count == stem + 6 * block + readout


def test_one_filter_equals_both_convolutions_one_after_the_other():
    core = encoder_of().core.double()
    windows = torch.randn(3, 22, 1000, dtype=torch.float64)
    expected = core.spatial(core.temporal(windows.unsqueeze(1))).squeeze(2)
    torch.testing.assert_close(core._filter(windows), expected)
    ones = torch.randn_like(expected)
    functional.mse_loss(core._filter(windows), ones).backward()
    gradient = core.temporal.weight.grad.clone()
    core.zero_grad()
    functional.mse_loss(core.spatial(core.temporal(windows.unsqueeze(1))).squeeze(2), ones).backward()
    torch.testing.assert_close(core.temporal.weight.grad, gradient)


def test_window_too_short_for_a_patch_is_refused():
    with pytest.raises(
        ConfigError, match=r"conformer needs 99 samples a window .* a token's has 62 at 250 Hz; raise context_s"
    ):
        encoder_of(token_rate=4.0)


def test_heads_that_do_not_divide_the_filters_are_refused():
    with pytest.raises(ConfigError, match="attention needs a width that num_heads divides, got width=40, num_heads=7"):
        encoder_of(ConformerConfig(num_heads=7))


@pytest.mark.parametrize(("channels", "seconds"), [(22, 4.0), (64, 1.0), (1, 2.0)])
def test_equals_braindecodes_network_with_the_same_weights(channels, seconds):
    models = pytest.importorskip("braindecode.models", reason="braindecode is not installed")
    encoder = encoder_of(channels=channels, token_rate=1.0 / seconds).eval()
    try:
        other = models.EEGConformer(n_chans=channels, n_outputs=4, n_times=int(250 * seconds), num_layers=6).eval()
    except TypeError:
        pytest.skip("braindecode before 1.8 divides attention by the whole width")
    mine, theirs = encoder.core.state_dict(), other.state_dict()
    assert sum(v.numel() for v in encoder.parameters()) == sum(v.numel() for v in other.parameters())
    foreign = iter(theirs.items())
    own_order = [key for key in mine if not key.startswith("blocks.")]
    stem, readout = own_order[: own_order.index("patches.bias") + 1], own_order[own_order.index("patches.bias") + 1 :]
    block = ["attention_norm.{}", "attention.keys.{}", "attention.queries.{}", "attention.values.{}"]
    block += ["attention.project.{}", "feed_norm.{}", "feed.0.{}", "feed.3.{}"]
    order = [*stem]
    for i in range(6):
        order += [f"blocks.{i}.{part.format(kind)}" for part in block for kind in ("weight", "bias")]
    order += readout
    with torch.no_grad():
        for key in order:
            _, value = next(foreign)
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) * 0.4 - (0.2 if "running_var" not in key else -0.5))
            mine[key].copy_(value.reshape(mine[key].shape))
    assert next(foreign, None) is None
    stream = torch.randn(3, int(250 * seconds), channels)
    tokens = encoder(stream, torch.ones(stream.shape[:2], dtype=torch.bool)).tokens
    torch.testing.assert_close(tokens[:, 0], other(stream.transpose(1, 2)), rtol=1e-4, atol=1e-5)
