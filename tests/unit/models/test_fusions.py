"""What every fusion keeps to, tried on every fusion that the catalog finds."""

import dataclasses
import json

import pytest
import torch

from mersuite import catalog
from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Fusion
from mersuite.schema import build, plain

NAMES = catalog.names("fusion")
WIDTHS = {"eeg": 6, "fnirs": 4, "face.listener": 5}
MODES = {"in time": 1.0, "a clip": None}

# Knobs that make every parameter take part; the defaults are tried too.
KNOBS: dict[str, dict] = {
    "attention": {"width": 16},
    "attention_top": {"width": 16, "groups": {"brain": ["*[gs]"]}},
    "concat": {},
    "cross_attention": {"width": 16, "contrastive_weight": 0.1},
    "ef_lstm": {"bidirectional": True},
    "gated": {},
    "graph_mfn": {},
    "lf_dnn": {},
    "lmf": {},
    "mctn": {"translation_weight": 100.0, "cycle_weight": 100.0},
    "mfm": {"reconstruction_weight": 1.0},
    "mfn": {},
    "misa": {},
    "mmim": {},
    "mult": {"width": 16},
    "tfn": {"hidden": 8},
    "transformer": {"width": 16},
}

# Fusions that answer from one stream by definition, and that stream; the others only teach it.
ONE_STREAM = {"mctn": "eeg"}


def make(name, *, token_rate, widths=WIDTHS, **knobs) -> Fusion:
    cls = catalog.find("fusion", name)
    torch.manual_seed(0)
    return cls(build(cls.Config, {**KNOBS[name], **knobs}), widths, BuildContext(streams={}, token_rate_hz=token_rate))


def tokens_of(fusion, *, batch=4, num_tokens=5, seed=1):
    """Streams of equal length in time, of unequal length without a token rate."""
    generator = torch.Generator().manual_seed(seed)
    encoded = {}
    for i, (name, width) in enumerate(WIDTHS.items()):
        if name in fusion.stream_names:
            length = num_tokens if fusion.context.token_rate_hz else num_tokens + i
            tokens = torch.randn(batch, length, width, generator=generator)
            encoded[name] = Encoded(tokens, torch.ones(batch, length, dtype=torch.bool))
    return encoded


def without(stream, row):
    """A stream that is missing from one row."""
    mask = stream.mask.clone()
    mask[row] = False
    return Encoded(stream.tokens * mask.unsqueeze(-1), mask)


each_fusion = pytest.mark.parametrize("name", NAMES)
each_mode = pytest.mark.parametrize("token_rate", MODES.values(), ids=MODES)


def test_every_fusion_has_a_case_here():
    assert set(KNOBS) == set(NAMES)


@each_fusion
def test_config_is_a_frozen_dataclass_that_json_can_hold(name):
    config = build(catalog.find("fusion", name).Config, KNOBS[name])
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.width = 1
    assert build(type(config), json.loads(json.dumps(plain(config)))) == config
    assert json.dumps(dataclasses.asdict(config)) == json.dumps(plain(config))


@each_fusion
@pytest.mark.parametrize("count", [1, 2, 3])
def test_in_time_keeps_the_number_of_tokens(name, count):
    fusion = make(name, token_rate=1.0, widths=dict(list(WIDTHS.items())[:count])).eval()
    fused = fusion(tokens_of(fusion))
    assert fused.tokens.shape == (4, 5, fusion.width)
    assert fused.mask.shape == (4, 5)
    assert fused.pooled.shape == (4, fusion.width)
    assert fused.tokens.isfinite().all()


@each_fusion
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_clip_gives_one_vector_from_streams_of_unequal_length(name, count):
    fusion = make(name, token_rate=None, widths=dict(list(WIDTHS.items())[:count])).eval()
    fused = fusion(tokens_of(fusion))
    assert fused.pooled.shape == (4, fusion.width)
    assert fused.tokens.shape[::2] == (4, fusion.width)
    assert fused.mask.shape == fused.tokens.shape[:2]
    assert fused.pooled.isfinite().all()


