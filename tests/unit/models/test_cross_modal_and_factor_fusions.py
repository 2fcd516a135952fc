"""The defining equations of MulT, MISA, MMIM, MFM, Graph-MFN and MCTN."""

import math
from itertools import combinations, permutations

import pytest
import torch

from mersuite import catalog
from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Fusion, masked_mean
from mersuite.models.batch_losses import (
    contrast,
    information_bound,
    moment_discrepancy,
    normal_discrepancy,
    squared_error,
    subspace_overlap,
)
from mersuite.models.fusion.graph_mfn import FusionGraph
from mersuite.models.fusion.mult import CrossModalBlock
from mersuite.schema import build

WIDTHS = {"text": 6, "voice": 4, "face": 5}
MODES = {"in time": 1.0, "a clip": None}
each_mode = pytest.mark.parametrize("token_rate", MODES.values(), ids=MODES)
each_with_losses = pytest.mark.parametrize("name", ["mctn", "mfm", "misa", "mmim"])


def make(name, *, widths=WIDTHS, token_rate=None, **knobs) -> Fusion:
    cls = catalog.find("fusion", name)
    torch.manual_seed(0)
    return cls(build(cls.Config, knobs), widths, BuildContext(streams={}, token_rate_hz=token_rate)).eval()


def draw(widths=WIDTHS, *, batch=6, num_tokens=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, num_tokens, dtype=torch.bool)
    return {name: Encoded(torch.randn(batch, num_tokens, w, generator=generator), mask) for name, w in widths.items()}


def hide(stream, rows):
    mask = stream.mask.clone()
    mask[rows] = False
    return Encoded(stream.tokens * mask.unsqueeze(-1), mask)


def pooled(encoded):
    return {name: masked_mean(stream.tokens, stream.mask) for name, stream in encoded.items()}


# ---- losses over a batch


@each_with_losses
@each_mode
def test_rows_without_any_stream_change_no_loss(name, token_rate):
    fusion, encoded = make(name, token_rate=token_rate), draw()
    bare = fusion({key: Encoded(stream.tokens[2:], stream.mask[2:]) for key, stream in encoded.items()}).losses
    padded = fusion({key: hide(stream, [0, 1]) for key, stream in encoded.items()}).losses
    assert list(bare) == list(padded)
    assert len(bare) >= 2
    for key, value in bare.items():
        torch.testing.assert_close(padded[key], value)


@each_with_losses
@each_mode
def test_what_a_missing_stream_holds_changes_no_loss(name, token_rate):
    fusion, encoded = make(name, token_rate=token_rate), draw()
    for gone in WIDTHS:
        gap = hide(encoded[gone], [0, 3])
        noise = torch.where(gap.mask.unsqueeze(-1), gap.tokens, 30.0)
        losses = fusion({**encoded, gone: gap}).losses
        held = fusion({**encoded, gone: Encoded(noise, gap.mask)}).losses
        full = fusion(encoded).losses
        for key, value in losses.items():
            torch.testing.assert_close(held[key], value)
            assert not torch.allclose(full[key], value, rtol=1e-6)


@each_with_losses
@each_mode
@pytest.mark.parametrize("widths", [WIDTHS, {"text": 6}], ids=["three streams", "one stream"])
def test_losses_of_one_row_are_finite_and_so_are_their_gradients(name, token_rate, widths):
    fusion = make(name, widths=widths, token_rate=token_rate)
    losses = fusion(draw(widths, batch=1, num_tokens=1)).losses
    if losses:
        sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())
    assert all(value.grad is None or value.grad.isfinite().all() for value in fusion.parameters())


@each_with_losses
def test_losses_barely_change_in_mixed_precision(name):
    fusion, encoded = make(name), draw()
    expected = fusion(encoded).losses
    with torch.autocast("cpu", torch.bfloat16):
        losses = fusion(encoded).losses
    for key, value in expected.items():
        torch.testing.assert_close(losses[key].float(), value, rtol=0.05, atol=0.005)


