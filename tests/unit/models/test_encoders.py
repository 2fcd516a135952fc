"""What every encoder keeps to, tried on every encoder that the catalog finds."""

import dataclasses
import json

import pytest
import torch

from mersuite import catalog
from mersuite.models.base import BuildContext, Encoder, StreamInfo
from mersuite.schema import build, plain

NAMES = catalog.names("encoder")
WINDOW_S = 6.0

# Knobs that make a part small, or fit the data of these tests; the defaults are tried too.
SMALL: dict[str, dict] = {
    "conformer": {"num_filters": 8, "num_heads": 2, "hidden": 16, "bottleneck": 8},
    "eegnet": {"context_s": 0.25},
    "external": {"factory": "braindecode.fake_for_tests:FakeNet", "context_s": 0.0, "options": {"hidden": 8}},
    "graph": {"hidden": 8, "features_per_node": 1},
    "lstm": {"width": 16},
    "masa_tcn": {"num_filters": 8, "anchors_s": [1.0, 3.0], "features_per_node": 1},
    "mlp": {"hidden": 16},
}

# Parameters of published networks that change no result, and are there so that their weights fit: a bias in front of a
# batch norm, and one that shifts all logits of a softmax alike.
INERT: dict[str, tuple[str, ...]] = {
    "conformer": ("temporal.bias", "spatial.bias", "keys.bias"),
    "eegnet": ("temporal_norm.bias",),
}


def make(name, *, channels=8, rate=None, token_rate=1.0, **knobs) -> Encoder:
    cls = catalog.find("encoder", name)
    if rate is None:
        rate = 128.0 if cls.accepts == "signal" else 1.0
    info = StreamInfo(num_channels=channels, rate_hz=rate)
    context = BuildContext(streams={"x": info}, window_s=WINDOW_S, token_rate_hz=token_rate)
    torch.manual_seed(0)
    return cls(build(cls.Config, {**SMALL[name], **knobs}), info, context)


def rows_of(encoder, *, batch=3, seconds=WINDOW_S, seed=1):
    info = encoder.info
    num_rows = round(seconds * info.rate_hz) if info.rate_hz else 1
    generator = torch.Generator().manual_seed(seed)
    stream = torch.randn(batch, num_rows, info.num_channels, generator=generator) * 3.0 + 1.0
    return stream, torch.ones(batch, num_rows, dtype=torch.bool)


def warmed_up(encoder):
    """The encoder in evaluation, after statistics were gathered."""
    encoder.train()
    encoder(*rows_of(encoder, seed=7))
    return encoder.eval()


def test_every_encoder_has_a_case_here():
    assert set(SMALL) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_config_is_a_frozen_dataclass_that_json_can_hold(name):
    config = build(catalog.find("encoder", name).Config, SMALL[name])
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 1
    assert build(type(config), json.loads(json.dumps(plain(config)))) == config
    assert json.dumps(dataclasses.asdict(config)) == json.dumps(plain(config))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("channels", [1, 2, 32, 64])
@pytest.mark.parametrize("rate", [128.0, 200.0])
def test_gives_one_token_a_second_of_the_promised_width(name, channels, rate):
    signal = catalog.find("encoder", name).accepts == "signal"
    encoder = make(name, channels=channels, rate=rate if signal else 1.0).eval()
    tokens, mask = encoder(*rows_of(encoder))
    assert tokens.shape == (3, 6, encoder.width)
    assert mask.shape == (3, 6)
    assert mask.all()
    assert tokens.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("token_rate", [0.5, 1.0, 2.0])
def test_follows_the_token_rate_of_the_track(name, token_rate):
    encoder = make(
        name, token_rate=token_rate, rate=None if catalog.find("encoder", name).accepts == "signal" else 2.0
    ).eval()
    assert encoder(*rows_of(encoder)).tokens.shape[1] == round(WINDOW_S * token_rate)


@pytest.mark.parametrize("name", NAMES)
def test_without_a_token_rate_rows_or_seconds_are_tokens(name):
    encoder = make(name, token_rate=None).eval()
    assert encoder(*rows_of(encoder)).tokens.shape == (3, 6, encoder.width)


