import pickle
from types import SimpleNamespace

import pytest
import torch

from mersuite.errors import ConfigError
from mersuite.models.backbone import build_backbone
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.pretrain import load_encoders, save_encoders
from mersuite.models.weights import load_strictly, read_weights
from mersuite.schema import build_named


class Trap:
    """Runs code when it is unpickled."""

    fired = False

    def __reduce__(self):
        return (setattr, (Trap, "fired", True))


def backbone_of(streams=("face.listener", "fnirs"), *, channels=4, hidden=8, seed=0):
    context = BuildContext(
        streams={name: StreamInfo(num_channels=channels, rate_hz=1.0) for name in streams}, token_rate_hz=1.0
    )
    part = build_named("encoder", {"name": "mlp", "hidden": hidden}, "x")
    config = SimpleNamespace(
        encoders=dict.fromkeys(streams, part), fusion=build_named("fusion", "concat", "x"), modality_dropout=0.0
    )
    torch.manual_seed(seed)
    return build_backbone(config, context)


def same(one, other):
    return all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


def test_saved_encoders_come_back_whole_with_their_statistics(tmp_path):
    first, second = backbone_of(), backbone_of(seed=1)
    first.encoder("fnirs").norm.mean.fill_(3.0)
    save_encoders(tmp_path / "e.safetensors", first)
    assert load_encoders(tmp_path / "e.safetensors", second) == ("face.listener", "fnirs")
    assert same(first.encoders, second.encoders)
    assert not same(first.fusion, second.fusion)


def test_encoders_of_a_checkpoint_are_found_at_any_depth(tmp_path):
    first, second = backbone_of(), backbone_of(seed=1)
    state = {f"network.backbone.{key}": value for key, value in first.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "last.ckpt")
    load_encoders(tmp_path / "last.ckpt", second)
    assert same(first.encoders, second.encoders)


def test_only_streams_in_common_are_loaded(tmp_path):
    save_encoders(tmp_path / "e.safetensors", backbone_of(("fnirs",)))
    second = backbone_of(("fnirs", "voice"), seed=1)
    before = second.encoder("voice").layers[0].weight.clone()
    assert load_encoders(tmp_path / "e.safetensors", second) == ("fnirs",)
    assert torch.equal(second.encoder("voice").layers[0].weight, before)


def test_nothing_in_common_is_refused(tmp_path):
    save_encoders(tmp_path / "e.safetensors", backbone_of(("fnirs",)))
    with pytest.raises(
        ConfigError, match=r"model.pretrained: .* has encoders for \['fnirs'\], this model for \['voice'\]"
    ):
        load_encoders(tmp_path / "e.safetensors", backbone_of(("voice",)))


def test_other_shapes_are_refused_by_name(tmp_path):
    save_encoders(tmp_path / "e.safetensors", backbone_of(("fnirs",), hidden=16))
    message = r"stream 'fnirs' in .* layers.0.weight is \(16, 4\), the model's is \(8, 4\)"
    with pytest.raises(ConfigError, match=message):
        load_encoders(tmp_path / "e.safetensors", backbone_of(("fnirs",)))


def test_missing_and_unknown_tensors_are_refused():
    layer = torch.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match=r"weights of x do not fit.*bias is missing; extra is unknown to the model"):
        load_strictly(layer, {"weight": torch.zeros(2, 2), "extra": torch.zeros(1)}, source="x")


def test_refused_weights_change_nothing():
    layer = torch.nn.Linear(2, 2)
    before = layer.weight.clone()
    with pytest.raises(ConfigError, match="bias is missing"):
        load_strictly(layer, {"weight": torch.zeros(2, 2)}, source="x")
    assert torch.equal(layer.weight, before)


def test_pickled_objects_are_refused_and_never_run(tmp_path):
    path = tmp_path / "evil.pt"
    torch.save({"state_dict": {"weight": torch.zeros(1)}, "extra": Trap()}, path)
    with pytest.raises(
        ConfigError, match="holds objects other than tensors, which are not loaded because they can run"
    ):
        read_weights(path)
    bare = tmp_path / "bare.bin"
    bare.write_bytes(pickle.dumps(Trap(), protocol=2))
    with pytest.raises(ConfigError, match="weights: "):
        read_weights(bare)
    assert not Trap.fired


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.pt", None, "weights: there is no file"),
        ("w.npz", b"x", "weights: need a .safetensors file or one of .pt, .pth, .ckpt, .bin, got w.npz"),
        ("w.safetensors", b"not at all", "is no readable safetensors file"),
        ("w.pt", b"", "is no readable PyTorch file"),
    ],
)
def test_files_that_hold_no_weights_are_refused(tmp_path, name, content, message):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        read_weights(path)


def test_file_without_named_tensors_is_refused(tmp_path):
    torch.save([torch.zeros(2)], tmp_path / "list.pt")
    with pytest.raises(ConfigError, match="holds no named tensors"):
        read_weights(tmp_path / "list.pt")
