"""Layers that recurrent and tensor fusions share: common steps for streams of unequal length, LSTMs that know masks.

Axes: B batch, K tokens, T steps, S streams, D width, H hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from mersuite.errors import ConfigError
from mersuite.models.base import Encoded, Fused, masked_mean
from mersuite.models.layers import any_mask, join_tokens, pool_stream


def resample_tokens(stream: Encoded, num_steps: int, lengths: torch.Tensor | None = None) -> Encoded:
    """Gives every row num_steps tokens, interpolated linearly over its real tokens alone.

    Step j of T stands for the middle of the j-th of T equal parts of the row, so that streams of other rates meet at
    the same moments. Where there are more tokens than steps, the triangle of linear interpolation widens to their
    ratio. Why: every token then counts and gets a gradient. A row that has T real tokens keeps them as they are.

    Args:
        stream: (B, K, D); neither padding nor missing tokens inside a row have any influence.
        num_steps: T.
        lengths: (B,) int, the steps that each row gets, from 0 to T; the rest is padding. None gives all T steps.

    Returns:
        (B, T, D) tokens; a row without any real token has none that is real.

    Raises:
        ConfigError: If num_steps is below 1.
    """
    if num_steps < 1:
        raise ConfigError(f"num_steps: need 1 or more steps, got {num_steps}")
    tokens, mask = stream
    exact = torch.float32  # places are never computed in bfloat16
    counts = mask.sum(1)
    lengths = torch.full_like(counts, num_steps) if lengths is None else lengths
    ratio = (counts / lengths.clamp(min=1)).to(exact)[:, None, None]
    step = torch.arange(num_steps, device=mask.device, dtype=exact)
    place = (step + 0.5)[None, :, None] * ratio - 0.5  # (B, T, 1), counted in real tokens
    rank = (mask.cumsum(1) - 1).to(exact).unsqueeze(1)  # (B, 1, K)
    weights = (1.0 - (place - rank).abs() / ratio.clamp(min=1.0)).clamp(min=0.0) * mask.unsqueeze(1)
    weights = weights / weights.sum(2, keepdim=True).clamp(min=1e-6)
    real = (step < lengths.unsqueeze(1)) & (counts > 0).unsqueeze(1)
    weights = weights * real.unsqueeze(-1)
    return Encoded(weights.to(tokens.dtype) @ (tokens * mask.unsqueeze(-1)), real)


def align_streams(streams: Sequence[Encoded], num_steps: int) -> list[Encoded]:
    """Brings the streams of each row to common steps: as many as its longest stream has tokens, num_steps at most.

    Why not num_steps for every row: an utterance vector would be read num_steps times over.
    """
    counts = torch.stack([stream.mask.sum(1) for stream in streams])
    lengths = counts.amax(0).clamp(max=num_steps)
    longest = min(num_steps, max(stream.mask.shape[1] for stream in streams))
    return [resample_tokens(stream, longest, lengths) for stream in streams]


def sub_network(num_inputs: int, width: int, num_layers: int, dropout: float) -> nn.Sequential:
    """Gives dropout on the input and then linear layers, each with a ReLU, the last one too.

    Source: the sub-networks of Zadeh et al. 2017, "Tensor fusion network for multimodal sentiment analysis".

    Raises:
        ConfigError: If num_layers or width is below 1.
    """
    if num_layers < 1 or width < 1:
        raise ConfigError(f"a sub-network needs layers and a width of 1 or more, got {num_layers} and {width}")
    layers: list[nn.Module] = [nn.Dropout(dropout)]
    for i in range(num_layers):
        layers += [nn.Linear(num_inputs if i == 0 else width, width), nn.ReLU()]
    return nn.Sequential(*layers)


def fuse_vectors(
    streams: Sequence[Encoded],
    networks: Sequence[nn.Module],
    join: Callable[[Mapping[int, torch.Tensor]], torch.Tensor],
    *,
    in_time: bool,
) -> Fused:
    """Gives each stream a vector by its own network and joins the vectors, step by step or of a whole clip.

    Args:
        streams: (B, K, D) each, of equal length where in_time is set.
        networks: One a stream, (..., D) to (..., H).
        join: Takes (B, K, H) vectors by the places of their streams, zero at steps where a stream is missing, and gives
            (B, K, width). Streams that it is not given are missing.
        in_time: Join each step by itself. Else each stream is averaged first, and every token passes alone, as if the
            other streams were missing.
    """

    def vector(place: int, stream: Encoded) -> torch.Tensor:
        return networks[place](stream.tokens * stream.mask.unsqueeze(-1)) * stream.mask.unsqueeze(-1)

    def joined(parts: Mapping[int, Encoded]) -> Encoded:
        mask = any_mask(parts.values())
        found = join({place: vector(place, stream) for place, stream in parts.items()})
        return Encoded(found * mask.unsqueeze(-1), mask)

    if in_time:
        tokens, mask = joined(dict(enumerate(streams)))
        return Fused(tokens=tokens, mask=mask, pooled=masked_mean(tokens, mask))
    pooled = joined({place: pool_stream(stream) for place, stream in enumerate(streams)}).tokens.squeeze(1)
    tokens, mask = join_tokens([joined({place: stream}) for place, stream in enumerate(streams)])
    return Fused(tokens=tokens, mask=mask, pooled=pooled)


class MaskedLstm(nn.Module):
    """An LSTM over the real tokens of each row, as if the others were not there.

    Real tokens move to the front, so that what follows them cannot be seen; the second direction reads them turned
    round. Why not packed sequences: those need the lengths on the processor, which makes a GPU wait.

    Args:
        num_inputs: D of the tokens.
        hidden: H of one direction.
        num_layers: Layers.
        bidirectional: Read each row from its end as well; widths double.
        dropout: Share of values dropped between layers in training.

    Attributes:
        width: Of the outputs: H, or 2 H.
    """

    def __init__(
        self, num_inputs: int, hidden: int, *, num_layers: int = 1, bidirectional: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if num_layers < 1 or hidden < 1:
            raise ConfigError(f"an LSTM needs layers and a hidden width of 1 or more, got {num_layers} and {hidden}")
        self.width = 2 * hidden if bidirectional else hidden
        sizes = [num_inputs] + [self.width] * (num_layers - 1)
        self.forwards = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in sizes)
        self.backwards = nn.ModuleList(nn.LSTM(size, hidden, batch_first=True) for size in sizes if bidirectional)
        self.dropout = nn.Dropout(dropout)

    def forward(self, stream: Encoded) -> tuple[Encoded, torch.Tensor]:
        """Reads a stream in the weights' type, also under autocast. Why: rounding would pile up over the steps.

        Args:
            stream: (B, K, num_inputs).

        Returns:
            (B, K, width) outputs at the places of the real tokens, and (B, width): what each direction knows at its
            last real token, zero for a row without any.
        """
        mask = stream.mask
        with torch.autocast(mask.device.type, enabled=False):
            tokens = stream.tokens.to(next(self.parameters()).dtype)
            order = (~mask).to(torch.int8).argsort(dim=1, stable=True)
            front = _pick(tokens * mask.unsqueeze(-1), order)
            counts = mask.sum(1, keepdim=True)
            index = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
            turned = torch.where(index < counts, counts - 1 - index, index)
            last = (counts - 1).clamp(min=0)
            ends = front.new_zeros((len(mask), 0))
            for i, layer in enumerate(self.forwards):
                seen = self.dropout(front) if i else front
                parts = [layer(seen)[0]]
                final = [_pick(parts[0], last).squeeze(1)]
                if self.backwards:
                    found = self.backwards[i](_pick(seen, turned))[0]
                    final.append(_pick(found, last).squeeze(1))
                    parts.append(_pick(found, turned))
                front, ends = torch.cat(parts, dim=-1), torch.cat(final, dim=-1)
            back = (mask.cumsum(1) - 1).clamp(min=0)
            outputs = _pick(front, back) * mask.unsqueeze(-1)
            return Encoded(outputs, mask), ends * (counts > 0)


def _pick(tokens: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Gives tokens[b, index[b, t]]: (B, K, D), (B, T) -> (B, T, D)."""
    return tokens.gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


