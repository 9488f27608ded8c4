"""Training with products of 8-bit floats (Micikevicius et al. 2022), on GPUs that have them.

Weights and activations are rounded to e4m3, which has more digits, and gradients to e5m2, which
reaches further; each tensor by a scale of its own, found when it is rounded. Weights, the optimizer
and all that is no product of a linear layer in a block stay in the numbers they have.

M tokens, K inputs, N outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from limner.models.block import Block
from limner.nn.scaled import FLOAT8, MULTIPLE, multiplies_float8
from limner.training.recompute import forward_replaced

OF_GRADIENTS = torch.float8_e5m2


def require_float8(device: torch.device, parallel: str) -> None:
    """Raise ValueError if `device` does not multiply 8-bit floats, or matrices are cut to parts."""
    if parallel == "tensor":
        raise ValueError(
            "precision=float8 rounds whole matrices, of which parallel.kind=tensor has parts: "
            "use parallel.kind=fsdp or precision=bfloat16"
        )
    if not multiplies_float8(device):
        raise ValueError(
            f"precision=float8 needs an NVIDIA GPU of capability 8.9 or later, not {device}: "
            "say bfloat16 or auto"
        )


def in_float8(network: nn.Module) -> AbstractContextManager[None]:
    """Linear layers of the blocks of `network` multiply 8-bit floats while the context lasts."""

    def rounding(layer: nn.Module) -> Callable[..., Tensor]:
        assert isinstance(layer, nn.Linear)
        return partial(rounded_linear, layer)

    return forward_replaced(list(fitting(network)), rounding)


def fitting(network: nn.Module) -> Iterator[nn.Linear]:
    """The linear layers in blocks whose sizes such products can have."""
    for block in network.modules():
        if isinstance(block, Block):
            for layer in block.modules():
                # A subclass may do something else.
                if type(layer) is nn.Linear and not any(n % MULTIPLE for n in layer.weight.shape):
                    yield layer


def rounded_linear(layer: nn.Linear, hidden: Tensor) -> Tensor:
    """What `layer` makes of `hidden` (..., K), (..., N) in bfloat16, by 8-bit products.

    A number of tokens that such products cannot have is left to the layer.
    """
    rows = hidden.flatten(0, -2)  # (M, K)
    if len(rows) % MULTIPLE:
        return nn.Linear.forward(layer, hidden)
    product: Tensor = _Product.apply(rows, layer.weight)  # type: ignore[no-untyped-call]
    product = product.unflatten(0, hidden.shape[:-1])
    bias: Tensor | None = layer.bias
    return product if bias is None else product + bias.to(product.dtype)


class Rounded(NamedTuple):
    """A matrix of 8-bit floats: `codes` times `scale`, a scalar."""

    codes: Tensor
    scale: Tensor

    def turned(self) -> Rounded:
        """The matrix with rows for columns."""
        return Rounded(self.codes.t(), self.scale)


def rounded(matrix: Tensor, dtype: torch.dtype = FLOAT8) -> Rounded:
    """`matrix` with its largest number as the largest of `dtype`. What is not finite stays so."""
    largest = torch.finfo(dtype).max
    wide = matrix.detach().float()
    scale = (wide.abs().amax() / largest).clamp(min=torch.finfo(torch.float32).tiny)
    return Rounded((wide / scale).clamp(-largest, largest).to(dtype), scale)


def multiply(left: Rounded, right: Rounded, dtype: torch.dtype) -> Tensor:
    """`left` (m, k) times `right` (k, n) in `dtype`."""
    # The units read the left one by rows and the right one by columns.
    rows, columns = left.codes.contiguous(), right.codes.t().contiguous().t()
    return torch._scaled_mm(rows, columns, left.scale, right.scale, out_dtype=dtype)


class _Product(torch.autograd.Function):
    """Tokens times a weight, and both gradients, in 8-bit floats."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        tokens, matrix = rounded(rows), rounded(weight)  # (M, K), (N, K)
        ctx.save_for_backward(*tokens, *matrix)
        ctx.dtypes = rows.dtype, weight.dtype
        return multiply(tokens, matrix.turned(), torch.bfloat16)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, Tensor]:
        saved = ctx.saved_tensors
        tokens, matrix = Rounded(*saved[:2]), Rounded(*saved[2:])
        gradient = rounded(upstream[0], OF_GRADIENTS)  # (M, N)
        of_rows = multiply(gradient, matrix, torch.bfloat16)
        of_weight = multiply(gradient.turned(), tokens, torch.float32)
        return of_rows.to(ctx.dtypes[0]), of_weight.to(ctx.dtypes[1])