@each_fusion
@each_mode
@pytest.mark.parametrize("gone", list(WIDTHS))
def test_missing_stream_is_as_if_it_held_anything(name, token_rate, gone):
    fusion = make(name, token_rate=token_rate).eval()
    encoded = tokens_of(fusion)
    results = []
    for seed in (2, 3):
        held = tokens_of(fusion, seed=seed)[gone].tokens * 10
        mask = without(encoded[gone], 0).mask
        tokens = torch.where(mask.unsqueeze(-1), encoded[gone].tokens, held)
        results.append(fusion({**encoded, gone: Encoded(tokens, mask)}))
    torch.testing.assert_close(results[0].pooled, results[1].pooled)
    torch.testing.assert_close(results[0].tokens, results[1].tokens)
    assert results[0].pooled.isfinite().all()
    full = fusion(encoded)
    if gone == ONE_STREAM.get(name, gone):
        assert not torch.allclose(results[0].pooled[0], full.pooled[0])
    else:
        torch.testing.assert_close(results[0].pooled[0], full.pooled[0])
    torch.testing.assert_close(results[0].pooled[1:], full.pooled[1:])


@each_fusion
@each_mode
def test_row_without_any_stream_is_zero_and_stays_finite_in_training(name, token_rate):
    fusion = make(name, token_rate=token_rate)
    encoded = {key: without(stream, 2) for key, stream in tokens_of(fusion).items()}
    fused = fusion(encoded)
    assert not fused.mask[2].any()
    assert (fused.tokens[2] == 0).all()
    loss = fused.tokens.square().sum() + fused.pooled.square().sum() + sum(fused.losses.values())
    loss.backward()
    assert all(value.grad is None or value.grad.isfinite().all() for value in fusion.parameters())


@each_fusion
@each_mode
def test_padding_never_changes_real_tokens(name, token_rate):
    fusion = make(name, token_rate=token_rate).eval()
    encoded = tokens_of(fusion)
    bare = fusion(encoded)
    padded = {
        key: Encoded(torch.nn.functional.pad(part.tokens, (0, 0, 0, 3)), torch.nn.functional.pad(part.mask, (0, 3)))
        for key, part in encoded.items()
    }
    result = fusion(padded)
    torch.testing.assert_close(result.pooled, bare.pooled)
    assert (result.tokens[~result.mask] == 0).all()
    torch.testing.assert_close(result.tokens[result.mask], bare.tokens[bare.mask])


@each_fusion
@each_mode
def test_rows_of_a_batch_do_not_see_each_other(name, token_rate):
    fusion = make(name, token_rate=token_rate).eval()
    encoded = tokens_of(fusion)
    together = fusion(encoded)
    alone = [
        fusion({key: Encoded(part.tokens[[i]], part.mask[[i]]) for key, part in encoded.items()}) for i in range(4)
    ]
    torch.testing.assert_close(together.pooled, torch.cat([item.pooled for item in alone]))
    torch.testing.assert_close(together.tokens, torch.cat([item.tokens for item in alone]))


@each_fusion
@each_mode
def test_a_gradient_reaches_every_parameter(name, token_rate):
    fusion = make(name, token_rate=token_rate).train()
    fused = fusion(tokens_of(fusion, batch=8))
    generator = torch.Generator().manual_seed(3)
    loss = (fused.tokens * torch.randn(fused.tokens.shape, generator=generator)).sum() + sum(fused.losses.values())
    loss = loss + (fused.pooled * torch.randn(fused.pooled.shape, generator=generator)).sum()
    loss.backward()
    assert all(value.grad is not None for value in fusion.parameters())
    sizes = {key: value.grad.abs().max().item() for key, value in fusion.named_parameters()}
    silent = [key for key, size in sizes.items() if size < 1e-6 * max(sizes.values())]  # rounding alone stays below
    assert silent == []


@each_fusion
@each_mode
def test_four_samples_can_be_overfitted(name, token_rate):
    fusion = make(name, token_rate=token_rate)
    for module in fusion.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    head = torch.nn.Linear(fusion.width, 1)
    encoded = tokens_of(fusion)
    target = torch.randn(4, 1, generator=torch.Generator().manual_seed(5))
    optimizer = torch.optim.Adam([*fusion.parameters(), *head.parameters()], lr=1e-2)
    for _ in range(150):
        loss = (head(fusion(encoded).pooled) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.05 * target.var()


@each_fusion
@each_mode
def test_runs_in_mixed_precision(name, token_rate):
    fusion = make(name, token_rate=token_rate).eval()
    encoded = tokens_of(fusion)
    with torch.autocast("cpu", torch.bfloat16):
        fused = fusion(encoded)
    fused.tokens.float().sum().backward()
    exact = fusion(encoded).pooled
    torch.testing.assert_close(fused.pooled.float(), exact, rtol=0.05, atol=0.05 * exact.std().item())


@each_fusion
@each_mode
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=["bfloat16", "float64"])
def test_answers_have_the_type_of_the_weights(name, token_rate, dtype):
    fusion = make(name, token_rate=token_rate).to(dtype)
    fused = fusion({key: Encoded(part.tokens.to(dtype), part.mask) for key, part in tokens_of(fusion).items()})
    (fused.tokens.sum() + fused.pooled.sum() + sum(fused.losses.values())).backward()
    assert fused.tokens.dtype == fused.pooled.dtype == dtype
    assert all(value.isfinite() for value in fused.losses.values())