@pytest.mark.parametrize("name", NAMES)
def test_padding_never_changes_real_rows(name):
    encoder = warmed_up(make(name))
    stream, mask = rows_of(encoder)
    bare = encoder(stream, mask)
    num_more = round(3 * encoder.info.rate_hz)
    padded = torch.cat([stream, torch.full((3, num_more, stream.shape[2]), 1e4)], dim=1)
    padded_mask = torch.cat([mask, torch.zeros(3, num_more, dtype=torch.bool)], dim=1)
    result = encoder(padded, padded_mask)
    torch.testing.assert_close(result.tokens[:, :6], bare.tokens, rtol=1e-5, atol=1e-6)
    assert not result.mask[:, 6:].any()
    assert (result.tokens[:, 6:] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_padding_never_moves_what_is_learned(name):
    """Statistics gathered in training count real rows only."""
    results = []
    for filler in (0.0, 1e3):
        encoder = make(name).train()
        stream, mask = rows_of(encoder)
        mask[1, stream.shape[1] // 2 :] = False
        stream[~mask] = filler
        encoder(stream, mask)
        results.append(dict(encoder.named_buffers()))
    for key, value in results[0].items():
        torch.testing.assert_close(value, results[1][key], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_batch_do_not_see_each_other(name):
    encoder = warmed_up(make(name))
    stream, mask = rows_of(encoder)
    together = encoder(stream, mask).tokens
    alone = torch.cat([encoder(stream[[i]], mask[[i]]).tokens for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_missing_stream_gives_no_token_whatever_it_holds(name):
    encoder = warmed_up(make(name))
    stream, mask = rows_of(encoder)
    mask[1] = False
    stream[1] = float("nan")
    tokens, token_mask = encoder(stream, mask)
    assert (tokens[1] == 0).all()
    assert token_mask.any(1).tolist() == [True, False, True]
    mask[:] = False
    encoder.train()
    tokens, token_mask = encoder(stream, mask)
    assert not token_mask.any()
    tokens.sum().backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters() if parameter.requires_grad)


@pytest.mark.parametrize("name", NAMES)
def test_a_gradient_reaches_every_parameter(name):
    encoder = make(name).train()
    tokens, _ = encoder(*rows_of(encoder, batch=8))
    (tokens * torch.randn(tokens.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    parameters = {key: value for key, value in encoder.named_parameters() if value.requires_grad}
    assert all(value.grad is not None for value in parameters.values())
    sizes = {key: value.grad.abs().max().item() for key, value in parameters.items()}
    floor = 1e-6 * max(sizes.values())  # rounding alone stays below
    silent = [key for key, size in sizes.items() if size < floor and not key.endswith(INERT.get(name, ()))]
    assert silent == []


@pytest.mark.parametrize("name", NAMES)
def test_four_samples_can_be_overfitted(name):
    encoder = make(name)
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    head = torch.nn.Linear(encoder.width, 1)
    stream, mask = rows_of(encoder, batch=4, seconds=2.0)
    target = torch.randn(4, 2, 1, generator=torch.Generator().manual_seed(5))
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(150):
        loss = (head(encoder(stream, mask).tokens) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05 * target.var()


@pytest.mark.parametrize("name", NAMES)
def test_evaluation_is_deterministic(name):
    encoder = warmed_up(make(name))
    stream, mask = rows_of(encoder)
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    assert torch.equal(encoder(stream, mask).tokens, encoder(stream, mask).tokens)
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_trains_in_mixed_precision(name):
    encoder = make(name).train()
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    stream, mask = rows_of(encoder)
    exact = encoder(stream, mask).tokens
    with torch.autocast("cpu", torch.bfloat16):
        tokens = encoder(stream, mask).tokens
    tokens.float().sum().backward()
    assert (tokens.float() - exact).abs().mean() < 0.1 * exact.abs().mean() + 0.01


@pytest.mark.parametrize("name", NAMES)
def test_state_restores_the_same_tokens(name):
    first, second = warmed_up(make(name)), make(name).eval()
    second.load_state_dict(first.state_dict())
    stream, mask = rows_of(first)
    assert torch.equal(first(stream, mask).tokens, second(stream, mask).tokens)


@pytest.mark.parametrize("name", NAMES)
def test_default_has_fewer_than_300_thousand_parameters(name):
    cls = catalog.find("encoder", name)
    signal = cls.accepts == "signal"
    info = StreamInfo(num_channels=64 if signal else 320, rate_hz=200.0 if signal else 1.0)
    context = BuildContext(streams={"x": info}, window_s=20.0, token_rate_hz=1.0)
    by_node = {"features_per_node": 5}
    knobs = {"graph": by_node, "masa_tcn": by_node, "external": SMALL["external"]}.get(name, {})
    encoder = cls(build(cls.Config, knobs), info, context)
    assert sum(value.numel() for value in encoder.parameters()) < 300_000
