import math
from types import SimpleNamespace

import pytest
import torch

from mersuite.clip import Batch, WindowKey
from mersuite.config import PretrainConfig
from mersuite.errors import ConfigError, DataError
from mersuite.models.backbone import build_backbone
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.pretrain import MaskedReconstruction
from mersuite.schema import build_named

STREAMS = {
    "eeg": StreamInfo(num_channels=4, rate_hz=64.0),
    "de": StreamInfo(num_channels=6, rate_hz=1.0),
    "text": StreamInfo(num_channels=5, rate_hz=0.0),
}
EEG = {"name": "eegnet", "dropout": 0.0}
MLP = {"name": "mlp", "dropout": 0.0}
ENCODERS = {"eeg": EEG, "de": MLP, "text": MLP}


def model_of(encoders=ENCODERS, config=None, *, token_rate=1.0):
    context = BuildContext(streams=STREAMS, window_s=8.0, token_rate_hz=token_rate)
    model = SimpleNamespace(
        encoders={name: build_named("encoder", part, name) for name, part in encoders.items()},
        fusion=build_named("fusion", "concat", "fusion"),
        modality_dropout=0.0,
    )
    torch.manual_seed(0)
    return MaskedReconstruction(build_backbone(model, context), config or PretrainConfig())


def batch_of(streams=tuple(STREAMS), size=8, seconds=8, seed=1):
    """Streams whose channels are mixtures of one slow wave, so that each can be told from the others."""
    generator = torch.Generator().manual_seed(seed)
    held = {}
    for name in streams:
        info = STREAMS[name]
        num_rows = max(1, round(seconds * info.rate_hz))
        times = torch.arange(num_rows) / (info.rate_hz or 1.0)
        phase = torch.rand(size, 1, 1, generator=generator) * 2 * math.pi
        wave = torch.sin(2 * math.pi * 0.25 * times.view(1, -1, 1) + phase)
        held[name] = wave * torch.linspace(1.0, 2.0, info.num_channels) * 1e-3 + 5.0
    return Batch(
        keys=[WindowKey("s", 0.0, 8.0)] * size,
        streams=held,
        masks={name: torch.ones(value.shape[:2], dtype=torch.bool) for name, value in held.items()},
    )


@pytest.mark.parametrize("token_rate", [1.0, None])
def test_knowing_nothing_costs_about_one(token_rate):
    losses = model_of(token_rate=token_rate).stream_losses(batch_of(size=64))
    assert set(losses) == set(STREAMS)
    for loss in losses.values():
        assert 0.5 < loss.item() < 2.0


@pytest.mark.parametrize("name", ["eeg", "de"])
def test_what_is_hidden_is_learned_from_what_is_not(name):
    model = model_of({name: ENCODERS[name]})
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    torch.manual_seed(0)
    for step in range(120):
        loss = model(batch_of((name,), seed=step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        assert model(batch_of((name,), size=32, seed=999)) < 0.5


def test_gradient_reaches_every_encoder_and_decoder():
    model = model_of()
    model(batch_of()).backward()
    parts = [*model.backbone.encoders.named_parameters(), *model.decoders.named_parameters()]
    assert all(value.grad is not None for _, value in parts)
    assert all(value.grad is None for value in model.backbone.fusion.parameters())


def test_stream_that_the_batch_lacks_keeps_gradients_of_zero():
    model = model_of()
    losses = model.stream_losses(batch_of(("eeg",)))
    assert set(losses) == {"eeg"}
    losses["eeg"].backward()
    assert all((value.grad == 0).all() for value in model.backbone.encoder("de").parameters())


def test_padding_never_enters_the_loss():
    results = []
    for filler in (0.0, float("nan")):
        model, batch = model_of({"eeg": EEG, "de": MLP}), batch_of(("eeg", "de"))
        for name in batch.streams:
            half = batch.masks[name].shape[1] // 2
            batch.masks[name][:, half:] = False
            batch.streams[name][:, half:] = filler
        torch.manual_seed(3)
        results.append(model(batch))
    torch.testing.assert_close(results[0], results[1])


def test_encoder_never_sees_what_is_hidden():
    model = model_of({"de": MLP})
    seen = []
    model.backbone.encoder("de").register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    batch = batch_of(("de",), size=200)
    torch.manual_seed(0)
    model(batch)
    changed = seen[0] != batch.streams["de"]
    # A stretch is hidden with 0.4, of the rest a channel with 0.25.
    assert changed.float().mean().item() == pytest.approx(1 - 0.6 * 0.75, abs=0.05)
    assert torch.equal(seen[0][changed], model.norms["stream_de"].mean.expand_as(seen[0])[changed])


def test_batch_without_any_configured_stream_is_refused():
    with pytest.raises(DataError, match=r"a batch holds the streams \['de'\], none of which is configured"):
        model_of({"eeg": EEG})(batch_of(("de",)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"time_rate": 1.0}, "need 0 <= time_rate, channel_rate < 1 and not both 0"),
        ({"time_rate": 0.0, "channel_rate": 0.0}, "and not both 0"),
        ({"reach": 4}, "reach: need an odd number of tokens, got 4"),
        ({"signal_span_s": 0.0}, "need signal_span_s and feature_span_s above 0 s"),
        ({"hidden": 0}, "hidden: need 1 or more"),
    ],
)
def test_knobs_out_of_range_are_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        PretrainConfig(**values)