@each_with_losses
def test_weights_scale_their_losses_and_zero_leaves_them_and_their_layers_out(name):
    encoded = draw()
    weights = [key for key in make(name).config.__dataclass_fields__ if key.endswith("_weight")]
    parameters = sum(value.numel() for value in make(name, **dict.fromkeys(weights, 0.0)).parameters())
    assert make(name, **dict.fromkeys(weights, 0.0))(encoded).losses == {}
    assert sum(value.numel() for value in make(name).parameters()) > parameters
    once, twice = make(name)(encoded).losses, make(name, **dict.fromkeys(weights, 0.2))(encoded).losses
    assert len(once) == len(weights)
    for key, value in once.items():
        torch.testing.assert_close(twice[key], 2 * value)


# ---- MulT


def plain_cross_attention(block, tokens, source, mask):
    """One head and query at a time, over the real keys alone."""
    attention, heads = block.attention, block.attention.num_heads
    normed, seen = block.query_norm(tokens), block.source_norm(source)
    queries, keys, values = attention.queries(normed), attention.keys(seen), attention.values(seen)
    size = tokens.shape[-1] // heads
    found = torch.zeros_like(tokens)
    for row in range(len(tokens)):
        real = mask[row].nonzero().flatten()
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            for query in range(tokens.shape[1]):
                logits = torch.stack([queries[row, query, part] @ keys[row, k, part] for k in real]) / math.sqrt(size)
                weights = logits.exp() / logits.exp().sum()
                found[row, query, part] = sum(w * values[row, k, part] for w, k in zip(weights, real, strict=True))
    tokens = tokens + attention.project(found)
    return tokens + block.feed(block.feed_norm(tokens))


def cross_case():
    torch.manual_seed(0)
    block = CrossModalBlock(8, 2, 0.0)
    mask = torch.tensor([[True, False, True, True, False], [True, True, True, True, True]])
    return block, torch.randn(2, 3, 8), torch.randn(2, 5, 8), mask


def test_mult_block_is_attention_to_the_real_tokens_of_the_source():
    block, tokens, source, mask = cross_case()
    expected = plain_cross_attention(block, tokens, source, mask)
    torch.testing.assert_close(block(tokens, Encoded(source, mask)), expected)


def test_mult_weights_over_real_keys_sum_to_one_and_others_have_none():
    block, tokens, source, mask = cross_case()
    block.attention.project = torch.nn.Identity()
    marks = torch.where(mask.unsqueeze(-1), 1.0, 1000.0).expand(-1, -1, 8)
    block.attention.values.register_forward_hook(lambda *_: marks)
    seen = block.attention(tokens, source, mask)
    torch.testing.assert_close(seen, torch.ones_like(seen))


def test_mult_padded_keys_change_nothing():
    block, tokens, source, mask = cross_case()
    held = torch.where(mask.unsqueeze(-1), source, 100 * torch.randn(2, 5, 8))
    assert torch.equal(block(tokens, Encoded(source, mask)), block(tokens, Encoded(held, mask)))
    encoded, fusion = draw(), make("mult")
    short = encoded["voice"].mask.clone()
    short[:, 2:] = False
    results = [
        fusion({**encoded, "voice": Encoded(torch.where(short.unsqueeze(-1), encoded["voice"].tokens, fill), short)})
        for fill in (0.0, 100.0)
    ]
    torch.testing.assert_close(results[0].pooled, results[1].pooled, rtol=0, atol=0)
    torch.testing.assert_close(results[0].tokens, results[1].tokens, rtol=0, atol=0)


def test_mult_source_that_is_missing_adds_nothing():
    block, tokens, source, mask = cross_case()
    found = block(tokens, Encoded(source, mask & torch.tensor([[False], [True]])))
    torch.testing.assert_close(found[0], tokens[0] + block.feed(block.feed_norm(tokens[0])))


def test_mult_reads_every_stream_through_every_other_one():
    fusion = make("mult", num_layers=3)
    assert fusion.pairs == tuple(permutations(range(3), 2))
    assert [len(blocks) for blocks in fusion.looks] == [3] * 6
    assert all(layer.normalized_shape == (2 * fusion.width,) for layer in fusion.norms)
    sources = []
    for blocks in fusion.looks:
        for block in blocks:
            block.register_forward_pre_hook(lambda _, inputs: sources.append(inputs[1].tokens))
    fusion(draw())
    for i in range(6):  # all blocks of a transformer look at the source as it came in
        assert sources[3 * i] is sources[3 * i + 1] is sources[3 * i + 2]


