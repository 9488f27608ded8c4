"""Attention over a cache in 8 bits: int8 keys and values, and a scale for each token's head.

N tokens, H query heads, K key heads, W head width, T texts, P pages of S slots.
"""

from __future__ import annotations

import torch
from torch import Tensor

from limner.kernels.attention import (
    Places,
    attend_fake,
    attend_reference,
    check_positions,
    page_and_slot,
    page_table,
    put,
    slot_by_slot,
    slots_of,
    strides_of,
)
from limner.kernels.library import call, contiguous, empty, operator, rows_of, runs_on
from limner.kernels.linear import SMALLEST


def attend_int8(
    query: Tensor,
    keys: Tensor,
    key_scales: Tensor,
    values: Tensor,
    value_scales: Tensor,
    places: Places,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """`attend` over int8 `keys` (P, K, S/16, W, 16) and `values` (P, K, S, W).

    A number is its code times the scale of its token's head, `key_scales` and `value_scales`
    float32 (P, K, S), as `store_int8` wrote them. The query and all sums stay float32.
    """
    arguments = (
        query, keys, key_scales, values, value_scales, places.pages, places.texts,
        places.positions, scale, 0 if window is None else window,
        0.0 if softcap is None else softcap,
    )  # fmt: skip
    if not runs_on(query, key_scales, value_scales):
        return attend_int8_reference(*arguments)
    result: Tensor = torch.ops.limner.attend_int8(*arguments)
    return result


def attend_int8_reference(
    query: Tensor,
    keys: Tensor,
    key_scales: Tensor,
    values: Tensor,
    value_scales: Tensor,
    pages: Tensor | None,
    texts: Tensor,
    positions: Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> Tensor:
    """`attend_int8` in plain PyTorch; 0 for no window, no cap."""
    wide_keys = slot_by_slot(keys, keys.dim() == 5) * key_scales.unsqueeze(-1)
    wide_values = values * value_scales.unsqueeze(-1)
    where = pages, texts, positions
    return attend_reference(query, wide_keys, wide_values, *where, scale, window, softcap)


def _attend_int8_fake(
    query: Tensor, keys: Tensor, scales: Tensor, values: Tensor, *_: Tensor | float | None
) -> Tensor:
    return attend_fake(query, keys, values)


@operator(
    "attend_int8(Tensor query, Tensor keys, Tensor key_scales, Tensor values, Tensor value_scales,"
    " Tensor? pages, Tensor texts, Tensor positions, float scale, SymInt window, float softcap)"
    " -> Tensor",
    _attend_int8_fake,
    attend_int8_reference,
)
def _attend_int8(
    query: Tensor,
    keys: Tensor,
    key_scales: Tensor,
    values: Tensor,
    value_scales: Tensor,
    pages: Tensor | None,
    texts: Tensor,
    positions: Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> Tensor:
    tokens, heads, key_width = query.shape
    rows = rows_of(query.flatten(1))  # (N, H * W)
    output = empty((tokens, heads, values.shape[-1]), query)
    _check_cache(keys, key_scales)
    _check_cache(values, value_scales)
    call(
        "attend", rows, rows.stride(0), keys, key_scales, strides_of(keys), values, value_scales,
        strides_of(values), *page_table(pages, keys), contiguous(texts), contiguous(positions),
        scale, softcap, window, output, tokens, heads, keys.shape[1], key_width, values.shape[-1],
    )  # fmt: skip
    return output


def _check_cache(cache: Tensor, scales: Tensor) -> None:
    assert cache.dtype == torch.int8
    assert scales.is_contiguous(), "scales are found by counting"
    assert scales.shape == (*cache.shape[:2], slots_of(cache))


def store_int8(heads: Tensor, cache: Tensor, scales: Tensor, places: Places) -> None:
    """Round `heads` (N, K, W) to int8, each by its largest number, and write them to their places.

    `cache` is int8 (P, K, S, W) or (P, K, S/16, W, 16), `scales` float32 (P, K, S). A head with an
    infinity or a NaN gets scale NaN. Raises ValueError for a position outside the cache; in a
    replayed plan such a token is left out.
    """
    function = torch.ops.limner.store_int8 if runs_on(heads, scales) else store_int8_reference
    function(heads, cache, scales, places.pages, places.texts, places.positions)


def store_int8_reference(
    heads: Tensor,
    cache: Tensor,
    scales: Tensor,
    pages: Tensor | None,
    texts: Tensor,
    positions: Tensor,
) -> None:
    """`store_int8` in plain PyTorch."""
    check_positions(cache, pages, positions)
    page, slot = page_and_slot(cache, pages, texts, positions)
    codes, scales[page, :, slot] = round_heads(heads)
    put(codes, cache, page, slot)


def round_heads(heads: Tensor) -> tuple[Tensor, Tensor]:
    """Codes int8 (..., W) and scales (...) of `heads` (..., W)."""
    peak = heads.abs().amax(-1, keepdim=True)
    finite, large = peak.isfinite(), peak >= SMALLEST
    inverse = torch.full_like(peak, 127.0) / peak
    codes = torch.where(finite & large, heads * inverse, 0.0).round().to(torch.int8)
    scale = torch.where(finite, torch.where(large, peak / 127, 0.0), torch.nan)
    return codes, scale.squeeze(-1)


@operator(
    "store_int8(Tensor heads, Tensor(a!) cache, Tensor(b!) scales, Tensor? pages, Tensor texts,"
    " Tensor positions) -> ()",
    lambda *_: None,
    store_int8_reference,
)
def _store_int8(
    heads: Tensor,
    cache: Tensor,
    scales: Tensor,
    pages: Tensor | None,
    texts: Tensor,
    positions: Tensor,
) -> None:
    check_positions(cache, pages, positions)
    _check_cache(cache, scales)
    count, head_count, width = heads.shape
    rows = rows_of(heads.flatten(1))  # (N, K * W)
    call(
        "store", rows, rows.stride(0), cache, scales, strides_of(cache), *page_table(pages, cache),
        contiguous(texts), contiguous(positions), count, head_count, width,
    )  # fmt: skip
