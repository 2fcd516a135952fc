"""A network of another installed package, such as braindecode, with weights of your own or from its makers.

Axes: N windows, C channels, S samples, D width.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mersuite.errors import ConfigError, did_you_mean
from mersuite.models.base import BuildContext, StreamInfo
from mersuite.models.weights import load_strictly, read_weights
from mersuite.models.window_encoder import WindowConfig, WindowEncoder

ALLOWED_PACKAGES = ("braindecode",)
"""Packages that a configuration may name. Why a list: a configuration file may come from anyone, and importing a module
runs it. Only a package that was installed for the purpose is imported, never a file beside the configuration."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalConfig(WindowConfig):
    """Knobs of the adapter.

    Attributes:
        factory: The class, as "package.module:Name", such as "braindecode.models:CBraMod". It is called with n_chans,
            n_times, n_outputs and sfreq, and gets (N, C, S).
        options: Further arguments of the class.
        rate_hz: Rate that its weights were trained at; a stream of another rate is refused. null takes any.
        weights: A .safetensors file, or a PyTorch file of tensors. It is read when training starts; a checkpoint holds
            the weights itself.
        remove: Name of a submodule that is left out, such as "final_layer" to get what the classifier would see. Its
            weights in the file are ignored.
        freeze: Keep the network as it is and train only the linear layer behind it.
        scale: Factor on the recording where input_norm is off, such as 1e6 for a network trained on microvolts.
        pass_ch_names: Hand over names and standard places of the channels (chs_info), for networks that embed them.
    """

    factory: str
    options: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    rate_hz: float | None = None
    weights: str | None = None
    remove: str = ""
    freeze: bool = False
    scale: float = 1.0
    pass_ch_names: bool = False


class ExternalEncoder(WindowEncoder):
    """Runs a foreign network on the window of each token, and a linear layer on its values."""

    Config = ExternalConfig
    config: ExternalConfig

    def __init__(self, config: ExternalConfig, info: StreamInfo, context: BuildContext) -> None:
        super().__init__(config, info, context)
        if config.rate_hz is not None and abs(config.rate_hz - info.rate_hz) > 1e-3 * config.rate_hz:
            raise ConfigError(
                f"rate_hz: {config.factory} needs {config.rate_hz:g} Hz, the stream has {info.rate_hz:g} Hz; "
                f"prepare it at {config.rate_hz:g} Hz"
            )
        self.model = self._build(find_factory(config.factory))
        num_values = self._probe()
        if config.freeze:
            self.model.requires_grad_(False)
        self.readout = nn.Linear(num_values, config.width)

    def load_pretrained(self) -> None:
        """Reads the configured file of weights into the network; every tensor must fit."""
        if self.config.weights is None:
            return
        tensors = read_weights(Path(self.config.weights))
        if self.config.remove:
            tensors = {key: value for key, value in tensors.items() if not key.startswith(self.config.remove + ".")}
        load_strictly(self.model, tensors, source=self.config.weights)

    def train(self, mode: bool = True) -> ExternalEncoder:
        """Sets the mode; a frozen network stays in evaluation, so that its dropout and norms stand still."""
        super().train(mode)
        if self.config.freeze:
            self.model.eval()
        return self

    def encode_windows(self, windows: torch.Tensor) -> torch.Tensor:
        """Gives (N, D) tokens for (N, C, S) windows."""
        if self.norm is None:
            windows = windows * self.config.scale
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.config.freeze):
            values = self.model(windows)
        return self.readout(values.flatten(1))

    def _build(self, factory: type[nn.Module]) -> nn.Module:
        sizes: dict[str, Any] = {
            "n_chans": self.info.num_channels,
            "n_times": self.windows.num_rows,
            "n_outputs": self.config.width,
            "sfreq": self.info.rate_hz,
        }
        if self.config.pass_ch_names:
            sizes["chs_info"] = _channel_infos(self.info)
        try:
            model = factory(**sizes, **self.config.options)
        except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
            given = {key: item for key, item in sizes.items() if key != "chs_info"}
            raise ConfigError(
                f"factory: {self.config.factory} does not take {given} with these options: {error}"
            ) from error
        if self.config.remove:
            names = [name for name, _ in model.named_children()]
            if self.config.remove not in names:
                raise ConfigError(
                    f"remove: {self.config.factory} has no part {self.config.remove!r}; "
                    f"{did_you_mean(self.config.remove, names)}"
                )
            setattr(model, self.config.remove, nn.Identity())
        return model

    @torch.no_grad()
    def _probe(self) -> int:
        """Gives how many values the network has for a window."""
        self.model.eval()
        try:
            values = self.model(torch.zeros(2, self.info.num_channels, self.windows.num_rows))
        except (TypeError, ValueError, KeyError, RuntimeError, AssertionError) as error:
            raise ConfigError(
                f"factory: {self.config.factory} fails on windows of {self.info.num_channels} channels and "
                f"{self.windows.num_rows} samples: {error}; change context_s"
            ) from error
        if not isinstance(values, torch.Tensor) or values.dim() < 2 or len(values) != 2:
            raise ConfigError(f"factory: {self.config.factory} must give one tensor with the windows first")
        self.model.train()
        return values[0].numel()


def find_factory(path: str) -> type[nn.Module]:
    """Gives the class that "package.module:Name" names.

    Raises:
        ConfigError: If the package is not allowed or not installed, or has no such model.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", path):
        raise ConfigError(f"factory: need package.module:Name, got {path!r}")
    module_name, _, name = path.partition(":")
    package = module_name.partition(".")[0]
    if package not in ALLOWED_PACKAGES:
        raise ConfigError(f"factory: only models of {', '.join(ALLOWED_PACKAGES)} may be named, got {path!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"factory: {path} needs the package {error.name!r}, which is not installed; pip install {package}"
        ) from error
    found = getattr(module, name, None)
    if not isinstance(found, type) or not issubclass(found, nn.Module):
        models = [key for key, item in vars(module).items() if isinstance(item, type) and issubclass(item, nn.Module)]
        raise ConfigError(f"factory: {module_name} has no model {name!r}; {did_you_mean(name, models)}")
    return found


def _channel_infos(info: StreamInfo) -> list[Any]:
    """Gives MNE's description of the channels with their places on the standard 10-05 head."""
    import mne

    if len(info.ch_names) != info.num_channels:
        raise ConfigError(f"pass_ch_names: the stream names {len(info.ch_names)} of its {info.num_channels} channels")
    described = mne.create_info(list(info.ch_names), info.rate_hz or 1.0, "eeg", verbose="error")
    try:
        described.set_montage("standard_1005", match_case=False, verbose="error")
    except ValueError as error:
        raise ConfigError(
            f"pass_ch_names: not every channel has a place in MNE's standard_1005: {error}; leave those channels out"
        ) from error
    return list(described["chs"])