@pytest.mark.parametrize(("kernel", "reach"), [(1, [2]), (3, [1, 2, 3])])
def test_mult_kernel_says_how_many_tokens_enter_one(kernel, reach):
    fusion, stream = make("mult", kernel=kernel), draw(num_tokens=5)["text"]
    before = fusion._enter(0, stream).tokens
    stream.tokens[:, 2] += 1.0
    moved = (fusion._enter(0, stream).tokens - before).abs().amax((0, 2))
    assert moved.nonzero().flatten().tolist() == reach


@pytest.mark.parametrize("pool", ["last", "mean"])
def test_mult_pools_the_last_real_token_or_all(pool):
    fusion, stream = make("mult", pool=pool), draw()["text"]
    mask = stream.mask.clone()
    mask[0, 2:] = False
    found = fusion._pool(Encoded(stream.tokens, mask))
    expected = stream.tokens[0, 1] if pool == "last" else stream.tokens[0, :2].mean(0)
    torch.testing.assert_close(found[0], expected)


# ---- MISA


def test_misa_losses_are_cmd_overlap_and_rebuilding_of_its_vectors():
    fusion, encoded = make("misa"), draw()
    encoded["voice"] = hide(encoded["voice"], [1])
    there = {name: stream.mask.any(1) for name, stream in encoded.items()}
    whole = {name: layer(vector) for layer, (name, vector) in zip(fusion.inputs, pooled(encoded).items(), strict=True)}
    shared = {name: fusion.shared(vector) for name, vector in whole.items()}
    own = {name: layer(whole[name]) for layer, name in zip(fusion.own, WIDTHS, strict=True)}
    pairs = list(combinations(WIDTHS, 2))
    similar = [moment_discrepancy(shared[a], shared[b], there[a] & there[b], 5) for a, b in pairs]
    different = [subspace_overlap(shared[a], own[a], there[a]) for a in WIDTHS]
    different += [subspace_overlap(own[a], own[b], there[a] & there[b]) for a, b in pairs]
    rebuilt = [
        (layer(shared[a] + own[a]) - whole[a])[there[a]].square().mean()
        for layer, a in zip(fusion.rebuild, WIDTHS, strict=True)
    ]
    losses = fusion(encoded).losses
    torch.testing.assert_close(losses["similarity"], 0.1 * sum(similar) / 3)
    torch.testing.assert_close(losses["difference"], 0.1 * sum(different))
    torch.testing.assert_close(losses["reconstruction"], 0.1 * sum(rebuilt) / 3)


def test_misa_with_one_stream_has_no_similarity():
    assert sorted(make("misa", widths={"text": 6})(draw({"text": 6})).losses) == ["difference", "reconstruction"]


def test_misa_answers_from_shared_and_own_vectors_of_streams_that_are_there():
    fusion, encoded = make("misa"), draw()
    seen = []
    fusion.block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    fusion({**encoded, "voice": hide(encoded["voice"], [1])})
    vectors, mask = seen[0]
    assert vectors.shape == (6, 6, fusion.width)
    assert mask[1].tolist() == [True, False, True] * 2
    assert mask[0].all()
    assert (vectors[1, [1, 4]] == 0).all()


@pytest.mark.parametrize("term", ["similarity", "difference", "reconstruction"])
def test_misa_losses_can_be_trained_away(term):
    weights = {f"{key}_weight": 0.0 for key in ("similarity", "difference", "reconstruction")}
    fusion = make("misa", **{**weights, f"{term}_weight": 1.0})
    encoded = draw(batch=32)
    optimizer = torch.optim.Adam(fusion.parameters(), lr=1e-2)
    values = []
    for _ in range(60):
        value = fusion(encoded).losses[term]
        values.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert values[-1] < 0.3 * values[0]


# ---- MMIM


def test_mmim_losses_are_infonce_and_the_bound_of_its_vectors():
    fusion, encoded = make("mmim", cpc_layers=2, temperature=0.5), draw()
    encoded["face"] = hide(encoded["face"], [2])
    encoded["text"] = hide(encoded["text"], [4])
    there = [stream.mask.any(1) for stream in encoded.values()]
    vectors = [layer(item) for layer, item in zip(fusion.inputs, pooled(encoded).values(), strict=True)]
    fused = fusion(encoded)
    cpc = [
        contrast(layer(fused.pooled), vector, rows, 0.5)
        for layer, vector, rows in zip(fusion.predictors, vectors, there, strict=True)
    ]
    bounds = []
    for network, (i, j) in zip(fusion.bounds, [(0, 1), (0, 2), (1, 2)], strict=True):
        mean, spread = network(vectors[i]).chunk(2, dim=-1)
        bounds.append(information_bound(vectors[j], mean, 5 * spread.tanh(), there[i] & there[j]) / 16)
    torch.testing.assert_close(fused.losses["cpc"], 0.1 * sum(cpc))
    torch.testing.assert_close(fused.losses["mutual_information"], -0.1 * sum(bounds))


