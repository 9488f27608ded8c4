"""Recurrent networks as mixers: plain (Elman 1990), GRU (Cho et al. 2014), LSTM (Hochreiter 1997).

n texts, C tokens of each, N tokens in all, D width of the stream, W width of the cell.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from limner.nn.carried import Carried, CarriedShape, zeros
from limner.nn.rotary import Positions
from limner.nn.state import State

Kind = Literal["lstm", "gru", "tanh", "relu"]


@dataclass(frozen=True)
class RecurrentConfig:
    """One recurrent layer; "tanh" and "relu" are plain networks with that activation.

    `cell_width` None is the stream's. A cell of another width is brought back to the stream's by a
    matrix: within the recurrence with `projection` (Sak et al. 2014, LSTM only), else after it.
    """

    kind: Kind
    cell_width: int | None = None
    projection: bool = False
    bias: bool = True

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(
                f"no recurrent layer is called '{self.kind}': known are {', '.join(get_args(Kind))}"
            )
        if self.projection and self.kind != "lstm":
            raise ValueError(
                f"a '{self.kind}' layer has no projection within its recurrence: "
                "set projection to false, or kind to 'lstm'"
            )
        if self.projection and self.cell_width is None:
            raise ValueError("a projection needs cell_width, greater than the stream's width")

    def build(self, width: int, layer: int) -> nn.Module:
        """Make the mixer of `layer` for a stream of `width` numbers."""
        return Recurrent(width, layer, self)


class Recurrent(nn.Module):
    """One layer of PyTorch's recurrent modules, which it equals number for number."""

    def __init__(self, width: int, layer: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.layer, self.config = layer, config
        cell_width = config.cell_width or width
        self.cell = _cell(width, cell_width, config)
        narrow = cell_width != width and not config.projection
        self.output = nn.Linear(cell_width, width, bias=False) if narrow else None
        shapes = [(width if config.projection else cell_width,)]
        self.cache_shape: CarriedShape = zeros(
            *shapes, *([(cell_width,)] if config.kind == "lstm" else [])
        )

    def forward(self, hidden: Tensor, positions: Positions, state: State) -> Tensor:
        """Mix `hidden` (B, T, D) with what came before it, to (B, T, D)."""
        mixed = state.scan(self, hidden)
        return mixed if self.output is None else self.output(mixed)

    def recur(
        self, inputs: Tensor, carried: Carried, starts: Tensor | None
    ) -> tuple[Tensor, Carried]:
        """Outputs (n, C, W) of `inputs` (n, C, D); see `limner.nn.carried.Recurrence`."""
        if starts is not None:
            return self._apart(inputs, starts), carried
        before = tuple(tensor.to(inputs.dtype)[None] for tensor in carried)  # (1, n, W)
        if self.config.kind == "lstm":
            outputs, after = self._run(inputs, before)
            return outputs, tuple(tensor[0] for tensor in after)
        outputs, last = self._run(inputs, before[0])
        return outputs, (last[0],)

    def _run(self, *inputs: Any) -> Any:
        if not self.config.projection:
            return self.cell(*inputs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="LSTM with projections is not supported")
            return self.cell(*inputs)  # oneDNN leaves it to PyTorch, which is what we want

    def _apart(self, inputs: Tensor, starts: Tensor) -> Tensor:
        """Run each text of each row by itself, all at once and without padding."""
        order, sizes = packing(starts)
        packed = PackedSequence(inputs.flatten(0, 1)[order], sizes)
        outputs: Tensor = self._run(packed)[0].data  # (N, W)
        return outputs[order.argsort()].unflatten(0, inputs.shape[:2])

    def randomise(self, deviation: float, narrow: float, generator: torch.Generator | None) -> None:
        """Uniform within 1 / sqrt(W), as PyTorch's own; `deviation` is for wide matrices."""
        bound = 1 / math.sqrt(self.cell.hidden_size)
        for parameter in self.cell.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)


def _cell(width: int, cell_width: int, config: RecurrentConfig) -> nn.RNNBase:
    if config.kind == "lstm":
        narrow = width if config.projection else 0
        return nn.LSTM(width, cell_width, bias=config.bias, batch_first=True, proj_size=narrow)
    if config.kind == "gru":
        return nn.GRU(width, cell_width, bias=config.bias, batch_first=True)
    return nn.RNN(width, cell_width, nonlinearity=config.kind, bias=config.bias, batch_first=True)


def packing(starts: Tensor) -> tuple[Tensor, Tensor]:
    """How texts laid end to end become a PackedSequence.

    From where texts start, (n, C), to the order of the N tokens (first tokens of all texts, longest
    text first, then second tokens, ...), and how many texts have a token at each place.
    """
    starts = starts.clone()
    starts[:, 0] = True
    flat = starts.flatten()
    begins = flat.nonzero().flatten()
    lengths = torch.diff(begins, append=begins.new_tensor([flat.numel()]))
    rank = lengths.argsort(descending=True, stable=True).argsort()
    text = flat.cumsum(0) - 1  # (N,)
    place = torch.arange(flat.numel(), device=flat.device) - begins[text]
    order = (place * len(lengths) + rank[text]).argsort()
    return order, torch.bincount(place).cpu()
