"""Reads and writes tensors of models, and nothing else: no file that is read here can run code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from mersuite.errors import ConfigError
from mersuite.models.backbone import Backbone, module_key, stream_name

_TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")
_PREFIX = "encoders."


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """Reads named tensors from a .safetensors file or from a PyTorch file.

    A PyTorch file may hold them itself or under "state_dict" or "model", as checkpoints do.

    Raises:
        ConfigError: If the file is missing, of another kind, damaged, or holds objects other than tensors and plain
            values; such objects are never built.
    """
    if not path.is_file():
        raise ConfigError(f"weights: there is no file {path}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix not in _TORCH_SUFFIXES:
        raise ConfigError(f"weights: need a .safetensors file or one of {', '.join(_TORCH_SUFFIXES)}, got {path.name}")
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise ConfigError(
            f"weights: {path} holds objects other than tensors, which are not loaded because they can run code; "
            "save the model's state_dict() with safetensors"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ConfigError(f"weights: {path} is no readable PyTorch file: {error}") from error
    for key in ("state_dict", "model"):
        if isinstance(held, Mapping) and isinstance(held.get(key), Mapping):
            held = held[key]
    tensors = {str(key): value for key, value in _items(held) if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ConfigError(f"weights: {path} holds no named tensors; save the model's state_dict()")
    return tensors


def load_strictly(module: nn.Module, tensors: Mapping[str, torch.Tensor], *, source: str) -> None:
    """Loads all tensors of a module; none may be missing, left over or of another shape.

    Args:
        module: What is loaded.
        tensors: By the module's own names.
        source: Where the tensors come from, for the message.

    Raises:
        ConfigError: With every name that does not fit.
    """
    own = module.state_dict()
    faults = [f"{key} is missing" for key in own if key not in tensors]
    faults += [f"{key} is unknown to the model" for key in tensors if key not in own]
    faults += [
        f"{key} is {tuple(tensors[key].shape)}, the model's is {tuple(value.shape)}"
        for key, value in own.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    if faults:
        more = f" and {len(faults) - 6} more" if len(faults) > 6 else ""
        raise ConfigError(
            f"the weights of {source} do not fit this model: {'; '.join(faults[:6])}{more}; "
            "configure the encoder and the data as they were when the weights were made"
        )
    module.load_state_dict(dict(tensors))


def save_encoders(path: Path, backbone: Backbone) -> None:
    """Writes the weights and statistics of all encoders of a backbone to a .safetensors file."""
    from safetensors.torch import save_file

    state = {f"{_PREFIX}{key}": value for key, value in backbone.encoders.state_dict().items()}
    save_file({key: value.detach().cpu().contiguous().clone() for key, value in state.items()}, path)


def load_encoders(path: Path, backbone: Backbone) -> tuple[str, ...]:
    """Loads the encoders that a file and a backbone have in common, each of them whole.

    Args:
        path: Written by save_encoders, or a checkpoint that holds a backbone at any depth.
        backbone: Its encoders are changed in place.

    Returns:
        The streams whose encoders were loaded.

    Raises:
        ConfigError: If the file is unreadable, has no encoder of this backbone, or one that does not fit.
    """
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in read_weights(path).items():
        _, found, rest = key.partition(_PREFIX + module_key(""))
        if found:
            name, _, tensor_name = rest.partition(".")
            parts.setdefault(stream_name(module_key("") + name), {})[tensor_name] = value
    common = tuple(name for name in backbone.stream_names if name in parts)
    if not common:
        raise ConfigError(
            f"model.pretrained: {path} has encoders for {sorted(parts) or 'no stream'}, "
            f"this model for {sorted(backbone.stream_names)}"
        )
    for name in common:
        load_strictly(backbone.encoder(name), parts[name], source=f"stream {name!r} in {path}")
    return common


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ConfigError(f"weights: {path} is no readable safetensors file: {error}") from error


def _items(held: Any) -> list[tuple[Any, Any]]:
    return list(held.items()) if isinstance(held, Mapping) else []