@pytest.mark.parametrize("num_layers", [1, 4])
def test_mmim_predicts_a_stream_with_as_many_layers_as_asked_for(num_layers):
    fusion = make("mmim", cpc_layers=num_layers)
    linear = [sum(isinstance(layer, torch.nn.Linear) for layer in network) for network in fusion.predictors]
    assert linear == [num_layers] * 3


def test_mmim_bound_learned_from_pairs_lies_below_the_truth_and_grows_with_it():
    found, truths = [], []
    for rho in (0.2, 0.5, 0.8):
        fusion = make("mmim", widths={"a": 2, "b": 2}, stream_width=2)
        generator = torch.Generator().manual_seed(1)
        x, noise = torch.randn(2, 4000, 2, generator=generator)
        y = rho * x + math.sqrt(1 - rho**2) * noise
        rows = torch.ones(2000, dtype=torch.bool)

        def bound(part, x=x, y=y, network=fusion.bounds[0], rows=rows):
            mean, spread = network(x[part]).chunk(2, dim=-1)
            return information_bound(y[part], mean, 5 * spread.tanh(), rows)

        optimizer = torch.optim.Adam(fusion.bounds.parameters(), lr=1e-2)
        for _ in range(150):
            optimizer.zero_grad()
            (-bound(slice(2000))).backward()
            optimizer.step()
        found.append(bound(slice(2000, None)).item())  # on pairs that were not learned from
        truths.append(-math.log(1 - rho**2))
    assert all(value < truth for value, truth in zip(found, truths, strict=True))
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.8 * truths[2]


