"""Letting adapters change what a network computes: for some rows of a pass, or for good.

N tokens of a pass, F outputs, D inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from limner.nn.packed import PackedEmbedding, PackedLinear
from limner.peft.lora import Adapter


@dataclass(frozen=True)
class Use:
    """An adapter, and the tokens (n,) of a pass that it is for, numbered row by row; None: all."""

    adapter: Adapter
    tokens: Tensor | None = None


class Layered(Protocol):
    """A network, as far as adapters touch it."""

    def get_submodule(self, target: str) -> nn.Module:
        """The layer of this name."""
        ...


@contextmanager
def applied(network: Layered, uses: Iterable[Use], within: str = "") -> Iterator[None]:
    """Let adapters change the passes of this block, in layers whose names begin with `within`.

    The network's own layers stay in their places and are called as always; what adapters add comes
    after them. So tokens without an adapter get what they would without this, to the bit, and
    after the block nothing is left of it.
    """
    changes: dict[str, list[Use]] = {}
    for use in uses:
        for layer in use.adapter.layers:
            if layer.startswith(within):
                changes.setdefault(layer, []).append(use)
    handles = []
    try:
        for layer, some in changes.items():
            hook = partial(_add, layer, some)
            handles.append(network.get_submodule(layer).register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _add(
    layer: str, uses: Sequence[Use], _: nn.Module, inputs: tuple[Any, ...], output: Tensor
) -> Tensor:
    """What a layer makes of `inputs`, with what adapters add to their tokens."""
    hidden: Tensor = inputs[0]  # (..., D)
    for use in uses:
        if use.tokens is None:
            output = output + use.adapter.add_to(layer, hidden)
        else:
            added = use.adapter.add_to(layer, hidden.flatten(0, -2)[use.tokens])  # (n, F)
            flat = output.flatten(0, -2)  # (N, F)
            output = flat.index_add(0, use.tokens, added).view_as(output)
    return output


@torch.no_grad()
def merge(network: nn.Module, adapter: Adapter) -> None:
    """Add an adapter's changes to the network's own weights.

    Raises ValueError, before anything is changed, if a weight is packed for kernels or also used
    elsewhere (tied).
    """
    _move(network, adapter, 1)


@torch.no_grad()
def unmerge(network: nn.Module, adapter: Adapter) -> None:
    """Take a merged adapter's changes back, up to the rounding of the sums.

    Raises ValueError as `merge` does.
    """
    _move(network, adapter, -1)


def _move(network: nn.Module, adapter: Adapter, sign: int) -> None:
    weights = {layer: _own_weight(network, layer) for layer in adapter.layers}
    for layer, weight in weights.items():
        change = adapter.product(layer).to(weight.device)
        weight.copy_(weight.float() + sign * change)


def _own_weight(network: nn.Module, layer: str) -> nn.Parameter:
    module = network.get_submodule(layer)
    weight = getattr(module, "weight", None)
    if isinstance(module, PackedLinear | PackedEmbedding) or not isinstance(weight, nn.Parameter):
        raise ValueError(
            f"the weight of '{layer}' is packed for kernels and cannot be added to: load the model "
            "with weights='parameters', or use the adapter without merging"
        )
    names = [n for n, p in network.named_parameters(remove_duplicate=False) if p is weight]
    if len(names) > 1:
        raise ValueError(
            f"'{layer}' shares its weight with {', '.join(n for n in names if layer not in n)}, "
            "which an adapter must not change: use the adapter without merging"
        )
    return weight
