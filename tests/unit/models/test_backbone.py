from types import SimpleNamespace

import pytest
import torch

from mersuite import catalog
from mersuite.clip import Batch, WindowKey
from mersuite.errors import ConfigError, DataError
from mersuite.models.backbone import build_backbone, hide_streams, module_key, stream_name
from mersuite.models.base import BuildContext, Encoded, StreamInfo
from mersuite.models.network import Network
from mersuite.schema import build_named

STREAMS = {
    "eeg": StreamInfo(num_channels=4, rate_hz=128.0),
    "fnirs": StreamInfo(num_channels=3, rate_hz=1.0),
    "face.listener": StreamInfo(num_channels=5, rate_hz=0.0),
}
CONTEXT = BuildContext(streams=STREAMS, window_s=3.0, token_rate_hz=1.0)
ENCODERS = {"eeg": "eegnet", "fnirs": "mlp", "face.listener": "mlp"}


def config_of(encoders=ENCODERS, fusion="concat", modality_dropout=0.0):
    return SimpleNamespace(
        encoders={name: build_named("encoder", part, name) for name, part in encoders.items()},
        fusion=build_named("fusion", fusion, "fusion"),
        modality_dropout=modality_dropout,
    )


def batch_of(streams=tuple(STREAMS), size=2, seconds=3):
    generator = torch.Generator().manual_seed(1)
    lengths = {name: max(1, round(seconds * STREAMS[name].rate_hz)) for name in streams}
    return Batch(
        keys=[WindowKey("s", 0.0, 3.0)] * size,
        streams={
            name: torch.randn(size, length, STREAMS[name].num_channels, generator=generator)
            for name, length in lengths.items()
        },
        masks={name: torch.ones(size, length, dtype=torch.bool) for name, length in lengths.items()},
    )


@pytest.mark.parametrize("name", ["eeg", "face.listener", "a%2Eb", "%", "type", "stream_eeg", "text.a"])
def test_module_key_can_be_undone_and_is_a_legal_module_name(name):
    key = module_key(name)
    assert stream_name(key) == name
    torch.nn.ModuleDict({key: torch.nn.Identity()})


@pytest.mark.parametrize("fusion", catalog.names("fusion"))
def test_backbone_joins_a_recording_features_and_a_vector(fusion):
    backbone = build_backbone(config_of(fusion=fusion), CONTEXT).eval()
    fused = backbone(batch_of())
    assert fused.tokens.shape == (2, 3, backbone.width)
    assert fused.pooled.shape == (2, backbone.width)
    assert backbone.stream_names == tuple(ENCODERS)
    assert fused.mask.all()


@pytest.mark.parametrize("fusion", catalog.names("fusion"))
def test_stream_that_the_batch_lacks_counts_as_masked(fusion):
    backbone = build_backbone(config_of(fusion=fusion), CONTEXT).eval()
    masked = batch_of()
    masked.masks["eeg"][:] = False
    lacking = batch_of()
    del lacking.streams["eeg"], lacking.masks["eeg"]
    torch.testing.assert_close(backbone(lacking).tokens, backbone(masked).tokens)


def test_stream_that_the_batch_lacks_still_has_gradients():
    backbone = build_backbone(config_of(), CONTEXT)
    lacking = batch_of()
    del lacking.streams["eeg"], lacking.masks["eeg"]
    backbone(lacking).tokens.sum().backward()
    assert all(value.grad is not None for value in backbone.encoder("eeg").parameters())


def test_vector_of_a_clip_reaches_no_padded_token():
    backbone = build_backbone(config_of(), CONTEXT).eval()
    batch = batch_of()
    batch.masks["eeg"][0, 128:] = False
    batch.masks["fnirs"][0, 1:] = False
    assert backbone(batch).mask.tolist() == [[True, False, False], [True, True, True]]


def test_vector_alone_fills_every_token_of_its_row():
    backbone = build_backbone(config_of(), CONTEXT).eval()
    batch = batch_of()
    batch.masks["eeg"][0] = False
    batch.masks["fnirs"][0] = False
    assert backbone(batch).mask.all()


def test_batch_without_any_configured_stream_is_refused():
    backbone = build_backbone(config_of({"eeg": "eegnet"}), CONTEXT)
    with pytest.raises(
        DataError, match=r"streams \['fnirs'\], none of which is configured: model.encoders has \['eeg'\]"
    ):
        backbone(batch_of(("fnirs",)))


def test_streams_that_cover_other_seconds_are_refused():
    backbone = build_backbone(config_of(), CONTEXT)
    batch = batch_of()
    batch.streams["fnirs"], batch.masks["fnirs"] = batch.streams["fnirs"][:, :2], batch.masks["fnirs"][:, :2]
    with pytest.raises(DataError, match="different numbers of tokens: eeg 3, fnirs 2"):
        backbone(batch)


