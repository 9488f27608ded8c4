"""Softmax attention over given keys and values, and the rules a layer may set for it.

B batch, T queries, S keys, H query heads, K key-value heads, W head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

#: From the place of each query (B, T) and each key (B, S) in its text to (B, 1 or H, T, S).
Relation = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Scoring:
    """How a layer scores keys, apart from whose keys they are (which the state decides).

    `scale` multiplies the products. `causal` hides later tokens. `window` hides tokens that are
    `window` or more places back (Beltagy et al. 2020). `softcap` bounds scores by cap * tanh(score
    / cap) (Gemma 2). `bias` adds to the scores (ALiBi, T5). `pattern` hides more: True where a key
    may be seen (block-sparse layers).
    """

    scale: float
    causal: bool = True
    window: int | None = None
    softcap: float | None = None
    bias: Relation | None = None
    pattern: Relation | None = None

    def visible(self, query: Tensor, key: Tensor) -> Tensor | None:
        """Which keys each query may see, (B, 1, T, S); None when all, given their indices."""
        distance = query[:, None, :, None] - key[:, None, None, :]  # (B, 1, T, S)
        seen = distance >= 0 if self.causal else None
        if self.window is not None:
            near = distance < self.window
            seen = near if seen is None else seen & near
        if self.pattern is not None:
            listed = self.pattern(query, key)
            seen = listed if seen is None else seen & listed
        return seen


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scoring: Scoring,
    visible: Tensor | None = None,
    bias: Tensor | None = None,
    causal: bool = False,
) -> Tensor:
    """Mix `value` (B, K, S, W) by the softmax of `query` (B, H, T, W) . `key` (B, K, S, W).

    `visible` (B, 1 or H, T, S) is True where a key may be seen; `bias` adds to the scores; `causal`
    says that queries and keys are the same tokens and later ones are hidden.
    """
    if scoring.softcap is not None:
        return _attention_by_hand(query, key, value, scoring, visible, bias, causal)
    if bias is not None:
        visible = bias if visible is None else bias.masked_fill(~visible, float("-inf"))
        visible = visible.to(query.dtype)
    grouped = query.shape[1] != key.shape[1]
    if (
        grouped
        and query.shape[2] == 1
        and not causal
        and (visible is None or visible.shape[1] == 1)
    ):
        return _one_query_a_group(query, key, value, scoring, visible)
    return functional.scaled_dot_product_attention(
        query, key, value, visible, is_causal=causal, scale=scoring.scale, enable_gqa=grouped
    )


def _one_query_a_group(
    query: Tensor, key: Tensor, value: Tensor, scoring: Scoring, visible: Tensor | None
) -> Tensor:
    """One token: the heads that share a key become its queries, so that no key is repeated."""
    shared = query.view(query.shape[0], key.shape[1], -1, query.shape[-1])  # (B, K, H / K, W)
    mixed = functional.scaled_dot_product_attention(
        shared, key, value, visible, scale=scoring.scale
    )
    return mixed.reshape(*query.shape[:-1], value.shape[-1])


def _attention_by_hand(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scoring: Scoring,
    visible: Tensor | None,
    bias: Tensor | None,
    causal: bool,
) -> Tensor:
    """Operator by operator, for what the fused kernel cannot do."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    scores = query @ key.transpose(-1, -2) * scoring.scale  # (B, H, T, S)
    if scoring.softcap is not None:
        scores = scoring.softcap * torch.tanh(scores / scoring.softcap)
    if bias is not None:
        scores = scores + bias
    if causal:
        visible = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if visible is not None:
        scores = scores.masked_fill(~visible, float("-inf"))
    return scores.float().softmax(-1).to(value.dtype) @ value
