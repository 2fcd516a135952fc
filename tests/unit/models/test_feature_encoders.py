import math

import pytest
import torch

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.encoders.graph import GraphConfig, GraphEncoder
from mersuite.models.encoders.masa_tcn import MasaTcnConfig, MasaTcnEncoder
from mersuite.models.encoders.mlp import MlpConfig, MlpEncoder
from mersuite.models.node_layout import node_layout

BANDS = ("delta", "alpha")


def build(cls, config, *, nodes=3, rate=1.0, token_rate=1.0, ch_names=()):
    info = StreamInfo(num_channels=nodes * len(BANDS), rate_hz=rate, ch_names=ch_names)
    torch.manual_seed(0)
    return cls(config, info, BuildContext(streams={"x": info}, token_rate_hz=token_rate)).eval()


def count(module):
    return sum(value.numel() for value in module.parameters())


def test_number_of_parameters_follows_the_sizes():
    assert count(build(MlpEncoder, MlpConfig(width=5, hidden=7, num_layers=3))) == (6 * 7 + 7) + (7 * 7 + 7) + (
        7 * 5 + 5
    )
    graph = GraphConfig(width=5, hidden=7, order=3, features_per_node=2)
    assert count(build(GraphEncoder, graph)) == 3 + (2 * 3 * 7 + 7) + (3 * 7 * 5 + 5)
    masa = MasaTcnConfig(width=5, num_filters=4, anchors_s=(3.0, 5.0), num_layers=2, kernel=3, features_per_node=2)
    anchors = sum(4 * 2 * kernel + 4 * 4 * 3 + 4 for kernel in (3, 5))
    blocks = 2 * (2 * 4 + 2 * (4 * 4 * 3 + 4))
    assert count(build(MasaTcnEncoder, masa)) == anchors + (8 * 2 + 2) + blocks + (4 * 5 + 5)


def test_one_layer_of_the_mlp_is_a_linear_map_of_standardised_rows():
    encoder = build(MlpEncoder, MlpConfig(num_layers=1, input_dropout=0.0)).train()
    rows, mask = torch.randn(4, 9, 6) * 5 + 3, torch.ones(4, 9, dtype=torch.bool)
    tokens = encoder(rows, mask).tokens
    flat = rows.flatten(0, 1)
    standard = (rows - flat.mean(0)) / flat.std(0, unbiased=False)
    torch.testing.assert_close(tokens, encoder.layers(standard), rtol=1e-4, atol=1e-5)


def test_mlp_encodes_one_vector_a_clip():
    encoder = build(MlpEncoder, MlpConfig(), rate=0.0)
    tokens, mask = encoder(torch.randn(2, 1, 6), torch.tensor([[True], [False]]))
    assert tokens.shape == (2, 1, 32)
    assert mask.tolist() == [[True], [False]]


def test_mlp_averages_rows_that_come_faster_than_tokens():
    fast = build(MlpEncoder, MlpConfig(), rate=4.0)
    slow = build(MlpEncoder, MlpConfig(), rate=4.0, token_rate=4.0)
    rows, mask = torch.randn(2, 12, 6), torch.ones(2, 12, dtype=torch.bool)
    expected = slow(rows, mask).tokens.unflatten(1, (3, 4)).mean(2)
    torch.testing.assert_close(fast(rows, mask).tokens, expected)


def test_columns_are_found_by_name_in_any_order():
    by_node = tuple(f"{node} {band}" for node in ("CZ", "OZ", "FZ") for band in BANDS)
    by_band = tuple(f"{node} {band}" for band in BANDS for node in ("CZ", "OZ", "FZ"))
    one = node_layout(StreamInfo(num_channels=6, rate_hz=1.0, ch_names=by_node), None)
    other = node_layout(StreamInfo(num_channels=6, rate_hz=1.0, ch_names=by_band), None)
    assert one.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert other.tolist() == [[0, 3], [1, 4], [2, 5]]
    given = node_layout(StreamInfo(num_channels=6, rate_hz=1.0), 2)
    assert given.tolist() == one.tolist()


@pytest.mark.parametrize("names", [(), ("a", "b", "c", "d", "e", "f"), ("a 1", "a 2", "b 1", "c 1", "d 1", "e 1")])
def test_columns_without_telling_names_are_refused(names):
    with pytest.raises(ConfigError, match="the names of the stream's 6 columns do not tell their nodes"):
        build(GraphEncoder, GraphConfig(), ch_names=names)


def test_features_per_node_that_do_not_divide_the_columns_are_refused():
    with pytest.raises(ConfigError, match="features_per_node: need a divisor of the stream's 6 columns, got 4"):
        build(MasaTcnEncoder, MasaTcnConfig(features_per_node=4))


def test_adjacency_is_the_normalised_learned_graph():
    encoder = build(GraphEncoder, GraphConfig(features_per_node=2))
    with torch.no_grad():
        encoder.edge_logits.copy_(torch.tensor([0.0, 1.0, 2.0]))
    a, b, c = (math.log1p(math.exp(value)) for value in (0.0, 1.0, 2.0))
    full = torch.tensor([[1, a, b], [a, 1, c], [b, c, 1]])
    degree = full.sum(1)
    expected = full / torch.sqrt(degree[:, None] * degree[None, :])
    torch.testing.assert_close(encoder.adjacency(), expected)
    assert torch.linalg.eigvalsh(encoder.adjacency()).abs().max() <= 1 + 1e-6


