import pytest
import torch

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.encoders.eegnet import EegNetConfig, EegNetEncoder

PAPER = EegNetConfig(width=4, context_s=0.0, input_norm=False, norm_momentum=0.01)


def encoder_of(config=PAPER, *, channels=22, rate=128.0, token_rate=0.25):
    info = StreamInfo(num_channels=channels, rate_hz=rate)
    torch.manual_seed(0)
    return EegNetEncoder(config, info, BuildContext(streams={"eeg": info}, token_rate_hz=token_rate))


@pytest.mark.parametrize("channels", [1, 22, 64])
def test_number_of_parameters_is_that_of_the_papers_table(channels):
    # EEGNet-8,2: temporal 8 x 64, spatial 16 x C, separable 16 x 16 + 16 x 16, three norms of two a map, readout.
    num_frames = (((4 * 128 + 1) // 4) + 1) // 8
    expected = 8 * 64 + 16 * channels + 16 * 16 + 16 * 16 + 2 * (8 + 16 + 16) + 16 * num_frames * 4 + 4
    assert sum(value.numel() for value in encoder_of(channels=channels).parameters()) == expected


def test_tokens_are_those_of_their_own_windows():
    encoder = encoder_of(token_rate=1.0).eval()
    stream = torch.randn(2, 3 * 128, 22)
    tokens, _ = encoder(stream, torch.ones(2, 3 * 128, dtype=torch.bool))
    for second in range(3):
        window = stream[:, second * 128 : (second + 1) * 128].transpose(1, 2)
        torch.testing.assert_close(tokens[:, second], encoder.core(window), rtol=1e-4, atol=1e-5)


def test_context_reaches_half_a_second_beyond_a_token_and_no_further():
    encoder = encoder_of(EegNetConfig(context_s=0.5, input_norm=False), token_rate=1.0).eval()
    mask = torch.ones(1, 5 * 128, dtype=torch.bool)
    stream = torch.randn(1, 5 * 128, 22)
    before = encoder(stream, mask).tokens
    stream[:, 2 * 128 + 70] += 100.0  # 2.55 s: in token 2, and in the context of token 3
    changed = (encoder(stream, mask).tokens - before).abs().sum(-1)[0] > 1e-6
    assert changed.tolist() == [False, False, True, True, False]


def test_recording_in_volts_gives_the_tokens_of_one_in_microvolts():
    results = []
    mask = torch.ones(4, 256, dtype=torch.bool)
    for scale in (1e-6, 1.0):
        encoder = encoder_of(EegNetConfig(), token_rate=1.0)
        stream = torch.randn(4, 256, 22, generator=torch.Generator().manual_seed(2)) * 20.0 * scale
        encoder(stream, mask)
        results.append(encoder.eval()(stream, mask).tokens)
    torch.testing.assert_close(results[0], results[1], rtol=1e-3, atol=1e-5)
    assert results[0].std(dim=0).mean() > 1e-3


class PlainNet(torch.nn.Module):
    """The first two convolutions in the order of the paper's table."""

    def __init__(self, core, channels):
        super().__init__()
        filters, kernel = core.temporal.shape
        self.temporal = torch.nn.Conv2d(1, filters, (1, kernel), padding=(0, kernel // 2), bias=False)
        self.norm = torch.nn.BatchNorm2d(filters, eps=1e-3, momentum=0.01)
        self.spatial = torch.nn.Conv2d(filters, filters * 2, (channels, 1), groups=filters, bias=False)
        with torch.no_grad():
            self.temporal.weight.copy_(core.temporal[:, None, None])
            self.spatial.weight.copy_(torch.renorm(core.spatial, 2, 0, 1.0)[:, None, :, None])
            self.norm.weight.copy_(core.temporal_norm.weight)
            self.norm.bias.copy_(core.temporal_norm.bias)

    def forward(self, windows):
        return self.spatial(self.norm(self.temporal(windows.unsqueeze(1)))).squeeze(2)


@pytest.mark.parametrize(("channels", "rate"), [(5, 128.0), (3, 125.0)])
def test_spatial_first_equals_temporal_first(channels, rate):
    core = encoder_of(channels=channels, rate=rate, token_rate=1.0).core.double()
    with torch.no_grad():
        core.temporal_norm.weight.uniform_(0.5, 1.5)
        core.temporal_norm.bias.uniform_(-1.0, 1.0)
    plain = PlainNet(core, channels).double()
    windows = torch.randn(4, channels, int(rate), dtype=torch.float64) + 0.5
    weights = torch.randn_like(plain(windows))
    plain.norm.reset_running_stats()
    for training in (True, False):
        core.train(training)
        plain.train(training)
        core.zero_grad()
        plain.zero_grad()
        ours, theirs = core._filter(windows), plain(windows)
        torch.testing.assert_close(ours, theirs)
        (ours * weights).sum().backward()
        (theirs * weights).sum().backward()
        torch.testing.assert_close(core.temporal.grad, plain.temporal.weight.grad[:, 0, 0])
        torch.testing.assert_close(core.temporal_norm.weight.grad, plain.norm.weight.grad)
        torch.testing.assert_close(core.temporal_norm.running_var, plain.norm.running_var)
        torch.testing.assert_close(core.temporal_norm.running_mean, plain.norm.running_mean)
        assert core.temporal_norm.num_batches_tracked == plain.norm.num_batches_tracked


def test_spatial_filters_are_never_longer_than_allowed():
    encoder = encoder_of().eval()
    stream, mask = torch.randn(1, 512, 22), torch.ones(1, 512, dtype=torch.bool)
    with torch.no_grad():
        norms = encoder.core.spatial.norm(dim=1, keepdim=True)
        encoder.core.spatial.mul_(5.0 / norms)
        longer = encoder(stream, mask).tokens
        encoder.core.spatial.mul_(0.2)
    torch.testing.assert_close(encoder(stream, mask).tokens, longer)


def test_window_too_short_to_pool_is_refused():
    with pytest.raises(
        ConfigError, match=r"pools 32 samples into one, a token's window has 16 at 16 Hz; raise context_s"
    ):
        encoder_of(rate=16.0, token_rate=1.0)


@pytest.mark.parametrize(("channels", "rate", "seconds"), [(22, 128.0, 4.0), (64, 200.0, 1.0), (1, 128.0, 2.0)])
def test_equals_braindecodes_network_with_the_same_weights(channels, rate, seconds):
    models = pytest.importorskip("braindecode.models", reason="braindecode is not installed")
    encoder = encoder_of(channels=channels, rate=rate, token_rate=1.0 / seconds)
    other = models.EEGNet(
        n_chans=channels, n_outputs=4, n_times=int(rate * seconds), kernel_length=int(rate / 2), drop_prob=0.0
    )
    assert sum(v.numel() for v in encoder.parameters()) == sum(v.numel() for v in other.parameters())
    # Both list their tensors in the order of the layers; the readout's weight and bias may stand in either order.
    mine = dict(encoder.core.named_parameters()) | dict(encoder.core.named_buffers())
    theirs = dict(other.named_parameters()) | dict(other.named_buffers())
    layers = {
        "temporal.": "conv_temporal.",
        "temporal_norm.": "bnorm_temporal.",
        "spatial.": "conv_spatial.",
        "spatial_norm.": "bnorm_1.",
        "separable.": "conv_separable_depth.",
        "pointwise.": "conv_separable_point.",
        "pointwise_norm.": "bnorm_2.",
        "readout.": "final_layer.",
    }
    with torch.no_grad():
        for key, value in theirs.items():
            value.copy_(torch.rand_like(value.float()) - (0.5 if "running_var" not in key else -0.5))
        for own, foreign in layers.items():
            for kind in ("weight", "bias", "running_mean", "running_var"):
                found = [v for k, v in theirs.items() if k.startswith(foreign) and kind in k.removeprefix(foreign)]
                key = own.removesuffix(".") if own in ("temporal.", "spatial.") else own + kind
                if key in mine and found:
                    mine[key].copy_(found[0].reshape(mine[key].shape))
    stream = torch.randn(3, int(rate * seconds), channels)
    mask = torch.ones(stream.shape[:2], dtype=torch.bool)
    for mode in (False, True):
        encoder.train(mode)
        other.train(mode)
        encoder.core.dropout.p = 0.0
        tokens = encoder(stream, mask).tokens
        torch.testing.assert_close(tokens[:, 0], other(stream.transpose(1, 2)), rtol=1e-4, atol=1e-5)
        for kind in ("running_mean", "running_var"):
            torch.testing.assert_close(mine["temporal_norm." + kind], theirs["bnorm_temporal." + kind])
