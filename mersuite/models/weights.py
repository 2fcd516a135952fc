"""Reads and writes tensors of models, and nothing else: no file that is read here can run code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from mersuite.errors import ConfigError

_TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".bin")


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


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise ConfigError(f"weights: {path} is no readable safetensors file: {error}") from error


def _items(held: Any) -> list[tuple[Any, Any]]:
    return list(held.items()) if isinstance(held, Mapping) else []