def test_graph_filter_is_chebyshevs_polynomial_of_the_eigenvalues():
    encoder = build(GraphEncoder, GraphConfig(features_per_node=2, order=4, hidden=8))
    rows, mask = torch.randn(1, 1, 6), torch.ones(1, 1, dtype=torch.bool)
    seen = []
    encoder.filters.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    encoder(rows, mask)
    values, vectors = torch.linalg.eigh(-encoder.adjacency())
    nodes = rows.view(3, 2)
    terms = [
        vectors @ torch.diag(torch.cos(k * torch.arccos(values.clamp(-1, 1)))) @ vectors.T @ nodes for k in range(4)
    ]
    torch.testing.assert_close(seen[0][0, 0], torch.cat(terms, dim=-1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [True, False])
def test_masa_tcn_sees_the_past_and_the_future_only_where_allowed(causal):
    config = MasaTcnConfig(features_per_node=2, causal=causal, anchors_s=(3.0,), num_layers=1)
    encoder = build(MasaTcnEncoder, config)
    rows, mask = torch.randn(1, 30, 6), torch.ones(1, 30, dtype=torch.bool)
    before = encoder(rows, mask).tokens
    rows[:, 15] += 1.0
    changed = ((encoder(rows, mask).tokens - before).abs().amax(-1)[0] > 1e-6).nonzero().flatten()
    # Reach: 2 rows of the anchor and 2 of each of two convolutions, all backward or half and half.
    assert (changed.min(), changed.max()) == ((15, 21) if causal else (12, 18))


def test_space_aware_layer_equals_both_filters_one_after_the_other():
    encoder = build(MasaTcnEncoder, MasaTcnConfig(features_per_node=2, num_filters=4, anchors_s=(5.0,)))
    layer = encoder.anchors[0]
    nodes = torch.randn(2, 3, 2, 11)
    padded = torch.nn.functional.pad(nodes, (4, 0)).permute(0, 2, 1, 3)  # features as channels of an image
    filtered = torch.nn.functional.conv2d(padded, layer.temporal.unsqueeze(2))
    expected = torch.nn.functional.conv2d(filtered, layer.spatial.unsqueeze(-1), layer.bias).squeeze(2)
    torch.testing.assert_close(layer(nodes), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("cls", "config", "rate", "message"),
    [
        (
            MasaTcnEncoder,
            MasaTcnConfig(features_per_node=2),
            0.0,
            "masa_tcn reads rows in time, this stream is one vector",
        ),
        (
            MasaTcnEncoder,
            MasaTcnConfig(features_per_node=2, anchors_s=()),
            1.0,
            "need anchors_s above 0 s and num_layers",
        ),
        (
            GraphEncoder,
            GraphConfig(features_per_node=2, order=0),
            1.0,
            "need order, hidden and width of 1 or more, got order=0",
        ),
        (
            MlpEncoder,
            MlpConfig(hidden=0),
            1.0,
            "need num_layers, width and hidden of 1 or more, got num_layers=2, width=32, hidden=0",
        ),
    ],
)
def test_knobs_out_of_range_are_refused(cls, config, rate, message):
    with pytest.raises(ConfigError, match=message):
        build(cls, config, rate=rate)


def test_columns_of_the_eeg_and_fnirs_features_tell_their_channels():
    from mersuite.features.fnirs import STATISTICS
    from mersuite.signal.eeg_features import FeaturePlan

    bands = {"alpha": (8.0, 14.0), "beta": (14.0, 31.0), "gamma": (31.0, 50.0)}
    plan = FeaturePlan(ch_names=("CZ", "EEG 2"), rate_hz=200.0, bands=bands, kinds=("de",), taper="hann")
    statistics = tuple(f"S{i}_D1 hbo_{kind}" for i in range(2) for kind in STATISTICS)
    for names in (plan.names()["eeg_bands"], statistics):
        info = StreamInfo(num_channels=6, rate_hz=1.0, ch_names=names)
        assert node_layout(info, None).tolist() == [[0, 1, 2], [3, 4, 5]]


def test_organisers_mlp_has_a_relu_after_every_layer():
    config = MlpConfig(
        num_layers=3, hidden=6, width=6, input_norm=False, dropout=0.0, activation="relu", activate_output=True
    )
    encoder = MlpEncoder(config, StreamInfo(num_channels=5, rate_hz=0.0), BuildContext(streams={})).eval()
    vector = torch.randn(4, 1, 5)
    first, second, third = (layer for layer in encoder.layers if isinstance(layer, torch.nn.Linear))
    expected = third(second(first(vector).relu()).relu()).relu()
    found = encoder(vector, torch.ones(4, 1, dtype=torch.bool)).tokens
    torch.testing.assert_close(found, expected)
    assert (found >= 0).all() and (found > 0).any()
