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

#: Logits in a chunk, few enough that some of them stay in a processor's cache.
CHUNK = 2**21
#: But so many places at least: with fewer, adding up the gradient of the head would take long.
PLACES = 512
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
        chunk: places computed at once; those of `chunk_size` if not given.
    """
    hidden, targets, weights = hidden.flatten(0, -2), targets.flatten(), weights.flatten()
    kept = weights.nonzero().squeeze(1)
    if len(kept) < len(weights):
        hidden, targets, kept_weights = hidden[kept], targets[kept], weights[kept]
    else:
        kept_weights = weights

    def score(part: Tensor, places: slice) -> Tensor:
        each = functional.cross_entropy(head(part).float(), targets[places], reduction="none")
        return weighted_sum(each, kept_weights[places])

    return Loss(sum_in_chunks(score, hidden, head, chunk), weights.sum())


def sum_in_chunks(
    score: Score, hidden: Tensor, head: nn.Module, chunk: int | None = None
) -> Tensor:
    """The sum of `score` over chunks of `hidden` (N, D), a scalar.

    It is differentiable with regard to `hidden` and the parameters of `head`, which are all that
    `score` may depend on differentiably.
    """
    size = chunk if chunk is not None else chunk_size(head)
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


def weighted_sum(each: Tensor, weights: Tensor) -> Tensor:
    """The sum of `each` x `weights` (N), which mixed precision does not round to 8 bits."""
    with torch.autocast(each.device.type, enabled=False):
        return each @ weights


def chunk_size(head: nn.Module) -> int:
    """Places whose logits make a chunk, by the head's widest layer: using it would take time."""
    return max(CHUNK // _width(head), PLACES)


def chunk_bytes(head: nn.Module) -> int:
    """What the logits of a chunk take, with their probabilities and their gradient."""
    return 3 * 4 * chunk_size(head) * _width(head)


def _width(head: nn.Module) -> int:
    return max((p.shape[0] for p in head.parameters() if p.ndim), default=1)


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
