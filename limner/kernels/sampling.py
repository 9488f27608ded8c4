"""Choosing a token from logits: the largest, or one drawn.

R rows, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.kernels.library import call, contiguous, empty, operator, rows_of, runs_on


def argmax(logits: Tensor) -> Tensor:
    """Index of the largest of the last dimension of `logits` (..., V), int64 (...).

    The first of equals; a NaN counts as the largest.
    """
    if runs_on(logits):
        result: Tensor = torch.ops.limner.argmax(logits)
        return result
    return argmax_reference(logits)


def argmax_reference(logits: Tensor) -> Tensor:
    """`argmax` in plain PyTorch, whose own does not promise the first of equals."""
    return logits.max(-1).indices


@operator(
    "argmax(Tensor logits) -> Tensor",
    lambda logits: logits.new_empty(logits.shape[:-1], dtype=torch.int64),
    argmax_reference,
)
def _argmax(logits: Tensor) -> Tensor:
    rows = rows_of(logits)
    output = empty(tuple(logits.shape[:-1]), logits, torch.int64)
    call("argmax", rows, rows.stride(0), output, *rows.shape)
    return output


def draw(logits: Tensor, numbers: Tensor, temperatures: Tensor) -> Tensor:
    """Tokens int64 (R) drawn from softmax(`logits` (R, V) / `temperatures` (R)).

    The first token at which the probabilities, added up by token id in float64, exceed a row's
    number in [0, 1) of `numbers` float64 (R): one of probability zero is never drawn. At
    temperature 0 the token of the largest logit, the first of equals. -1 where the largest logit is
    not finite: the row holds a NaN or an infinity, or nothing but minus infinity.
    """
    arguments = logits, numbers, temperatures
    if not runs_on(logits, temperatures) or numbers.device.type != "cpu":
        return draw_reference(*arguments)
    result: Tensor = torch.ops.limner.draw(*arguments)
    return result


def draw_reference(logits: Tensor, numbers: Tensor, temperatures: Tensor) -> Tensor:
    """`draw` in plain PyTorch."""
    peak = logits.amax(-1, keepdim=True)
    greedy = temperatures <= 0
    scale = torch.where(greedy, 1.0, temperatures)[:, None]
    reached = ((logits - peak) / scale).exp().cumsum(-1, dtype=torch.float64)  # (R, V)
    sought = numbers[:, None] * reached[:, -1:]
    drawn = torch.searchsorted(reached, sought, right=True).squeeze(-1)
    tokens = torch.where(greedy, argmax_reference(logits), drawn)
    return torch.where(peak.squeeze(-1).isfinite(), tokens, -1)


@operator(
    "draw(Tensor logits, Tensor numbers, Tensor temperatures) -> Tensor",
    lambda logits, *_: logits.new_empty(logits.shape[:1], dtype=torch.int64),
    draw_reference,
)
def _draw(logits: Tensor, numbers: Tensor, temperatures: Tensor) -> Tensor:
    assert numbers.dtype == torch.float64
    rows = rows_of(logits)
    output = empty((len(rows),), logits, torch.int64)
    given = contiguous(temperatures), contiguous(numbers)
    call("draw", rows, rows.stride(0), *given, output, *rows.shape)
    return output
