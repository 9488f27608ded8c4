"""Linear recurrences over all tokens at once: h(t) = decay(t) x h(t - 1) + input(t).

n texts, C tokens of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Operation = Callable[[Tensor, Tensor], Tensor]


def linear_scan(decay: Tensor, inputs: Tensor, carried: Tensor) -> Tensor:
    """Every h(t), (n, C, ...), of h(t) = decay(t) h(t - 1) + inputs(t), h(-1) being `carried`.

    `decay` and `inputs` are (n, C, ...), `carried` (n, ...). A decay of 0 forgets all before.
    """
    first = decay[:, :1] * carried[:, None] + inputs[:, :1]
    if inputs.shape[1] == 1:
        return first
    joined = torch.cat((first, inputs[:, 1:]), 1)
    return _LinearScan.apply(decay, joined)  # type: ignore[no-untyped-call]


def running_maximum(decrease: Tensor, inputs: Tensor, carried: Tensor) -> Tensor:
    """Every m(t), (n, C, ...), of m(t) = max(m(t - 1) - decrease(t), inputs(t))."""
    first = torch.maximum(carried[:, None] - decrease[:, :1], inputs[:, :1])
    return scan(-decrease, torch.cat((first, inputs[:, 1:]), 1), torch.add, torch.maximum)


def scan(decay: Tensor, inputs: Tensor, times: Operation, plus: Operation) -> Tensor:
    """Every h(t) = plus(times(decay(t), h(t - 1)), inputs(t)), h(0) = inputs(0), in log C steps.

    Neighbours are joined two by two, the half as long sequence is scanned likewise, and the tokens
    between follow from those before them (Blelloch 1990): about 2 C operations in all.
    """
    time = inputs.shape[1]
    if time == 1:
        return inputs
    before, after = slice(0, time - 1, 2), slice(1, None, 2)
    pairs = plus(times(decay[:, after], inputs[:, before]), inputs[:, after])
    odd = scan(times(decay[:, after], decay[:, before]), pairs, times, plus)
    hidden = torch.empty_like(inputs)
    hidden[:, 0] = inputs[:, 0]
    hidden[:, after] = odd
    inner = odd[:, : (time - 1) // 2]
    hidden[:, 2::2] = plus(times(decay[:, 2::2], inner), inputs[:, 2::2])
    return hidden


class _LinearScan(torch.autograd.Function):
    """The gradient of a linear recurrence is one too, read backwards."""

    @staticmethod
    def forward(ctx: Any, decay: Tensor, inputs: Tensor) -> Tensor:
        hidden = scan(decay, inputs, torch.mul, torch.add)
        ctx.save_for_backward(decay, hidden)
        return hidden

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        decay, hidden = ctx.saved_tensors
        later = torch.cat((decay[:, 1:], torch.zeros_like(decay[:, :1])), 1)
        flipped = scan(later.flip(1), gradient.flip(1), torch.mul, torch.add)
        of_inputs = flipped.flip(1)
        of_decay = torch.zeros_like(decay)
        of_decay[:, 1:] = of_inputs[:, 1:] * hidden[:, :-1]
        return of_decay, of_inputs
