"""Attention without softmax, as a recurrence over a matrix, many tokens at once.

n texts, C tokens of each, c of a chunk, H heads, N width of queries and keys, P width of values.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Tokens that are compared pair by pair; longer texts go from chunk to chunk.
CHUNK = 64


def decayed_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    carried: Tensor,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Outputs (n, C, H, P) query(t) . h(t) of h(t) = exp(log_decay(t)) h(t - 1) + key(t) value(t)'.

    `query` and `key` are (n, C, H, N), `value` (n, C, H, P), `log_decay` (n, C, H), and h, which is
    `carried` in and out, (n, H, N, P). `starts` (n, C) is True where another text begins. Within a
    chunk it is a masked product, between chunks a recurrence (Dao and Gu 2024).
    """
    outputs = []
    for begin in range(0, query.shape[1], CHUNK):
        chunk = slice(begin, begin + CHUNK)
        some, carried = _chunk(
            query[:, chunk],
            key[:, chunk],
            value[:, chunk],
            log_decay[:, chunk],
            carried,
            None if starts is None else starts[:, chunk],
        )
        outputs.append(some)
    return torch.cat(outputs, 1), carried


def _chunk(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    log_decay: Tensor,
    carried: Tensor,
    starts: Tensor | None,
) -> tuple[Tensor, Tensor]:
    log_decay = log_decay.transpose(1, 2)  # (n, H, c)
    between = decay_between(log_decay, starts)  # (n, H, c, c)
    since = log_decay.cumsum(-1)  # (n, H, c): from before the chunk
    if starts is not None:
        since = since.masked_fill(starts.cumsum(1)[:, None] > 0, float("-inf"))
    scores = torch.einsum("nthk,nshk->nhts", query, key) * between
    outputs = torch.einsum("nhts,nshp->nthp", scores, value)
    past = torch.einsum("nthk,nhkp->nthp", query, carried)
    outputs = outputs + past * since.exp().transpose(1, 2)[..., None]
    kept = key * between[:, :, -1].transpose(1, 2)[..., None]
    written = torch.einsum("nshk,nshp->nhkp", kept, value)
    return outputs, carried * since[:, :, -1].exp()[..., None, None] + written


def decay_between(log_decay: Tensor, starts: Tensor | None) -> Tensor:
    """What is left at each token of each token before it and itself, (n, H, c, c); 0 of later ones.

    Sums are taken over the tokens between and not as differences of sums from the beginning, which
    would lose their digits. Tokens of other texts leave nothing.
    """
    time = log_decay.shape[-1]
    lower = torch.ones(time, time, dtype=torch.bool, device=log_decay.device).tril()
    steps = log_decay[..., None].expand(*log_decay.shape, time)  # (n, H, c, c)
    sums = steps.masked_fill(~lower.tril(-1), 0).cumsum(-2)
    seen = lower
    if starts is not None:
        text = starts.cumsum(1)  # (n, c)
        seen = lower & (text[:, None, :, None] == text[:, None, None, :])
    return sums.masked_fill(~seen, float("-inf")).exp()
