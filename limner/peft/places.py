"""Where the modules of transformers are in our network: whole, or cut into several layers.

A family's translations say which parameters a tensor of a checkpoint makes. They are asked once
more here, about the rows of a matrix, since a change B A to it is cut where its rows are: A stays
whole and B is cut.

F outputs, D inputs, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from limner.models.families import find_family
from limner.models.network import Network
from limner.models.translation import Translation

_WEIGHT = ".weight"


@dataclass(frozen=True)
class Part:
    """One of our linear layers, and which rows (F',) of a module's matrix it has; None: all."""

    layer: str
    rows: Tensor | None


@dataclass(frozen=True)
class Place:
    """What one module of transformers is here; `input_first` if its matrix is kept so there."""

    parts: tuple[Part, ...]
    inputs: int
    outputs: int
    input_first: bool


class Places:
    """Every linear layer of a network, by what transformers calls it."""

    def __init__(self, network: Network) -> None:
        self.network = network
        family = find_family(network.config.family)
        self._rules = {name: rule for rule in family.translations(network.config)
                       for name in rule.theirs if name.endswith(_WEIGHT)}  # fmt: skip
        self._prefix: str = getattr(family, "PREFIX", "") or "model."
        self._read = set(_read_directly(network))

    def names(self) -> list[str]:
        """The modules that can be changed; the head is the last."""
        names = [name.removesuffix(_WEIGHT) for name in self._rules]
        return sorted((n for n in names if self._obstacle(n) is None), key=self.is_head)

    def is_head(self, module: str) -> bool:
        """Whether a module scores the tokens."""
        return self._rules[module + _WEIGHT].ours[0].startswith("head.")

    def full_name(self, module: str) -> str:
        """The module's name in a model with a head, from that in one without or with."""
        whole = module + _WEIGHT in self._rules
        return module if whole else self._prefix + module

    def find(self, module: str) -> Place:
        """Where a module is. Raises ValueError, in one line, if it cannot be changed."""
        name = self.full_name(module)
        if name + _WEIGHT not in self._rules:
            raise ValueError(f"the adapter changes '{module}', which this model does not have")
        obstacle = self._obstacle(name)
        if obstacle is not None:
            raise ValueError(
                f"the adapter changes '{module}', {obstacle}: limner cannot change it alone"
            )
        return self._place(self._rules[name + _WEIGHT])

    def _obstacle(self, module: str) -> str | None:
        """What keeps a module from being changed."""
        rule = self._rules[module + _WEIGHT]
        if len(rule.theirs) > 1:
            return f"which limner keeps in one with {len(rule.theirs) - 1} others"
        for name in rule.ours:
            layer = name.removesuffix(_WEIGHT)
            if layer in self._read:
                return f"whose numbers limner reads without calling it ('{layer}')"
            owner = layer if name.endswith(_WEIGHT) else layer.rpartition(".")[0]
            module_type = type(self.network.get_submodule(owner))
            if not hasattr(self.network.get_submodule(owner), "in_features"):
                return f"which is no linear layer here ('{layer}' of {module_type.__name__})"
        return None

    def _place(self, rule: Translation) -> Place:
        layers = [name.removesuffix(_WEIGHT) for name in rule.ours]
        linears = [cast("nn.Linear", self.network.get_submodule(layer)) for layer in layers]
        sizes = [linear.out_features for linear in linears]
        if rule.keeps_rows and not rule.moves_rows:
            return Place((Part(layers[0], None),), linears[0].in_features, sizes[0], False)
        rows, input_first = _rows(rule, sizes)
        parts = (
            Part(layer, None if torch.equal(own, torch.arange(sum(sizes))) else own)
            for layer, own in zip(layers, rows, strict=True)
        )
        return Place(tuple(parts), linears[0].in_features, sum(sizes), input_first)


def _read_directly(network: nn.Module) -> Iterator[str]:
    """Layers whose owners read their weights."""
    for name, module in network.named_modules():
        for child in getattr(module, "reads_weights", ()):
            yield f"{name}.{child}"


def _rows(rule: Translation, sizes: list[int]) -> tuple[list[Tensor], bool]:
    """For each of our matrices the rows (F',) of theirs, and whether theirs is input-first.

    Two columns that number the rows of ours are saved as if they were the matrices.
    """
    total = sum(sizes)
    numbers = torch.stack((2 * torch.arange(total), 2 * torch.arange(total) + 1), 1)  # (F, 2)
    (theirs,) = rule.save(list(numbers.split(sizes)))
    input_first = theirs.shape[0] == 2 and bool((theirs[1] - theirs[0] == 1).all())
    saved = theirs.t() if input_first else theirs
    assert bool((saved[:, 1] - saved[:, 0] == 1).all()), rule.theirs
    where = torch.empty(total, dtype=torch.int64)
    where[saved[:, 0] // 2] = torch.arange(total)
    return list(where.split(sizes)), input_first


def parts_by_layer(places: Mapping[str, Place]) -> dict[str, tuple[str, Tensor | None]]:
    """Our layers, with the module that each is a part of and its rows."""
    return {part.layer: (name, part.rows) for name, place in places.items() for part in place.parts}