class LstmSystem(nn.Module):
    """One LSTM a stream, side by side, that shows its cells at every step.

    A stream that is not real at a step keeps its state; one that is missing from a row keeps zeros.
    Source: the system of LSTMs of Zadeh et al. 2018, "Memory fusion network for multi-view sequential learning"; gates
    in the order input, forget, candidate, output.

    Args:
        widths: D of each stream.
        hidden: H of each LSTM.
    """

    def __init__(self, widths: Sequence[int], hidden: int) -> None:
        super().__init__()
        if hidden < 1:
            raise ConfigError(f"an LSTM needs a hidden width of 1 or more, got {hidden}")
        self.hidden = hidden
        self.inputs = nn.ModuleList(nn.Linear(width, 4 * hidden) for width in widths)
        self.recurrent = nn.Parameter(torch.empty(len(widths), hidden, 4 * hidden))
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -(hidden**-0.5), hidden**-0.5)

    def forward(self, streams: Sequence[Encoded]) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads streams of equal length.

        Returns:
            Hidden states and cells after each step, (B, K, S, H) each, in the weights' type, also under autocast.
        """
        seen = torch.stack(
            [layer(part.tokens * part.mask.unsqueeze(-1)) for layer, part in zip(self.inputs, streams, strict=True)]
        )  # (S, B, K, 4 H)
        seen = seen.to(self.recurrent.dtype)
        real = torch.stack([part.mask for part in streams]).unsqueeze(-1)
        hidden = cell = seen.new_zeros((*seen.shape[:2], self.hidden))
        hiddens, cells = [], []
        with torch.autocast(seen.device.type, enabled=False):
            for step in range(seen.shape[2]):
                gates = seen[:, :, step] + torch.bmm(hidden, self.recurrent)
                enter, forget, candidate, leave = gates.chunk(4, dim=-1)
                fresh = forget.sigmoid() * cell + enter.sigmoid() * candidate.tanh()
                here = real[:, :, step]
                cell = torch.where(here, fresh, cell)
                hidden = torch.where(here, leave.sigmoid() * fresh.tanh(), hidden)
                hiddens.append(hidden)
                cells.append(cell)
        return torch.stack(hiddens).permute(2, 0, 1, 3), torch.stack(cells).permute(2, 0, 1, 3)


def delta_cells(cells: torch.Tensor) -> torch.Tensor:
    """Puts the cells of all streams before and after each step side by side, c[t-1, t]: (B, K, S, H) -> (B, K, 2 S H).

    The cells before the first step are zero.
    """
    flat = cells.flatten(2)
    return torch.cat([nn.functional.pad(flat, (0, 0, 1, 0))[:, :-1], flat], dim=-1)


class GatedMemory(nn.Module):
    """A memory over all streams: u[t] = retain[t] * u[t-1] + update[t] * tanh(proposal[t]).

    Source: Zadeh et al. 2018, "Memory fusion network for multi-view sequential learning", multi-view gated memory;
    both gates and the proposal are networks of what the attention lets through.

    Args:
        num_inputs: Width of what is seen at a step.
        width: Of the memory.
        hidden: Of the three networks.
        dropout: Share of hidden values dropped in training.
    """

    def __init__(self, num_inputs: int, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.proposal, self.retain, self.update = (two_layers(num_inputs, hidden, width, dropout) for _ in range(3))
        self.width = width

    def forward(self, seen: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Runs over the steps; one that the mask rules out leaves the memory as it is.

        Args:
            seen: (B, K, num_inputs).
            mask: (B, K) bool.

        Returns:
            (B, K, width) the memory after each step, in the weights' type, also under autocast.
        """
        exact = next(self.parameters()).dtype
        retain = self.retain(seen).to(exact).sigmoid()
        fresh = self.update(seen).to(exact).sigmoid() * self.proposal(seen).to(exact).tanh()
        memory = fresh.new_zeros((len(mask), self.width))
        found = []
        for step in range(mask.shape[1]):
            memory = torch.where(mask[:, [step]], retain[:, step] * memory + fresh[:, step], memory)
            found.append(memory)
        return torch.stack(found, dim=1)


def two_layers(num_inputs: int, hidden: int, width: int, dropout: float) -> nn.Sequential:
    """Gives linear, ReLU, dropout, linear."""
    return nn.Sequential(nn.Linear(num_inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width))


def last_real(stream: Encoded) -> torch.Tensor:
    """Gives the last real token of each row, (B, D); zeros where there is none."""
    index = torch.arange(stream.mask.shape[1], device=stream.mask.device)
    last = torch.where(stream.mask, index, -1).amax(1, keepdim=True)
    return _pick(stream.tokens, last.clamp(min=0)).squeeze(1) * (last >= 0)
