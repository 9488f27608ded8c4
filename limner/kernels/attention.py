"""Attention over a paged cache of keys and values, and writing to it.

N tokens, H query heads, K key heads, W head width, T texts, P pages of S slots.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import torch
from torch import Tensor

from limner.kernels.library import call, contiguous, empty, operator, rows_of, runs_on

#: Keys are interleaved by so many slots.
LANES = 16


@dataclass(frozen=True)
class Places:
    """Where tokens stand: the text each belongs to and its position there, int64 (N).

    `pages` int32 (T, pages a text) lists the pages that hold a text, in order. None: page i is the
    whole of text i, a contiguous cache.
    """

    texts: Tensor
    positions: Tensor
    pages: Tensor | None = None


def attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    places: Places,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """Mix values for `query` (N, H, W) over `keys`, `values` (P, K, S, W), to (N, H, W of values).

    Each token sees its text's keys up to its own position, which `store` must have written; with
    `window` only the last so many. `softcap` bounds scores by cap * tanh(score / cap). Query heads
    share key heads in equal groups (Ainslie et al. 2023). The cache may have any strides but the
    last. `keys` may be interleaved, (P, K, S/16, W, 16), which is faster. A token's numbers are the
    same to the bit however a text is cut into chunks.
    """
    arguments = (
        query, keys, values, places.pages, places.texts, places.positions, scale,
        0 if window is None else window, 0.0 if softcap is None else softcap,
    )  # fmt: skip
    if not runs_on(query, keys, values):
        return attend_reference(*arguments)
    result: Tensor = torch.ops.limner.attend(*arguments)
    return result


def attend_reference(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    pages: Tensor | None,
    texts: Tensor,
    positions: Tensor,
    scale: float,
    window: int,
    softcap: float,
) -> Tensor:
    """`attend` in plain PyTorch, token by token; 0 for no window, no cap."""
    mixed = []
    for one, text, position in zip(query, texts.tolist(), positions.tolist(), strict=True):
        held = [_text(cache, pages, text, position) for cache in (keys, values)]
        mixed.append(_attend_one(one, held[0], held[1], scale, window, softcap))
    return torch.stack(mixed) if mixed else query.new_empty((0, query.shape[1], values.shape[-1]))


def _text(cache: Tensor, pages: Tensor | None, text: int, position: int) -> Tensor:
    """What a text holds up to `position`, (K, position + 1, W)."""
    listed = [text] if pages is None else pages[text].tolist()
    cache = slot_by_slot(cache, cache.dim() == 5)
    size = cache.shape[2]
    parts = [cache[page] for page in listed[: position // size + 1]]
    return torch.cat(parts, 1)[:, : position + 1]


def slot_by_slot(cache: Tensor, interleaved: bool) -> Tensor:
    """A cache as (..., P, K, S, W), whether or not it is `interleaved`."""
    return cache.transpose(-1, -2).flatten(-3, -2) if interleaved else cache


def _attend_one(
    query: Tensor, keys: Tensor, values: Tensor, scale: float, window: int, softcap: float
) -> Tensor:
    """One token: `query` (H, W) over `keys`, `values` (K, S, W)."""
    first = max(0, keys.shape[1] - window) if window else 0
    shared = query.unflatten(0, (keys.shape[0], -1)) * scale  # (K, H / K, W)
    scores = shared @ keys[:, first:].transpose(1, 2)  # (K, H / K, S)
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    mixed: Tensor = scores.softmax(-1) @ values[:, first:]
    return mixed.flatten(0, 1)


def attend_fake(query: Tensor, keys: Tensor, values: Tensor, *_: Tensor | float | None) -> Tensor:
    """The shape of what `attend` gives, for tracing."""
    return query.new_empty((*query.shape[:2], values.shape[-1]))


@operator(
    "attend(Tensor query, Tensor keys, Tensor values, Tensor? pages, Tensor texts,"
    " Tensor positions, float scale, SymInt window, float softcap) -> Tensor",
    attend_fake,
    attend_reference,
)
def _attend(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
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
    call(
        "attend", rows, rows.stride(0), keys, None, strides_of(keys), values, None,
        strides_of(values), *page_table(pages, keys), contiguous(texts), contiguous(positions),
        scale, softcap, window, output, tokens, heads, keys.shape[1], key_width, values.shape[-1],
    )  # fmt: skip
    return output


def store(heads: Tensor, cache: Tensor, places: Places) -> None:
    """Write `heads` (N, K, W) to their places in `cache` (P, K, S, W) or (P, K, S/16, W, 16).

    Raises ValueError for a position outside the cache; in a replayed plan such a token is left out.
    """
    function = torch.ops.limner.store if runs_on(heads, cache) else store_reference
    function(heads, cache, places.pages, places.texts, places.positions)


def store_reference(
    heads: Tensor, cache: Tensor, pages: Tensor | None, texts: Tensor, positions: Tensor
) -> None:
    """`store` in plain PyTorch."""
    check_positions(cache, pages, positions)
    put(heads, cache, *page_and_slot(cache, pages, texts, positions))


def page_and_slot(
    cache: Tensor, pages: Tensor | None, texts: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """The page of each token and its slot there, int64 (N)."""
    size = slots_of(cache)
    page = texts if pages is None else pages[texts, positions // size].long()
    return page, positions % size


def put(heads: Tensor, cache: Tensor, page: Tensor, slot: Tensor) -> None:
    """Write `heads` (..., K, W) to slots `slot` (...) of pages `page` (...)."""
    if cache.dim() == 4:
        cache[page, :, slot] = heads
    else:
        cache[page, :, slot // LANES, :, slot % LANES] = heads


def slots_of(cache: Tensor) -> int:
    """Slots of a page."""
    return cache.shape[2] if cache.dim() == 4 else cache.shape[2] * LANES


def check_positions(cache: Tensor, pages: Tensor | None, positions: Tensor) -> None:
    """ValueError for a position that a text has no slot for."""
    room = slots_of(cache) * (1 if pages is None else pages.shape[1])
    if positions.numel() and not (int(positions.min()) >= 0 and int(positions.max()) < room):
        raise ValueError(
            f"positions from {int(positions.min())} to {int(positions.max())} do not fit a cache "
            f"with room for {room} tokens a text"
        )


@operator(
    "store(Tensor heads, Tensor(a!) cache, Tensor? pages, Tensor texts, Tensor positions) -> ()",
    lambda *_: None,
    store_reference,
)
def _store(
    heads: Tensor, cache: Tensor, pages: Tensor | None, texts: Tensor, positions: Tensor
) -> None:
    check_positions(cache, pages, positions)
    count, head_count, width = heads.shape
    rows = rows_of(heads.flatten(1))  # (N, K * W)
    call(
        "store", rows, rows.stride(0), cache, None, strides_of(cache), *page_table(pages, cache),
        contiguous(texts), contiguous(positions), count, head_count, width,
    )  # fmt: skip


def strides_of(cache: Tensor) -> ctypes.Array[ctypes.c_int64]:
    """Strides of pages, heads and slots, and the bytes the tensor spans, as C reads them."""
    interleaved = cache.dim() == 5
    inner = cache.stride()[2:] == (cache.shape[3] * LANES, LANES, 1)
    assert inner if interleaved else cache.stride(-1) == 1, "a head's numbers must be adjacent"
    page, head, slot = cache.stride()[:3]
    last = sum((size - 1) * step for size, step in zip(cache.shape, cache.stride(), strict=True))
    spanned = (last + 1) * cache.element_size()
    return (ctypes.c_int64 * 4)(page, head, 0 if interleaved else slot, spanned)


def page_table(pages: Tensor | None, cache: Tensor) -> tuple[Tensor | None, int, int]:
    """The table, pages a text, and slots a page."""
    if pages is None:
        return None, 1, slots_of(cache)
    assert pages.dtype == torch.int32
    return contiguous(pages), pages.shape[1], slots_of(cache)
