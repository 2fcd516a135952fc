"""Many networks of one shape as one: their parameters stacked, their batches multiplied together.

What can be stacked: `mlp` encoders on one vector a clip, `attention` fusion and a head of one linear layer. Dropout
rates may differ from network to network; everything else that decides a shape may not.

Axes: M networks, B rows, S streams, C channels, D width, L classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import nn

from mersuite.models.backbone import module_key
from mersuite.models.encoders.mlp import MlpEncoder
from mersuite.models.fusion.attention import AttentionFusion
from mersuite.models.layers import RunningNorm
from mersuite.models.network import Network

_NOISE_BITS = 16


def why_not_stacked(network: Network) -> str:
    """Says what of a network keeps it from being stacked; "" where nothing does."""
    backbone = network.backbone
    if not isinstance(backbone.fusion, AttentionFusion):
        return f"its fusion is no attention but {type(backbone.fusion).__name__}"
    if backbone.fusion.context.token_rate_hz is not None:
        return "it answers in time"
    if backbone.modality_dropout > 0:
        return "model.modality_dropout is above 0"
    for stream in backbone.stream_names:
        encoder = backbone.encoder(stream)
        if not isinstance(encoder, MlpEncoder):
            return f"the encoder of {stream} is no mlp but {type(encoder).__name__}"
        if encoder.info.rate_hz != 0.0:
            return f"the stream {stream} runs in time"
    if not all(isinstance(child, nn.Linear | nn.Dropout) for child in network.head.children()):
        return "its head is more than one linear layer"
    return ""


def shape_of(network: Network) -> tuple[object, ...]:
    """Gives what networks must have in common to be stacked: their modules and the shapes of their parameters."""
    modules = [(name, type(module).__name__) for name, module in network.named_modules()]
    sizes = [(name, tuple(tensor.shape)) for name, tensor in network.state_dict().items()]
    return (*modules, *sizes)


class DropoutNoise:
    """Random 16-bit numbers for the dropout of stacked networks, from a generator for each of them.

    A network's numbers depend on its own seed only, not on which others it is stacked with. Why 16 bits: a quarter of
    the work of one random float each, and a rate that is exact to 1 / 65,536.

    Args:
        num_networks: M.
        sizes: Place of a dropout to numbers a row.
        num_rows: Most rows of a batch.
        device: Where the networks are.
    """

    def __init__(self, num_networks: int, sizes: Mapping[str, int], num_rows: int, device: torch.device) -> None:
        self._sizes = dict(sizes)
        self._num_rows = num_rows
        self._generators = [torch.Generator(device=device) for _ in range(num_networks)]
        num_words = -(-num_rows * sum(sizes.values()) * _NOISE_BITS // 64)
        self._words = torch.empty((num_networks, num_words), dtype=torch.int64, device=device)

    def start_epoch(self, seeds: Sequence[int]) -> None:
        """Seeds the generators, one seed a network."""
        for generator, seed in zip(self._generators, seeds, strict=True):
            generator.manual_seed(seed)

    def draw(self) -> dict[str, torch.Tensor]:
        """Gives (M, most rows, numbers a row) int16 for each place, evenly distributed; the next call overwrites it."""
        for words, generator in zip(self._words, self._generators, strict=True):
            words.random_(-(2**63), None, generator=generator)
        numbers = self._words.view(torch.int16)
        found, start = {}, 0
        for place, size in self._sizes.items():
            end = start + self._num_rows * size
            found[place] = numbers[:, start:end].view(len(numbers), self._num_rows, size)
            start = end
        return found


class StackedNetwork:
    """Networks of one shape whose parameters are stacked.

    Args:
        networks: Of one shape (shape_of), each fit to be stacked (why_not_stacked). They are copied.
        device: Where to compute.
    """

    def __init__(self, networks: Sequence[Network], device: torch.device) -> None:
        first = networks[0]
        self._template = first
        self._streams = first.backbone.stream_names
        self._fusion = cast(AttentionFusion, first.backbone.fusion)
        self._trained = [name for name, _ in first.named_parameters()]
        states = [network.state_dict() for network in networks]
        self.state = {name: torch.stack([state[name] for state in states]).to(device) for name in states[0]}
        self.gradients = {name: torch.zeros_like(self.state[name]) for name in self._trained}
        for name in self._trained:
            self.state[name].requires_grad_()
        self._num_inputs: dict[str, int] = {}
        self._rates: dict[str, torch.Tensor] = {}
        self._bounds: dict[str, torch.Tensor] = {}
        self._kept: dict[str, torch.Tensor] = {}
        self._find_dropout(networks, device)

    @property
    def parameters(self) -> dict[str, torch.Tensor]:
        """Name to (M, ...) leaf tensor."""
        return {name: self.state[name] for name in self._trained}

    @property
    def noise_sizes(self) -> dict[str, int]:
        """Place of each dropout that drops anything to the width of what it drops."""
        return {place: self._num_inputs[place] for place in self._rates}

    def forward(
        self,
        vectors: Sequence[torch.Tensor],
        there: torch.Tensor | None,
        noise: Mapping[str, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Gives (M, B, L) logits.

        Args:
            vectors: (M, B, C) float32 for each stream of the networks, in their order. Training overwrites them.
            there: (M, B, S) bool, True = the row has the stream; None where every row has all of them.
            noise: From DropoutNoise, with at least B rows: training mode. None: evaluation.
        """
        encoded = [
            self._encode(stream, rows, None if there is None else there[..., place], noise)
            for place, (stream, rows) in enumerate(zip(self._streams, vectors, strict=True))
        ]
        layers = [f"backbone.fusion.weigh.layers.{name}" for name, _ in self._fusion.weigh.layers.named_children()]
        hidden = self._chain(layers, torch.cat(encoded, dim=-1), noise)
        weights = self._linear("backbone.fusion.weigh.output", hidden)
        if there is not None:
            weights = weights * there
        pooled = torch.stack([rows * weights[..., [place]] for place, rows in enumerate(encoded)]).sum(0)
        children = [f"head.{name}" for name, _ in self._template.head.named_children()]
        return self._chain(children, pooled, noise)

    def unstacked(self, state: Mapping[str, torch.Tensor], place: int) -> dict[str, torch.Tensor]:
        """Copies one network's state_dict to the CPU out of `state`, or out of a copy of it."""
        return {name: tensor.detach()[place].cpu().clone() for name, tensor in state.items()}

    def is_decayed(self, name: str) -> bool:
        """Whether weight decay applies to a parameter: to matrices, as mersuite.training.optim has it."""
        return self.state[name].ndim > 2

    def _find_dropout(self, networks: Sequence[Network], device: torch.device) -> None:
        """Notes rate and width of every dropout; it always stands before the linear layer whose input it drops."""
        modules = dict(self._template.named_modules())
        waiting: str | None = None
        for name, module in modules.items():
            if isinstance(module, nn.Dropout):
                waiting = name
            elif isinstance(module, nn.Linear) and waiting is not None:
                self._num_inputs[waiting] = module.in_features
                rates = torch.tensor([_dropout(network, waiting).p for network in networks], device=device)
                if bool((rates > 0).any()):
                    self._rates[waiting] = rates.view(-1, 1, 1)
                    bounds = (self._rates[waiting] * 2**_NOISE_BITS).round() - 2 ** (_NOISE_BITS - 1)
                    self._bounds[waiting] = bounds.clamp(max=2 ** (_NOISE_BITS - 1) - 1).to(torch.int16)
                waiting = None

    def _encode(
        self,
        stream: str,
        rows: torch.Tensor,
        there: torch.Tensor | None,
        noise: Mapping[str, torch.Tensor] | None,
    ) -> torch.Tensor:
        """Gives (M, B, D), zero where the stream is not there."""
        encoder = cast(MlpEncoder, self._template.backbone.encoder(stream))
        prefix = f"backbone.encoders.{module_key(stream)}"
        if isinstance(encoder.norm, RunningNorm):
            rows = self._standardised(f"{prefix}.norm", encoder.norm, rows, there, is_training=noise is not None)
        layers = [f"{prefix}.layers.{name}" for name, _ in encoder.layers.named_children()]
        tokens = self._chain([f"{prefix}.input_dropout", *layers], rows, noise)
        if there is not None:
            tokens = tokens * there.unsqueeze(-1)
        place = self._fusion.stream_names.index(stream)
        if isinstance(self._fusion.inputs[place], nn.Linear):
            tokens = self._linear(f"backbone.fusion.inputs.{place}", tokens)
            tokens = tokens if there is None else tokens * there.unsqueeze(-1)
        return tokens

    def _chain(
        self, names: Iterable[str], rows: torch.Tensor, noise: Mapping[str, torch.Tensor] | None
    ) -> torch.Tensor:
        """Applies modules one after the other; a dropout's scale waits for the linear layer behind it."""
        scale = None
        for name in names:
            module = self._template.get_submodule(name)
            if isinstance(module, nn.Linear):
                rows = self._linear(name, rows, scale)
                scale = None
            elif not isinstance(module, nn.Dropout):
                rows = module(rows)
            elif noise is not None and name in self._rates:
                kept = self._kept_of(name, noise[name][:, : rows.shape[1]])
                rows = rows * kept if rows.requires_grad else rows.mul_(kept)
                scale = 1.0 / (1.0 - self._rates[name])
        return rows

    def _kept_of(self, name: str, noise: torch.Tensor) -> torch.Tensor:
        """Gives 1.0 for what a dropout keeps and 0.0 for what it drops, in memory that is used again."""
        if name not in self._kept or self._kept[name].shape[1] < noise.shape[1]:
            self._kept[name] = torch.empty(noise.shape, device=noise.device)
        kept = self._kept[name][:, : noise.shape[1]]
        return torch.ge(noise, self._bounds[name], out=kept)

    def _linear(self, name: str, rows: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        weight, bias = f"{name}.weight", f"{name}.bias"
        gradients = self.gradients[weight], self.gradients[bias]
        found: torch.Tensor = _Linear.apply(rows, self.state[weight], self.state[bias], scale, *gradients)
        return found

    @torch.no_grad()
    def _standardised(
        self, prefix: str, norm: RunningNorm, rows: torch.Tensor, there: torch.Tensor | None, *, is_training: bool
    ) -> torch.Tensor:
        """Does for (M, B, C) what RunningNorm does for each network alone."""
        mean, variance = self.state[f"{prefix}.mean"], self.state[f"{prefix}.variance"]
        real = rows.new_ones(rows.shape[:2]) if there is None else there.to(rows.dtype)
        rows = rows * real.unsqueeze(-1)
        if is_training:
            num_rows = self.state[f"{prefix}.num_rows"]
            count = real.sum(1)
            divisor = count.clamp(min=1.0).unsqueeze(-1)
            found = rows.sum(1) / divisor
            spread = ((rows - found.unsqueeze(1)).square() * real.unsqueeze(-1)).sum(1) / divisor
            total = num_rows + count.long()
            share = (count / total.clamp(min=1)).unsqueeze(-1)
            gap = found - mean
            merged = variance * (1 - share) + spread * share + gap.square() * share * (1 - share)
            variance.copy_(torch.where(share == 1, spread, merged))
            mean.add_(gap * share)
            num_rows.copy_(total)
        deviation = variance.sqrt()
        inverse = torch.where(deviation > 1e-5 * mean.abs(), 1.0 / deviation.clamp(min=1e-30), 0.0)
        scaled = ((rows - mean.unsqueeze(1)) * inverse.unsqueeze(1)).clamp(-norm.limit, norm.limit)
        return scaled * real.unsqueeze(-1)


class _Linear(torch.autograd.Function):
    """Linear layers of M networks at once: rows (M, B, C), weight (M, D, C), bias (M, D), scale of the rows (M, 1, 1).

    Gradients of weight and bias are written where they are told to be, once a step. Why: fresh memory for them costs
    more than computing them.
    """

    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        scale: torch.Tensor | None,
        weight_gradient: torch.Tensor,
        bias_gradient: torch.Tensor,
    ) -> torch.Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.scale, ctx.gradients = scale, (weight_gradient, bias_gradient)
        found = torch.bmm(rows, weight.transpose(1, 2))
        if scale is not None:
            found.mul_(scale)
        return found.add_(bias.unsqueeze(1))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        weight_gradient, bias_gradient = ctx.gradients
        given = gradients[0]
        torch.sum(given, 1, out=bias_gradient)
        if ctx.scale is not None:
            given = given * ctx.scale
        torch.bmm(given.transpose(1, 2), rows, out=weight_gradient)
        before = torch.bmm(given, weight) if ctx.needs_input_grad[0] else None
        return before, None, None, None, None, None


def _dropout(network: Network, name: str) -> nn.Dropout:
    module = network.get_submodule(name)
    if not isinstance(module, nn.Dropout):
        raise TypeError(f"{name} is no dropout but {type(module).__name__}; stack networks of one shape")
    return module
