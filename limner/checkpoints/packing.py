"""Weights that a file keeps in few bits, in the kernels' form and with no second rounding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from limner.checkpoints.tensors import TensorSource
from limner.kernels import PackedWeight
from limner.models.translation import Translation
from limner.nn.packed import PackedEmbedding, PackedLinear


@runtime_checkable
class PackedSource(Protocol):
    """A source some of whose matrices are in few bits."""

    def packed(self, name: str) -> PackedWeight | None:
        """A matrix as it is stored; None if kernels do not read its format."""
        ...


def read_packed(
    network: nn.Module, source: TensorSource, rule: Translation, names: Sequence[str]
) -> list[PackedWeight] | None:
    """What `rule` makes of the tensors `names`, or None if they must be read as plain numbers."""
    if len(names) != 1 or not rule.keeps_rows or not isinstance(source, PackedSource):
        return None
    if not all(_packs(network, name) for name in rule.ours):
        return None
    packed = source.packed(names[0])
    if packed is None:
        return None
    numbers = torch.arange(packed.outputs)
    taken = [rows.flatten() for rows in rule.load([numbers[:, None]])]
    if len(taken) == 1 and len(taken[0]) == len(numbers):
        # Weights share mappings, in which one that is copied would leave a hole.
        return [packed if torch.equal(taken[0], numbers) else packed.reorder(taken[0])]
    return [packed.take(rows) for rows in taken]


def _packs(network: nn.Module, name: str) -> bool:
    """Whether `name` is the weight of a packed layer."""
    owner, _, leaf = name.rpartition(".")
    return leaf == "weight" and isinstance(
        network.get_submodule(owner), PackedLinear | PackedEmbedding
    )