def test_mmim_tells_rows_apart_up_to_the_log_of_the_batch():
    fusion = make("mmim", temperature=0.05, cpc_weight=1.0, bound_weight=0.0, dropout=0.0, widths={"text": 6})
    encoded = draw({"text": 6}, batch=16, num_tokens=1)
    optimizer = torch.optim.Adam(fusion.parameters(), lr=1e-2)
    values = []
    for _ in range(100):
        value = fusion(encoded).losses["cpc"]
        values.append(math.log(16) - value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert max(values) <= math.log(16)
    assert values[-1] > 0.95 * math.log(16) > 0.5 > values[0]


# ---- MFM


def test_mfm_losses_are_rebuilding_and_distance_to_the_prior():
    fusion, encoded = make("mfm"), draw()
    encoded["face"] = hide(encoded["face"], [2])
    there = [stream.mask.any(1) for stream in encoded.values()]
    seen = list(pooled(encoded).values())
    flags = (~torch.stack(there, dim=1)).float()
    latent = fusion.latent(torch.cat([*seen, flags], dim=1))
    factor = fusion.factor(latent)
    own = [layer(item) for layer, item in zip(fusion.own_latents, seen, strict=True)]
    rebuilt = [fusion.rebuild[i](torch.cat([fusion.own_factors[i](own[i]), factor], dim=1)) for i in range(len(WIDTHS))]
    errors = [squared_error(a, b, rows) for a, b, rows in zip(rebuilt, seen, there, strict=True)]
    prior = normal_discrepancy(latent, there[0]) + sum(map(normal_discrepancy, own, there))
    fused = fusion(encoded)
    torch.testing.assert_close(fused.pooled, factor)
    torch.testing.assert_close(fused.losses["reconstruction"], 0.1 * sum(errors) / 3)
    torch.testing.assert_close(fused.losses["prior"], 0.1 * prior)


def test_mfm_own_factors_have_no_say_in_the_answer():
    fusion, encoded = make("mfm"), draw()
    before = fusion(encoded)
    with torch.no_grad():
        for parameter in [*fusion.own_latents.parameters(), *fusion.own_factors.parameters()]:
            parameter.add_(1.0)
    after = fusion(encoded)
    assert torch.equal(after.pooled, before.pooled)
    assert not torch.allclose(after.losses["reconstruction"], before.losses["reconstruction"])


def test_mfm_never_pulls_the_tokens_towards_their_rebuilding():
    fusion = make("mfm", prior_weight=0.0)
    with torch.no_grad():
        for network in fusion.rebuild:
            network[-1].weight.zero_()  # rebuilds a constant: only the target could have a gradient
    encoded = {name: Encoded(stream.tokens.requires_grad_(), stream.mask) for name, stream in draw().items()}
    fusion(encoded).losses["reconstruction"].backward()
    assert all((stream.tokens.grad == 0).all() for stream in encoded.values())


# ---- Graph-MFN


@pytest.mark.parametrize(("count", "num_edges"), [(1, 1), (2, 2 + 3), (3, 12 + 7), (4, 50 + 15)])
def test_graph_has_a_vertex_for_every_set_of_streams_and_an_edge_from_every_strict_subset(count, num_edges):
    graph = FusionGraph(count, 3, 4, 5, 0.0)
    assert len(set(graph.vertices)) == 2**count - 1
    assert len(set(graph.edges)) == num_edges
    output = len(graph.vertices)
    for source, to in graph.edges:
        assert to == output or graph.vertices[source] < graph.vertices[to]


def plain_graph(graph, brought):
    """The graph by sets of streams, for one row whose streams are all there."""
    efficacy = dict(zip(graph.edges, graph.efficacies(brought.flatten()).sigmoid(), strict=True))
    place = {streams: i for i, streams in enumerate(graph.vertices)}
    value = {frozenset([i]): layer(brought[i]) for i, layer in enumerate(graph.singles)}
    networks = iter(graph.networks)
    for size in range(2, len(brought) + 1):
        for streams in map(frozenset, combinations(range(len(brought)), size)):
            below = [item for item in graph.vertices if item < streams]
            fed = [value[item] * efficacy[place[item], place[streams]] for item in below]
            value[streams] = next(networks)(torch.cat(fed))
    fed = [value[item] * efficacy[place[item], len(place)] for item in graph.vertices]
    return next(networks)(torch.cat(fed))


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_graph_passes_vertices_along_edges_times_their_efficacies(count):
    torch.manual_seed(0)
    graph = FusionGraph(count, 3, 4, 5, 0.0)
    brought = torch.randn(2, count, 3)
    found, efficacy = graph(brought, torch.ones(2, count, dtype=torch.bool))
    torch.testing.assert_close(found, torch.stack([plain_graph(graph, row) for row in brought]))
    assert ((efficacy > 0) & (efficacy < 1)).all()


def test_graph_closes_the_edges_of_sets_with_a_missing_stream():
    torch.manual_seed(0)
    graph = FusionGraph(3, 3, 4, 5, 0.0)
    there = torch.tensor([[True, False, True]])
    _, efficacy = graph(torch.randn(1, 3, 3) * there.unsqueeze(-1), there)
    closed = [1 in graph.vertices[source] for source, _ in graph.edges]
    assert (efficacy[0] == 0).tolist() == closed


def test_graph_mfn_remembers_what_the_graph_found_after_a_stream_has_ended():
    fusion, encoded = make("graph_mfn", token_rate=1.0), draw()
    for name in ("voice", "face"):
        mask = encoded[name].mask.clone()
        mask[:, 1:] = False
        encoded[name] = Encoded(encoded[name].tokens * mask.unsqueeze(-1), mask)
    before = fusion(encoded).tokens
    encoded["voice"].tokens[:, 0] += 1.0
    assert ((fusion(encoded).tokens - before).abs().amax((0, 2)) > 1e-6).all()


def test_graph_mfn_refuses_more_than_four_streams():
    with pytest.raises(ConfigError, match=r"takes 1 to 4 of them, got 5; use mfn, or configure fewer encoders"):
        make("graph_mfn", widths=dict.fromkeys("abcde", 3))


# ---- MCTN


@each_mode
@pytest.mark.parametrize("source", list(WIDTHS))
def test_mctn_answers_from_the_source_alone(token_rate, source):
    fusion, encoded = make("mctn", token_rate=token_rate, source=source), draw()
    full = fusion(encoded)
    other = {key: Encoded(stream.tokens + 1.0, stream.mask) for key, stream in encoded.items()}
    gone = {key: hide(stream, slice(None)) for key, stream in encoded.items()}
    for replaced in (other, gone):
        fused = fusion({**replaced, source: encoded[source]})
        assert torch.equal(fused.pooled, full.pooled)
        assert torch.equal(fused.tokens, full.tokens)
    assert not torch.allclose(fusion({**encoded, source: other[source]}).pooled, full.pooled)
    lost = fusion({**encoded, source: hide(encoded[source], [1])})
    assert not lost.mask[1].any()
    assert (lost.pooled[1] == 0).all()


def test_mctn_losses_are_the_errors_of_what_it_writes():
    fusion, encoded = make("mctn", source="voice"), draw()
    encoded["face"] = hide(encoded["face"], [2])
    encoded["voice"] = hide(encoded["voice"], [4])
    source, joint = encoded["voice"], None
    translation, cycle = [], []
    for i, name in enumerate(("text", "face")):
        target = encoded[name]
        joint = fusion.encoders[i](source if joint is None else joint)[0]
        written = fusion.decoders[i](joint, target.mask)
        again = fusion.back_decoders[i](fusion.back_encoders[i](written)[0], source.mask)
        kept = target.mask.any(1) & source.mask.any(1)
        translation.append((written.tokens - target.tokens)[kept].square().mean())
        cycle.append((again.tokens - source.tokens)[kept].square().mean())
    losses = fusion(encoded).losses
    torch.testing.assert_close(losses["translation"], 0.1 * sum(translation) / 2)
    torch.testing.assert_close(losses["cycle"], 0.1 * sum(cycle) / 2)


def test_mctn_learns_to_translate_streams_of_unequal_length_and_back():
    fusion = make("mctn", translation_weight=1.0, cycle_weight=1.0, dropout=0.0)
    encoded = {**draw(), "voice": draw(num_tokens=6)["voice"]}
    optimizer = torch.optim.Adam(fusion.parameters(), lr=1e-2)
    for _ in range(150):
        losses = fusion(encoded).losses
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert losses["translation"] < 0.2  # the tokens' variance is 1
    assert losses["cycle"] < 0.2


def test_mctn_targets_have_no_gradient():
    encoded = {name: Encoded(stream.tokens.requires_grad_(), stream.mask) for name, stream in draw().items()}
    fusion = make("mctn")
    fused = fusion(encoded)
    (fused.pooled.sum() + sum(fused.losses.values())).backward()
    assert encoded["text"].tokens.grad.abs().max() > 0
    assert [name for name in WIDTHS if encoded[name].tokens.grad is None] == ["voice", "face"]
    assert fusion.teachers == ("voice", "face")


def test_mctn_translates_nothing_where_no_gradient_is_kept():
    with torch.inference_mode():
        assert make("mctn")(draw()).losses == {}


# ---- refused


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("graph_mfn", {"hidden": 0}, "hidden: need 1 or more, got 0"),
        ("mctn", {"source": "voices"}, "source: there is no encoder for the stream 'voices'; did you mean 'voice'?"),
        ("mctn", {"cycle_weight": -1.0}, r"need weights of the losses of 0 or more, got \(0.1, -1.0\)"),
        ("mfm", {"prior_weight": -1.0}, r"need weights of the losses of 0 or more, got \(0.1, -1.0\)"),
        ("misa", {"difference_weight": -1.0}, r"need weights of the losses of 0 or more, got \(0.1, -1.0, 0.1\)"),
        ("mmim", {"bound_weight": -1.0}, r"need weights of the losses of 0 or more, got \(0.1, -1.0\)"),
        ("mmim", {"cpc_layers": 0}, "cpc_layers: need 1 or more, got 0"),
        ("mmim", {"temperature": 0.0}, "temperature: need a number above 0, got 0.0"),
        ("mult", {"num_layers": 0}, "num_layers: need 1 or more, got 0"),
        ("mult", {"num_memory_layers": 0}, "num_memory_layers: need 1 or more, got 0"),
        ("mult", {"max_distance": 0}, "max_distance: need 1 or more, got 0"),
        ("mult", {"kernel": 2}, "kernel: got 2; choose one of: 1, 3"),
    ],
)
def test_knobs_out_of_range_are_refused(name, knobs, message):
    with pytest.raises(ConfigError, match=message):
        make(name, **knobs)