def streams_for_hiding(rows=4000):
    mask = torch.ones(rows, 2, dtype=torch.bool)
    half = mask.clone()
    half[: rows // 2] = False
    tokens = torch.ones(rows, 2, 3)
    return {"a": Encoded(tokens, mask), "b": Encoded(tokens * half.unsqueeze(-1), half)}


def test_hidden_streams_follow_the_rate_and_one_always_stays():
    torch.manual_seed(0)
    hidden = hide_streams(streams_for_hiding(), 0.3)
    a, b = hidden["a"].mask[:, 0], hidden["b"].mask[:, 0]
    assert (a | b).all()
    assert a[:2000].all()
    assert not b[:2000].any()
    # Of rows with both: each is hidden with 0.3, and 0.09 would lose both, of which half stay with either one.
    assert a[2000:].float().mean().item() == pytest.approx(0.7 + 0.045, abs=0.03)
    assert b[2000:].float().mean().item() == pytest.approx(0.7 + 0.045, abs=0.03)
    assert torch.equal(hidden["a"].tokens[:, 0, 0] > 0, a)


def test_modality_dropout_acts_in_training_only():
    backbone = build_backbone(config_of({"eeg": "eegnet", "fnirs": "mlp"}, modality_dropout=0.9), CONTEXT)
    batch = batch_of(("eeg", "fnirs"), size=64)
    backbone.eval()
    assert torch.equal(backbone(batch).tokens, backbone(batch).tokens)
    seen = []
    backbone.fusion.register_forward_pre_hook(lambda module, args: seen.append(args[0]["eeg"].mask[:, 0]))
    backbone(batch)
    backbone.train()
    torch.manual_seed(0)
    backbone(batch)
    assert seen[0].all()
    assert 0.3 < seen[1].float().mean() < 0.7


def test_frozen_encoders_change_in_no_way_while_the_fusion_learns():
    backbone = build_backbone(config_of(), CONTEXT)
    backbone.freeze_encoders()
    before = {key: value.clone() for key, value in backbone.encoders.state_dict().items()}
    optimizer = torch.optim.SGD([value for value in backbone.parameters() if value.requires_grad], lr=0.1)
    fusion_before = backbone.fusion.layer[0].weight.clone()
    backbone.train()
    backbone(batch_of()).tokens.square().sum().backward()
    optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in backbone.encoders.state_dict().items())
    assert not torch.equal(backbone.fusion.layer[0].weight, fusion_before)
    assert backbone.fusion.training


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_modality_dropout_out_of_range_is_refused(rate):
    with pytest.raises(ConfigError, match=r"model.modality_dropout: need 0 <= rate < 1, got"):
        build_backbone(config_of(modality_dropout=rate), CONTEXT)


def test_unknown_stream_is_refused_with_those_that_exist():
    with pytest.raises(
        ConfigError, match=r"model.encoders.egg: the data has no stream 'egg', only \['eeg'.*did you mean 'eeg'"
    ):
        build_backbone(config_of({"egg": "eegnet"}), CONTEXT)


def test_files_of_weights_are_read_only_when_asked_for(tmp_path):
    part = {"name": "external", "factory": "braindecode.fake_for_tests:FakeNet", "weights": str(tmp_path / "none.pt")}
    build_backbone(config_of({"eeg": part}), CONTEXT, load_weights=False)
    with pytest.raises(ConfigError, match=r"model.encoders.eeg: weights: there is no file .*none.pt"):
        build_backbone(config_of({"eeg": part}), CONTEXT)


def test_fault_of_the_fusion_names_its_key():
    with pytest.raises(ConfigError, match=r"model.fusion: attention needs a width that num_heads divides"):
        build_backbone(config_of(fusion={"name": "transformer", "width": 10}), CONTEXT)


def test_no_encoder_is_refused():
    with pytest.raises(ConfigError, match=r"model.encoders: no encoder configured; the data has the streams \['eeg'"):
        build_backbone(config_of({}), CONTEXT)


def test_encoder_of_recordings_refuses_features():
    with pytest.raises(ConfigError, match=r"model.encoders.fnirs: eegnet reads recordings of 10 Hz and more.*mlp"):
        build_backbone(config_of({"fnirs": "eegnet"}), CONTEXT)


def test_fault_of_an_encoder_names_its_key():
    part = {"name": "mlp", "num_layers": 0}
    with pytest.raises(ConfigError, match=r"model.encoders.fnirs: need num_layers, width and hidden of 1 or more"):
        build_backbone(config_of({"fnirs": part}), CONTEXT)


def test_weight_decay_does_not_wear_away_encoders_that_only_teach():
    """Adam turns a decay of any size into steps of the learning rate where there is no other gradient."""
    backbone = build_backbone(config_of(fusion="mctn"), CONTEXT)
    network = Network(backbone, torch.nn.Identity())
    before = {name: value.clone() for name, value in backbone.encoders.named_parameters()}
    trained = [value for value in network.parameters() if value.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-2, weight_decay=1e-5)
    for _ in range(3):
        fused = backbone(batch_of())
        optimizer.zero_grad()
        (fused.pooled.square().sum() + sum(fused.losses.values())).backward()
        optimizer.step()
    moved = {name for name, value in backbone.encoders.named_parameters() if not torch.equal(value, before[name])}
    assert {stream_name(name.split(".")[0]) for name in moved} == {"eeg"}
    assert all(value.grad is not None for value in trained)
