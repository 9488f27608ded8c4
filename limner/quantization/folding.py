"""Scales that move from a matrix's columns into what makes its inputs, and change nothing.

K inputs of the matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from limner.nn.attention import Attention
from limner.nn.feedforward import FeedForward
from limner.nn.norms import LayerNorm, RMSNorm
from limner.quantization.layerwise import Inputs, Seen

#: How far folding may move a block's output, as a share of its largest number.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Fold:
    """What makes an input, and can therefore undo its scales.

    `maker` is a norm, or a linear layer whose outputs become the inputs: one a number, or each the
    inputs of several heads (`heads` of them on `width` numbers each, see `spread`).
    """

    maker: nn.Module
    heads: int = 1
    width: int = 0

    def together(self, numbers: Tensor) -> Tensor:
        """The mean over inputs that the same number makes, (K,) to (K,)."""
        return self.spread(self._by_head(numbers).mean(1))

    def spread(self, made: Tensor) -> Tensor:
        """From a scale a made number to a scale an input (K,)."""
        if self.heads == 1:
            return made.flatten()
        parts = made.view(-1, 1, self.width).expand(-1, self.heads, -1)
        return parts.flatten()

    def _by_head(self, numbers: Tensor) -> Tensor:
        width = self.width or len(numbers)
        return numbers.view(-1, self.heads, width)

    @torch.no_grad()
    def divide(self, scale: Tensor) -> None:
        """Divide what is made by `scale` (K,), equal for inputs that one number makes.

        Parameters get new memory: their old one may be the checkpoint's, which others read too.
        """
        made = self._by_head(scale)[:, 0].flatten()
        maker = self.maker
        if isinstance(maker, RMSNorm) and maker.config.unit_offset:
            assert maker.weight is not None
            maker.weight.data = ((1 + maker.weight) / made - 1).to(maker.weight)
            return
        for parameter in maker.parameters():
            divisor = made if parameter.dim() == 1 else made[:, None]
            parameter.data = (parameter / divisor).to(parameter)


def find_fold(block: nn.Module, seen: Seen) -> Fold | None:
    """What makes this input, if it can undo scales."""
    if seen.norm is not None:
        norm = block.get_submodule(seen.norm)
        assert isinstance(norm, RMSNorm | LayerNorm)
        return Fold(norm) if norm.weight is not None else None
    owner, _, leaf = seen.layers[0].rpartition(".")
    module = block.get_submodule(owner)
    if isinstance(module, Attention) and leaf == "output":
        config = module.config
        return Fold(module.value, config.heads // config.key_value_heads, config.head_width)
    if isinstance(module, FeedForward) and leaf == "down" and module.gate is not None:
        return Fold(module.up)
    return None


@torch.no_grad()
def fold_scales(
    block: nn.Module, fold: Fold, layers: Sequence[str], scale: Tensor, inputs: Inputs
) -> bool:
    """Multiply the columns of `layers` by `scale` (K,) and divide what makes their inputs by it.

    Returns whether it was done: if what `block` makes of `inputs` differs afterwards, something
    else reads those inputs too (a router, a residual), and all is put back.
    """
    linears = [block.get_submodule(name) for name in layers]
    touched = [fold.maker, *linears]
    before = [(p, p.data) for module in touched for p in module.parameters()]
    expected = block(*inputs)
    fold.divide(scale)
    for linear in linears:
        assert isinstance(linear.weight, Tensor)
        linear.weight.data = (linear.weight * scale).to(linear.weight)
    moved = (block(*inputs) - expected).abs().max()
    if bool(moved <= TOLERANCE * expected.abs().max()):
        return True
    for parameter, values in before:
        parameter.data = values
    return False
