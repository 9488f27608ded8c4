"""A network walked block by block with the inputs it meets, so that few of them exist at a time.

B batch, T time, D width, K inputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NoReturn, cast

import torch
from torch import Tensor, nn

from limner.models.network import Network
from limner.nn.norms import LayerNorm, RMSNorm

#: The arguments of a block: hidden (B, T, D), positions, state.
Inputs = tuple[Any, ...]


@dataclass
class Seen:
    """What was seen of one input, which some linear layers of a block share.

    `hessian` (K, K) is the sum of x xᵀ, `magnitude` (K,) that of |x|, `peak` (K,) the largest |x|.
    `norm` names the normalisation that made the input, if one did.
    """

    layers: list[str]
    hessian: Tensor
    magnitude: Tensor
    peak: Tensor
    norm: str | None = None
    count: int = 0

    def add(self, inputs: Tensor) -> None:
        """Take account of `inputs` (..., K)."""
        rows = inputs.detach().flatten(0, -2).float()
        sizes = rows.abs()
        self.hessian.addmm_(rows.t(), rows)
        self.magnitude += sizes.sum(0)
        self.peak = torch.maximum(self.peak, sizes.amax(0))
        self.count += len(rows)


@dataclass
class Walk:
    """The blocks of a network, one after another, each with the inputs that reach it.

    A block's inputs are what the blocks before it make after they were changed.

    Args:
        network: a decoder or an encoder, in float.
        rows: token ids (1, T) each.
    """

    network: Network
    rows: Sequence[Tensor]
    inputs: list[Inputs] = field(default_factory=list)

    def __iter__(self) -> Iterator[tuple[str, nn.Module]]:
        """Each block with its name, to be changed before the next is asked for."""
        with torch.no_grad():
            blocks = blocks_of(self.network)
            self.inputs = [first_inputs(self.network, blocks[0][1], row) for row in self.rows]
            for name, block in blocks:
                yield name, block
                for number, inputs in enumerate(self.inputs):
                    self.inputs[number] = (block(*inputs), *inputs[1:])


def blocks_of(network: Network) -> list[tuple[str, nn.Module]]:
    """The blocks in the order they are passed, with their names.

    Raises ValueError if the network is not one stack, or a block is passed twice.
    """
    blocks = getattr(network, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise ValueError(
            f"a network of the family '{network.config.family}' is not one stack of blocks, so it "
            "cannot be calibrated: use method=rtn"
        )
    order = list(cast("Sequence[int]", getattr(network, "order", range(len(blocks)))))
    if len(set(order)) < len(order):
        raise ValueError(
            f"a network of the family '{network.config.family}' passes one block several times, so "
            "it cannot be calibrated: use method=rtn"
        )
    return [(f"blocks.{number}", blocks[number]) for number in order]


class _ReachedError(Exception):
    """The first block has been reached, and its inputs are known."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs


def first_inputs(network: Network, block: nn.Module, row: Tensor) -> Inputs:
    """What the first block is called with for the tokens `row` (1, T)."""

    def stop(_: nn.Module, inputs: Inputs) -> NoReturn:
        raise _ReachedError(inputs)

    hook = block.register_forward_pre_hook(stop)
    try:
        network(row.to(next(network.parameters()).device))
    except _ReachedError as reached:
        return reached.inputs
    finally:
        hook.remove()
    raise AssertionError("the network never called its first block")


def watch(block: nn.Module, inputs: Sequence[Inputs]) -> list[Seen]:
    """Run `block` over all `inputs`, and say what its linear layers met."""
    watcher = _Watcher(block)
    with watcher.hooked():
        for one in inputs:
            block(*one)
            watcher.forget()
    return watcher.seen


class _Watcher:
    """Hooks on the linear layers and the norms of a block.

    Which layers share an input is found in the first pass: those called with the same tensor.
    """

    def __init__(self, block: nn.Module) -> None:
        self.block = block
        self.seen: list[Seen] = []
        self.first_layers: dict[str, Seen] = {}
        self.met: dict[int, Seen] = {}
        self.made: dict[int, str] = {}
        self.alive: list[Tensor] = []  # so that no identity is given to another tensor
        self.discovering = True

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """With the hooks in place."""
        hooks = []
        for name, module in self.block.named_modules():
            if type(module) is nn.Linear:
                hooks.append(module.register_forward_pre_hook(partial(self._enter, name)))
            elif isinstance(module, RMSNorm | LayerNorm):
                hooks.append(module.register_forward_hook(partial(self._leave, name)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def forget(self) -> None:
        """A pass is over; tensors of the next are others."""
        self.discovering = False
        self.met, self.made, self.alive = {}, {}, []

    def _leave(self, name: str, module: nn.Module, inputs: Inputs, output: Tensor) -> None:
        if self.discovering:
            self.made[id(output)] = name
            self.alive.append(output)

    def _enter(self, name: str, module: nn.Module, inputs: Inputs) -> None:
        tensor: Tensor = inputs[0]
        if self.discovering:
            self._discover(name, tensor)
        if name in self.first_layers:
            self.first_layers[name].add(tensor)

    def _discover(self, name: str, tensor: Tensor) -> None:
        if id(tensor) in self.met:
            self.met[id(tensor)].layers.append(name)
            return
        inputs = tensor.shape[-1]
        empty = tensor.new_zeros(inputs, dtype=torch.float32)
        hessian = empty.new_zeros(inputs, inputs)
        seen = Seen([name], hessian, empty.clone(), empty.clone(), self.made.get(id(tensor)))
        self.seen.append(seen)
        self.first_layers[name] = self.met[id(tensor)] = seen
        self.alive.append(tensor)
