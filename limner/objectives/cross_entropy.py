"""Cross-entropy from hidden vectors, in chunks, so that the logits never exist all at once.

The logits of 8,192 tokens over 128,000 words are 4 GB, and their gradient as much again. Here the
gradient of a chunk is worked out as soon as its logits are (as Cut Cross-Entropy, Wijmans et al.
2024, and Liger kernels do), and nothing of them is kept.

N places, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.objectives.loss import Loss

#: Logits in a chunk: 128 MB of them.
CHUNK = 2**25
#: From the hidden vectors (n, D) of a chunk and which of the N places they are to a sum.
Score = Callable[[Tensor, slice], Tensor]


def cross_entropy(
    head: nn.Module, hidden: Tensor, targets: Tensor, weights: Tensor, chunk: int | None = None
) -> Loss:
    """The sum over places of weight x -log p(target), and the sum of the weights.

    Equal to cross-entropy of `head(hidden)`, and so are its gradients. Places of weight 0 cost
    nothing.

    Args:
        head: from hidden vectors (N, D) to logits (N, V).
        hidden: (..., D).
        targets: (...) token ids; anything where the weight is 0.
        weights: (...).
        chunk: places computed at once; about 128 MB of logits if not given.
    """
    hidden, targets, weights = hidden.flatten(0, -2), targets.flatten(), weights.flatten()
    kept = weights.nonzero().squeeze(1)
    if len(kept) < len(weights):
        hidden, targets, kept_weights = hidden[kept], targets[kept], weights[kept]
    else:
        kept_weights = weights

    def score(part: Tensor, places: slice) -> Tensor:
        each = functional.cross_entropy(head(part).float(), targets[places], reduction="none")
        return each @ kept_weights[places]

    return Loss(sum_in_chunks(score, hidden, head, chunk), weights.sum())


def sum_in_chunks(
    score: Score, hidden: Tensor, head: nn.Module, chunk: int | None = None
) -> Tensor:
    """The sum of `score` over chunks of `hidden` (N, D), a scalar.

    It is differentiable with regard to `hidden` and the parameters of `head`, which are all that
    `score` may depend on differentiably.
    """
    size = chunk if chunk is not None else _chunk_size(head)
    if not torch.is_grad_enabled():
        parts = [score(hidden[places], places) for places in _chunks(len(hidden), size)]
        return torch.stack(parts).sum() if parts else hidden.new_zeros(())
    if not len(hidden):
        return hidden.sum()
    parameters = [parameter for parameter in head.parameters() if parameter.requires_grad]
    total: Tensor = _ChunkedSum.apply(hidden, score, size, *parameters)  # type: ignore[no-untyped-call]
    return total


def _chunks(places: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, places)) for start in range(0, places, size)]


def _chunk_size(head: nn.Module) -> int:
    """Places whose logits make a chunk, by the head's widest layer: using it would take time."""
    vocabulary = max((parameter.shape[0] for parameter in head.parameters()), default=1)
    return max(CHUNK // vocabulary, 1)


class _ChunkedSum(torch.autograd.Function):
    """Works out the gradients while going forward, chunk by chunk."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, score: Score, size: int, *parameters: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        of_hidden: list[Tensor] = []
        of_parameters: list[Tensor] = []
        for places in _chunks(len(hidden), size):
            with torch.enable_grad():
                part = hidden[places].detach().requires_grad_()
                result = score(part, places)
            inputs = [part, *parameters]
            first, *more = torch.autograd.grad(
                result, inputs, allow_unused=True, materialize_grads=True
            )
            total += result.detach()
            of_hidden.append(first)
            # The first chunk's gradients are taken as they are: often there is no other.
            of_parameters = _added(of_parameters, more) if of_parameters else list(more)
        whole = torch.cat(of_hidden) if len(of_hidden) != 1 else of_hidden[0]
        ctx.save_for_backward(whole, *of_parameters)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        of_hidden, *of_parameters = ctx.saved_tensors
        # Asking a GPU would wait for it.
        if upstream[0].device.type == "cpu" and upstream[0].item() == 1:
            return of_hidden, None, None, *of_parameters
        scaled = [gradient * upstream[0] for gradient in of_parameters]
        return of_hidden * upstream[0], None, None, *scaled


def _added(totals: list[Tensor], more: list[Tensor]) -> list[Tensor]:
    for total, each in zip(totals, more, strict=True):
        total += each
    return totals