@each_fusion
@each_mode
def test_evaluation_is_deterministic(name, token_rate):
    fusion = make(name, token_rate=token_rate).eval()
    encoded = tokens_of(fusion)
    assert torch.equal(fusion(encoded).tokens, fusion(encoded).tokens)


@each_fusion
def test_default_has_fewer_than_100_thousand_parameters(name):
    cls = catalog.find("fusion", name)
    context = BuildContext(streams={}, token_rate_hz=1.0)
    fusion = cls(cls.Config(), {"eeg": 32, "fnirs": 32}, context)
    assert sum(value.numel() for value in fusion.parameters()) < 100_000


def test_sigmoid_gates_open_each_by_itself():
    fusion = make("gated", token_rate=1.0, gate="sigmoid").eval()
    gates = fusion._open([tokens_of(fusion)[name] for name in WIDTHS])
    assert not torch.allclose(gates.sum(-1), torch.ones(4, 5))
    softmax = make("gated", token_rate=1.0).eval()
    encoded = tokens_of(softmax)
    encoded["eeg"] = without(encoded["eeg"], 0)
    gates = softmax._open([encoded[name] for name in WIDTHS])
    torch.testing.assert_close(gates.sum(-1), torch.ones(4, 5))
    assert (gates[0, :, 0] == 0).all()


def test_transformer_within_a_step_sees_no_other_step():
    results = {}
    for scope in ("step", "all"):
        fusion = make("transformer", token_rate=1.0, scope=scope).eval()
        encoded = tokens_of(fusion)
        before = fusion(encoded).tokens
        encoded["eeg"].tokens[:, 3] += 1.0
        results[scope] = ((fusion(encoded).tokens - before).abs().amax((0, 2)) > 1e-6).tolist()
    assert results == {"step": [False, False, False, True, False], "all": [True] * 5}


@pytest.mark.parametrize("name", ["cross_attention", "transformer"])
def test_attention_knows_distance_and_no_place_in_the_window(name):
    fusion = make(name, token_rate=1.0).eval()
    with torch.no_grad():
        fusion.bias.logits.normal_()
    encoded = tokens_of(fusion, num_tokens=4)
    shifted = {
        key: Encoded(torch.nn.functional.pad(part.tokens, (0, 0, 3, 0)), torch.nn.functional.pad(part.mask, (3, 0)))
        for key, part in encoded.items()
    }
    torch.testing.assert_close(fusion(shifted).tokens[:, 3:], fusion(encoded).tokens)
    turned = {key: Encoded(part.tokens.flip(1), part.mask) for key, part in encoded.items()}
    assert not torch.allclose(fusion(turned).tokens.flip(1), fusion(encoded).tokens, atol=1e-3)


def test_contrastive_loss_is_least_where_streams_of_a_row_agree():
    widths = {"a": 16, "b": 16}
    fusion = make("cross_attention", token_rate=1.0, widths=widths, contrastive_weight=1.0).eval()
    for layer in fusion.inputs:
        torch.nn.init.eye_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    tokens, mask = torch.randn(6, 3, 16), torch.ones(6, 3, dtype=torch.bool)
    agree = fusion({"a": Encoded(tokens, mask), "b": Encoded(tokens, mask)}).losses["contrastive"]
    differ = fusion({"a": Encoded(tokens, mask), "b": Encoded(tokens.roll(1, 0), mask)}).losses["contrastive"]
    assert agree < 0.5 < differ
    alone = mask.clone()
    alone[1:] = False
    assert fusion({"a": Encoded(tokens, mask), "b": Encoded(tokens, alone)}).losses["contrastive"] == 0


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        (
            "cross_attention",
            {"temperature": 0.0},
            "need contrastive_weight >= 0, temperature > 0 and max_distance >= 1",
        ),
        ("transformer", {"num_layers": 0}, "need num_layers and max_distance of 1 or more, got 0 and 16"),
        ("transformer", {"width": 10}, "attention needs a width that num_heads divides, got width=10, num_heads=4"),
    ],
)
def test_knobs_out_of_range_are_refused(name, knobs, message):
    with pytest.raises(ConfigError, match=message):
        make(name, token_rate=1.0, **knobs)
