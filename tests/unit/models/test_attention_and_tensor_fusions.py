"""The defining equations of the attention fusions, LF-DNN, EF-LSTM, TFN, LMF and MFN, each against a plain loop."""

import copy

import pytest
import torch
from torch.nn import functional

from mersuite import catalog
from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, Encoded, Fusion
from mersuite.models.fusion.attention_top import group_streams
from mersuite.models.fusion.lmf import LowRankProduct
from mersuite.models.fusion.tfn import outer_with_ones
from mersuite.models.sequence_layers import align_streams
from mersuite.schema import build

EQUAL = {"voice": 8, "text": 8, "face": 8}
UNEQUAL = {"voice": 6, "text": 4, "face": 5}


def make(name, *, widths=UNEQUAL, token_rate=None, **knobs) -> Fusion:
    cls = catalog.find("fusion", name)
    torch.manual_seed(0)
    context = BuildContext(streams={}, token_rate_hz=token_rate)
    return cls(build(cls.Config, knobs), widths, context).eval()


def utterances(widths, *, batch=5, seed=0):
    """One vector a stream and row, as of utterance features."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(batch, 1, dtype=torch.bool)
    return {
        name: Encoded(torch.randn(batch, 1, width, generator=generator), mask.clone()) for name, width in widths.items()
    }


def sequences(widths, *, batch=3, num_tokens=6, seed=0):
    """Streams in time with padding at the end and holes inside, a row without one stream and one without any."""
    generator = torch.Generator().manual_seed(seed)
    encoded = {}
    for i, (name, width) in enumerate(widths.items()):
        mask = torch.ones(batch, num_tokens, dtype=torch.bool)
        mask[0, 4:] = False
        mask[0, i] = False
        mask[1] = i > 0
        mask[2] = False
        encoded[name] = Encoded(torch.randn(batch, num_tokens, width, generator=generator), mask)
    return encoded


def vectors_of(encoded):
    return [part.tokens[:, 0] for part in encoded.values()]


def relu_layers(network, vector):
    for layer in network:
        if isinstance(layer, torch.nn.Linear):
            vector = (vector @ layer.weight.T + layer.bias).clamp(min=0)
    return vector


# ---- attention


def organisers_attention(hidden, layers, output):
    """Rectified layers over all hidden vectors, one weight a stream without softmax, the weighted sum."""
    seen = torch.cat(hidden, dim=1)
    for layer in layers:
        seen = functional.relu(layer(seen))
    weights = output(seen)
    return sum(weights[:, [s]] * vector for s, vector in enumerate(hidden)), weights


def test_attention_is_the_model_of_the_organisers():
    fusion = make("attention", widths=EQUAL)
    encoded = utterances(EQUAL)
    layers = [layer for layer in fusion.weigh.layers if isinstance(layer, torch.nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(24, 8), (8, 8), (8, 8)]
    expected, weights = organisers_attention(vectors_of(encoded), layers, fusion.weigh.output)
    torch.testing.assert_close(fusion(encoded).pooled, expected)
    assert weights.min() < 0  # no softmax
    assert not torch.allclose(weights.sum(1), torch.ones(5))


def test_attention_drops_inputs_of_its_perceptron_and_nothing_else():
    fusion = make("attention", widths=EQUAL, dropout=0.5).train()
    dropouts = [module for module in fusion.modules() if isinstance(module, torch.nn.Dropout)]
    assert dropouts == [fusion.weigh.layers[0]]


def test_attention_projects_only_streams_of_another_width():
    assert sum(value.numel() for value in make("attention", widths=EQUAL).inputs.parameters()) == 0
    fusion = make("attention", widths=UNEQUAL)
    assert fusion.width == 6
    assert [type(layer).__name__ for layer in fusion.inputs] == ["Identity", "Linear", "Linear"]
    assert make("attention", widths=EQUAL, width=12).width == 12


def test_missing_stream_has_neither_vector_nor_weight():
    fusion = make("attention", widths=EQUAL)
    encoded = utterances(EQUAL)
    encoded["text"].mask[0] = False
    hidden = vectors_of(encoded)
    hidden[1] = hidden[1] * encoded["text"].mask
    layers = [layer for layer in fusion.weigh.layers if isinstance(layer, torch.nn.Linear)]
    expected, _ = organisers_attention(hidden, layers, fusion.weigh.output)
    torch.testing.assert_close(fusion(encoded).pooled, expected)
    streams = [Encoded(part.tokens * part.mask.unsqueeze(-1), part.mask) for part in encoded.values()]
    assert fusion.weigh(streams)[0, 0, 1] == 0


def test_many_attention_models_run_as_one():
    models = [make("attention", widths=EQUAL)]
    for seed in (1, 2):
        models.append(copy.deepcopy(models[0]))
        torch.manual_seed(seed)
        for value in models[-1].parameters():
            torch.nn.init.normal_(value, std=0.3)
    folds = [utterances(EQUAL, seed=seed) for seed in range(3)]  # each model reads rows of its own
    stacked = {name: Encoded(*(torch.stack([fold[name][i] for fold in folds]) for i in range(2))) for name in EQUAL}
    parameters, buffers = torch.func.stack_module_state(models)

    def run(parameters, buffers, encoded):
        return torch.func.functional_call(models[0], (parameters, buffers), (encoded,)).pooled

    together = torch.vmap(run)(parameters, buffers, stacked)
    torch.testing.assert_close(
        together, torch.stack([model(fold).pooled for model, fold in zip(models, folds, strict=True)])
    )
    models[0].train()  # dropout differs between the models
    assert torch.vmap(run, randomness="different")(parameters, buffers, stacked).shape == (3, 5, 8)


def test_attention_over_features_without_groups_is_the_attention_over_all():
    flat, top = make("attention", widths=EQUAL), make("attention_top", widths=EQUAL)
    top.among.load_state_dict(flat.weigh.state_dict())
    assert len(top.within) == 0
    encoded = utterances(EQUAL)
    torch.testing.assert_close(top(encoded).pooled, flat(encoded).pooled)


def test_attention_over_features_sums_within_modalities_and_then_among_them():
    widths = {"clip_face": 8, "hubert_voice": 8, "dino_face": 8, "roberta_text": 8}
    fusion = make("attention_top", widths=widths, groups={"voice": ["hubert_*"], "face": ["*_face"]})
    encoded = utterances(widths)
    clip, hubert, dino, roberta = vectors_of(encoded)

    def level(weights, hidden):
        layers = [layer for layer in weights.layers if isinstance(layer, torch.nn.Linear)]
        return organisers_attention(hidden, layers, weights.output)[0]

    face = level(fusion.within[0], [clip, dino])
    torch.testing.assert_close(fusion(encoded).pooled, level(fusion.among, [hubert, face, roberta]))


def test_feature_that_is_missing_leaves_its_modality_to_the_others():
    widths = {"clip_face": 8, "dino_face": 8, "voice": 8}
    fusion = make("attention_top", widths=widths, groups={"face": ["*_face"]})
    encoded = utterances(widths)
    encoded["clip_face"].mask[:] = False
    streams = [Encoded(part.tokens * part.mask.unsqueeze(-1), part.mask) for part in encoded.values()]
    weights = fusion.weigh(streams)
    assert (weights[..., 0] == 0).all()
    assert (weights[..., 1:] != 0).all()


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"voice": ["hubrt"]}, "groups.voice: 'hubrt' fits no stream; did you mean 'hubert'?"),
        (
            {"voice": ["hubert"], "sound": ["h*"]},
            r"groups.sound: 'h\*' takes 'hubert', which is in voice already; a stream belongs to one modality",
        ),
    ],
)
def test_groups_that_fit_no_stream_or_share_one_are_refused(groups, message):
    with pytest.raises(ConfigError, match=message):
        group_streams(["hubert", "wavlm"], groups)


def test_pattern_may_name_a_stream_of_its_modality_twice():
    assert group_streams(["hubert", "wavlm"], {"voice": ["*", "hubert"], "none": []}) == ((0, 1),)


# ---- late fusion


def test_late_fusion_is_a_network_a_stream_and_dense_layers_over_all():
    fusion = make("lf_dnn")
    encoded = utterances(UNEQUAL)
    encoded["text"].mask[0] = False
    parts = [
        relu_layers(network, part.tokens[:, 0]) * part.mask
        for network, part in zip(fusion.networks, encoded.values(), strict=True)
    ]
    torch.testing.assert_close(fusion(encoded).pooled, relu_layers(fusion.dense, torch.cat(parts, dim=1)))


def test_late_fusion_averages_the_real_tokens_of_a_clip_first():
    fusion = make("lf_dnn")
    encoded = sequences(UNEQUAL, num_tokens=6)
    means = {}
    for name, part in encoded.items():
        rows = [part.tokens[b, part.mask[b]].mean(0) if part.mask[b].any() else torch.zeros(part.tokens.shape[2])
                for b in range(3)]  # fmt: skip
        means[name] = Encoded(torch.stack(rows).unsqueeze(1), part.mask.any(1, keepdim=True))
    torch.testing.assert_close(fusion(encoded).pooled, fusion(means).pooled)


# ---- early fusion


def test_early_fusion_is_an_lstm_over_the_concatenated_real_steps():
    fusion = make("ef_lstm", token_rate=1.0)
    encoded = sequences(UNEQUAL)
    fused = fusion(encoded)
    plain = fusion.lstm.forwards[0]
    for row in (0, 1):
        steps = [
            torch.cat([part.tokens[row, step] * part.mask[row, step] for part in encoded.values()])
            for step in range(6)
            if any(part.mask[row, step] for part in encoded.values())
        ]
        states, (last, _) = plain(torch.stack(steps).unsqueeze(0))
        torch.testing.assert_close(fused.pooled[row], fusion.output(last[0, 0]))
        torch.testing.assert_close(fused.tokens[row, fused.mask[row]], fusion.output(states[0]))
    assert (fused.pooled[2] == 0).all()


def test_early_fusion_in_time_sees_the_future_only_where_it_is_asked_to():
    seen = {}
    for bidirectional in (False, True):
        fusion = make("ef_lstm", token_rate=1.0, bidirectional=bidirectional)
        encoded = {name: Encoded(part.tokens, torch.ones(3, 6).bool()) for name, part in sequences(UNEQUAL).items()}
        before = fusion(encoded).tokens
        encoded["text"].tokens[:, 3] += 1.0
        seen[bidirectional] = ((fusion(encoded).tokens - before).abs().amax((0, 2)) > 1e-6).tolist()
    assert seen == {False: [False] * 3 + [True] * 3, True: [True] * 6}


@pytest.mark.parametrize("name", ["ef_lstm", "mfn"])
def test_streams_of_a_clip_are_brought_to_common_steps(name):
    fusion = make(name, num_steps=4)
    encoded = {"voice": 9, "text": 3, "face": 1}
    encoded = {
        key: Encoded(torch.randn(2, length, UNEQUAL[key]), torch.ones(2, length, dtype=torch.bool))
        for key, length in encoded.items()
    }
    aligned = dict(zip(encoded, align_streams(list(encoded.values()), 4), strict=True))
    in_time = make(name, num_steps=4, token_rate=1.0)
    in_time.load_state_dict(fusion.state_dict())
    fused = fusion(encoded)
    assert fused.tokens.shape == (2, 4, 32)
    torch.testing.assert_close(fused.pooled, in_time(aligned).pooled)


# ---- tensor fusion


def test_tensor_fusion_reads_the_outer_product_with_appended_ones():
    fusion = make("tfn", hidden=3)
    encoded = utterances(UNEQUAL)
    one = torch.ones(5, 1)
    a, b, c = (
        torch.cat([relu_layers(network, vector), one], dim=1)
        for network, vector in zip(fusion.networks, vectors_of(encoded), strict=True)
    )
    product = torch.einsum("bi,bj,bk->bijk", a, b, c).flatten(1)
    dense = functional.relu(product @ fusion.product.weight.T + fusion.product.bias)
    torch.testing.assert_close(fusion(encoded).pooled, relu_layers([fusion.output[1]], dense))


def test_product_holds_every_product_of_up_to_one_value_a_stream():
    a, b = torch.tensor([2.0, 3.0]), torch.tensor([5.0])
    assert outer_with_ones([a, b]).tolist() == [10.0, 2.0, 15.0, 3.0, 5.0, 1.0]
    zero = torch.zeros(1)
    assert outer_with_ones([a, zero]).reshape(3, 2)[:, 1].tolist() == [2.0, 3.0, 1.0]  # the other stream remains
    assert outer_with_ones([a, zero]).count_nonzero() == 3


@pytest.mark.parametrize("name", ["tfn", "lmf"])
def test_streams_that_are_not_given_count_as_zero_with_a_one(name):
    fusion = make(name, hidden=3)
    join = fusion._join if name == "tfn" else fusion.low_rank
    vectors = {place: torch.randn(2, 4, 3) for place in range(3)}
    for given in ([0], [1], [2], [0, 2], [1, 2]):
        zeros = {place: vector * (place in given) for place, vector in vectors.items()}
        torch.testing.assert_close(join({place: vectors[place] for place in given}), join(zeros))


def test_product_that_explodes_is_refused_with_its_size_and_the_cure():
    widths = dict.fromkeys("abcd", 32)
    message = (
        "the outer product of 4 streams with hidden=16 has 83,521 entries, more than max_product=50,000: "
        "lower hidden, read fewer streams, take the fusion lmf, which never builds the product, or raise max_product"
    )
    with pytest.raises(ConfigError, match=message):
        make("tfn", widths=widths, hidden=16)
    assert make("tfn", widths=widths, hidden=16, max_product=90_000).product.in_features == 83_521
    assert make("tfn", widths=widths, hidden=6).product.in_features == 7**4


@pytest.mark.parametrize(("count", "hidden"), [(1, 16), (3, 16), (4, 13), (6, 5)])
def test_tensor_fusion_without_a_width_takes_the_largest_that_the_product_allows(count, hidden):
    fusion = make("tfn", widths=dict.fromkeys("abcdef"[:count], 4))
    assert fusion.sizes == (hidden + 1,) * count
    assert (hidden + 1) ** count <= fusion.config.max_product
    assert hidden == 16 or (hidden + 2) ** count > fusion.config.max_product


# ---- low-rank fusion


@pytest.mark.parametrize("widths", [[3], [3, 2], [3, 2, 4], [2, 2, 2, 2]])
def test_low_rank_fusion_is_tensor_fusion_with_a_factorised_weight(widths):
    torch.manual_seed(0)
    low_rank = LowRankProduct(widths, 5, rank=3).double()
    torch.nn.init.normal_(low_rank.bias)
    vectors = [torch.randn(2, 1, width, dtype=torch.float64) for width in widths]
    weight = torch.zeros(5, *(width + 1 for width in widths), dtype=torch.float64)
    for rank in range(3):
        for output in range(5):
            term = low_rank.weights[0, rank]
            for factor in low_rank.factors:
                term = torch.tensordot(term, factor[rank, :, output], dims=0)
            weight[output] += term
    expected = outer_with_ones(vectors) @ weight.flatten(1).T + low_rank.bias
    torch.testing.assert_close(low_rank(dict(enumerate(vectors))), expected, rtol=1e-10, atol=1e-12)


def test_low_rank_fusion_joins_the_vectors_of_the_streams_networks():
    fusion = make("lmf", rank=2)
    encoded = utterances(UNEQUAL)
    parts = [
        torch.cat([relu_layers(network, vector), torch.ones(5, 1)], dim=1)
        for network, vector in zip(fusion.networks, vectors_of(encoded), strict=True)
    ]
    expected = fusion.low_rank.bias.expand(5, -1)
    for rank in range(2):
        term = fusion.low_rank.weights[0, rank].expand(5, 32)
        for part, factor in zip(parts, fusion.low_rank.factors, strict=True):
            term = term * (part @ factor[rank])
        expected = expected + term
    torch.testing.assert_close(fusion(encoded).pooled, expected)


def test_every_rank_of_a_factor_is_drawn_after_xavier():
    torch.manual_seed(0)
    factor = LowRankProduct([63], 64, rank=4).factors[0]
    deviations = factor.flatten(1).std(1)
    torch.testing.assert_close(deviations, torch.full((4,), (2 / (64 + 64)) ** 0.5), rtol=0.05, atol=0.0)


# ---- memory fusion


def test_memory_fusion_is_the_recursion_of_the_paper():
    """Step by step and row by row: LSTMs, attention over c[t-1, t], gated memory, output from [h; u]."""
    fusion = make("mfn", token_rate=1.0, hidden=3, memory=4)
    encoded = sequences(UNEQUAL)
    fused = fusion(encoded)
    cells = [torch.nn.LSTMCell(width, 3) for width in UNEQUAL.values()]
    with torch.no_grad():
        for s, cell in enumerate(cells):
            cell.weight_ih.copy_(fusion.lstms.inputs[s].weight)
            cell.bias_ih.copy_(fusion.lstms.inputs[s].bias)
            cell.weight_hh.copy_(fusion.lstms.recurrent[s].T)
            cell.bias_hh.zero_()
    for row in range(3):
        states = [(torch.zeros(3), torch.zeros(3)) for _ in cells]
        memory, result = torch.zeros(4), torch.zeros(32)
        for step in range(6):
            real = [bool(part.mask[row, step]) for part in encoded.values()]
            if not any(real):
                assert (fused.tokens[row, step] == 0).all()
                continue
            before = torch.cat([state[1] for state in states])
            for s, part in enumerate(encoded.values()):
                if real[s]:
                    states[s] = cells[s](part.tokens[row, step], states[s])
            both = torch.cat([before, *(state[1] for state in states)])
            seen = torch.softmax(fusion.attend(both), dim=0) * both
            retain, update = torch.sigmoid(fusion.memory.retain(seen)), torch.sigmoid(fusion.memory.update(seen))
            memory = retain * memory + update * torch.tanh(fusion.memory.proposal(seen))
            result = fusion.output(torch.cat([*(state[0] for state in states), memory]))
            torch.testing.assert_close(fused.tokens[row, step], result)
        torch.testing.assert_close(fused.pooled[row], result)


@pytest.mark.parametrize(
    ("name", "knobs", "message"),
    [
        ("attention", {"width": 0}, "width: need 1 or more, or null for the width of the streams, got 0"),
        ("attention", {"num_layers": 0}, "a sub-network needs layers and a width of 1 or more, got 0 and 6"),
        ("ef_lstm", {"num_steps": 0}, "num_steps: need 1 or more steps, got 0"),
        ("lf_dnn", {"hidden": 0}, "a sub-network needs layers and a width of 1 or more, got 3 and 0"),
        ("lmf", {"rank": 0}, "need rank and width of 1 or more, got 0 and 32"),
        (
            "mfn",
            {"memory": 0},
            "need width, memory, attention, gates and num_steps of 1 or more, got 32, 0, 32, 32 and",
        ),
        ("mfn", {"hidden": 0}, "an LSTM needs a hidden width of 1 or more, got 0"),
    ],
)
def test_knobs_out_of_range_are_refused(name, knobs, message):
    with pytest.raises(ConfigError, match=message):
        make(name, **knobs)
