"""LoRA: a change of low rank to linear layers (Hu et al. 2021, arXiv 2106.09685).

N tokens, F outputs, D inputs, R rank.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner import kernels
from limner.kernels import PackedFloats
from limner.models.network import Network
from limner.peft.config import LoraConfig
from limner.peft.places import Place, Places, parts_by_layer

_numbers = itertools.count(1)


class LowRank(nn.Module):
    """scale * B A, added to one matrix of a checkpoint: `down` is A (R, D) and `up` B (F, R)."""

    def __init__(self, down: Tensor, up: Tensor, scale: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(down), nn.Parameter(up)
        self.scale, self.dropout = scale, dropout

    def forward(self, hidden: Tensor, rows: Tensor | None = None) -> Tensor:
        """What is added for `hidden` (..., D): (..., F), or only outputs `rows` (F',) of it."""
        if self.training and self.dropout:
            hidden = functional.dropout(hidden, self.dropout)
        inner = functional.linear(hidden, self.down.to(hidden.dtype))  # (..., R)
        up = self.up if rows is None else self.up[rows]
        return functional.linear(inner, up.to(hidden.dtype)) * self.scale

    def product(self, rows: Tensor | None = None) -> Tensor:
        """The change as one matrix (F, D), or rows of it, in float32."""
        up = self.up if rows is None else self.up[rows]
        return (up.float() @ self.down.float()) * self.scale


class Adapter(nn.Module):
    """Changes to the linear layers of one network, which stays as it is.

    The parameters are peft's, one pair of matrices for each module of transformers, also where we
    keep that module as several layers. They can be trained; `pack` prepares them for answering.

    Attributes:
        config: what it changes, and how much.
        names: the modules of transformers it changes.
        layers: our layers, with the module that each is a part of and its rows of B.
        number: its own, which no other adapter of this process has.
        packed: whether `pack` was called.
    """

    def __init__(
        self, config: LoraConfig, places: Mapping[str, Place], changes: Mapping[str, LowRank]
    ) -> None:
        super().__init__()
        self.config, self.names, self.number = config, tuple(changes), next(_numbers)
        self.input_first = any(place.input_first for place in places.values())
        self.changes = nn.ModuleList(changes.values())
        self.layers = parts_by_layer(places)
        self._index = {name: index for index, name in enumerate(self.names)}
        self.packed = False
        self._packed: dict[str, tuple[PackedFloats, PackedFloats]] = {}

    def change(self, module: str) -> LowRank:
        """The change to a module of transformers."""
        found = self.changes[self._index[module]]
        assert isinstance(found, LowRank)
        return found

    def pack(self) -> Adapter:
        """Prepare for answering: no gradients from now on, and on a CPU limner's kernels.

        They give a token's numbers to the bit in any company, as those of the packed layers do.
        """
        self.eval().requires_grad_(False)
        self.packed = True
        down: dict[str, PackedFloats] = {}
        for layer, (name, rows) in self.layers.items():
            change = self.change(name)
            if change.down.device.type != "cpu":
                moved = None if rows is None else rows.to(change.down.device)
                self.layers[layer] = name, moved
                continue
            if name not in down:
                down[name] = kernels.pack_floats(change.down.float())
            up = (change.up if rows is None else change.up[rows]).float() * change.scale
            self._packed[layer] = down[name], kernels.pack_floats(up)
        return self

    def add_to(self, layer: str, hidden: Tensor) -> Tensor:
        """What is added to the output of one of our layers for `hidden` (..., D): (..., F)."""
        packed = self._packed.get(layer)
        if packed is not None and hidden.dtype == torch.float32 and not hidden.requires_grad:
            down, up = packed
            return kernels.linear_float(kernels.linear_float(hidden, down), up)
        name, rows = self.layers[layer]
        added: Tensor = self.change(name)(hidden, rows)
        return added

    def product(self, layer: str) -> Tensor:
        """The change to one of our layers as a matrix (F, D), in float32."""
        name, rows = self.layers[layer]
        return self.change(name).product(rows)

    def extra_repr(self) -> str:
        """Its config, for print(adapter)."""
        return f"rank {self.config.rank}, {len(self.names)} modules"


def new_adapter(
    network: Network, config: LoraConfig, generator: torch.Generator | None = None
) -> Adapter:
    """An adapter that changes nothing yet: A is random and B zero, as in the paper.

    Raises ValueError if the config names no module of the network.
    """
    places = Places(network)
    names = [name for name in places.names() if _wanted(config, places, name)]
    if not names:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in places.names()}))
        raise ValueError(f"targets {config.targets} name no module of this model: it has {known}")
    found = {name: places.find(name) for name in names}
    changes = {name: _begin(config, name, place, generator) for name, place in found.items()}
    return Adapter(config, found, changes).to(network.device).train()


def _wanted(config: LoraConfig, places: Places, name: str) -> bool:
    return config.changes(name) and not (config.targets == "all-linear" and places.is_head(name))


def _begin(
    config: LoraConfig, name: str, place: Place, generator: torch.Generator | None
) -> LowRank:
    rank = config.rank_of(name)
    down = torch.empty(rank, place.inputs)
    bound = 1 / math.sqrt(place.inputs)
    down.uniform_(-bound, bound, generator=generator)
    up = torch.zeros(place.outputs, rank)
    return LowRank(down, up, config.scale_of(name), config.dropout)
