import pytest
import torch

from mersuite.errors import ConfigError
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.encoders.external import ExternalConfig, ExternalEncoder, find_factory

FAKE = "braindecode.fake_for_tests:FakeNet"


def encoder_of(*, channels=3, rate=200.0, ch_names=("FP1", "CZ", "OZ"), **knobs):
    info = StreamInfo(num_channels=channels, rate_hz=rate, ch_names=ch_names)
    torch.manual_seed(0)
    config = ExternalConfig(**{"factory": FAKE, "context_s": 0.0, **knobs})
    return ExternalEncoder(config, info, BuildContext(streams={"eeg": info}, token_rate_hz=1.0))


def test_network_sees_the_window_of_each_token():
    encoder = encoder_of(input_norm=False, scale=2.0).eval()
    stream = torch.randn(2, 400, 3)
    tokens, _ = encoder(stream, torch.ones(2, 400, dtype=torch.bool))
    expected = encoder.readout(encoder.model(2.0 * stream[:, 200:].transpose(1, 2)))
    torch.testing.assert_close(tokens[:, 1], expected)


def test_removed_part_gives_what_came_before_it():
    encoder = encoder_of(remove="final_layer", options={"hidden": 7})
    assert encoder.readout.in_features == 7
    assert encoder_of(width=9).readout.in_features == 9


def test_frozen_network_stands_still_while_its_readout_learns():
    encoder = encoder_of(freeze=True).train()
    stream, mask = torch.randn(2, 400, 3), torch.ones(2, 400, dtype=torch.bool)
    torch.testing.assert_close(encoder(stream, mask).tokens, encoder(stream, mask).tokens, rtol=1e-4, atol=1e-5)
    encoder(stream, mask).tokens.sum().backward()
    assert all(value.grad is None for value in encoder.model.parameters())
    assert encoder.readout.weight.grad.abs().sum() > 0
    assert not encoder.model.training
    assert encoder.readout.training


def test_channel_names_are_handed_over_when_asked_for():
    assert encoder_of(pass_ch_names=True).model.ch_names == ["FP1", "CZ", "OZ"]
    assert encoder_of().model.ch_names == []


@pytest.mark.parametrize(
    ("ch_names", "message"),
    [
        (("FP1", "CZ", "CB1"), "pass_ch_names: not every channel has a place in MNE's standard_1005: .*CB1"),
        ((), "pass_ch_names: the stream names 0 of its 3 channels"),
    ],
)
def test_channels_without_a_name_or_place_cannot_be_handed_over(ch_names, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        encoder_of(pass_ch_names=True, ch_names=ch_names)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_are_read_when_asked_for_and_not_before(tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    encoder = encoder_of(weights=str(path), remove="final_layer")
    state = {key: torch.full_like(value, 0.25) for key, value in encoder_of().model.state_dict().items()}
    if suffix == ".pt":
        torch.save({"state_dict": state}, path)
    else:
        from safetensors.torch import save_file

        save_file(state, path)
    assert not (encoder.model.body.weight == 0.25).all()
    encoder.load_pretrained()
    assert (encoder.model.body.weight == 0.25).all()


def test_weights_of_another_size_are_refused_by_name_and_shape(tmp_path):
    path = tmp_path / "net.pt"
    torch.save(encoder_of(channels=5).model.state_dict(), path)
    encoder = encoder_of(weights=str(path))
    with pytest.raises(ConfigError, match=r"body.weight is \(4, 5, 5\), the model's is \(4, 3, 5\)"):
        encoder.load_pretrained()


def test_no_weights_are_nothing_to_read():
    encoder = encoder_of()
    before = encoder.model.body.weight.clone()
    encoder.load_pretrained()
    assert torch.equal(encoder.model.body.weight, before)


@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"rate_hz": 250.0}, "rate_hz: .* needs 250 Hz, the stream has 200 Hz; prepare it at 250 Hz"),
        (
            {"options": {"depth": 3}},
            r"factory: .*FakeNet does not take \{'n_chans': 3.*unexpected keyword argument 'depth'",
        ),
        ({"remove": "final_layr"}, "remove: .* has no part 'final_layr'; did you mean 'final_layer'?"),
        ({"factory": "braindecode.fake_for_tests:LoudNet"}, "must give one tensor with the windows first"),
        (
            {"factory": "braindecode.fake_for_tests:PickyNet"},
            "fails on windows of 3 channels and 200 samples: need 3 ch",
        ),
        ({"factory": "braindecode.fake_for_tests:FakeNt"}, "has no model 'FakeNt'; did you mean 'FakeNet'?"),
        ({"factory": "braindecode.fake_for_tests:answer"}, "has no model 'answer'"),
        ({"factory": "os:system"}, "factory: only models of braindecode may be named, got 'os:system'"),
        ({"factory": "braindecode_evil.models:Net"}, "only models of braindecode may be named"),
        (
            {"factory": "braindecode.models.EEGNet"},
            "factory: need package.module:Name, got 'braindecode.models.EEGNet'",
        ),
        ({"factory": "braindecode:Net;x"}, "factory: need package.module:Name"),
    ],
)
def test_what_does_not_fit_is_refused(knobs, message):
    with pytest.raises(ConfigError, match=message):
        encoder_of(**knobs)


def test_missing_package_is_named_with_its_cure():
    with pytest.raises(
        ConfigError, match=r"needs the package 'braindecode.*', which is not installed; pip install braindecode"
    ):
        find_factory("braindecode.no_such_module_here:Net")


@pytest.mark.parametrize("name", ["EEGNet", "ShallowFBCSPNet", "EEGConformer"])
def test_runs_models_of_braindecode(name):
    pytest.importorskip("braindecode.models", reason="braindecode is not installed")
    encoder = encoder_of(factory=f"braindecode.models:{name}", context_s=0.5)
    tokens, mask = encoder(torch.randn(2, 600, 3), torch.ones(2, 600, dtype=torch.bool))
    assert tokens.shape == (2, 3, 32)
    assert mask.all()
    tokens.sum().backward()
    assert sum(value.grad.abs().sum() for value in encoder.model.parameters()) > 0
