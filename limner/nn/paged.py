"""The paged cache: keys and values in pages of a few tokens, which texts take as they grow.

B batch, T time, N tokens laid end to end, H query heads, K key-value heads, W head width, R rows,
P pages of S slots, n rows that take C tokens each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from limner import kernels
from limner.kernels.attention import LANES, put, slot_by_slot
from limner.kernels.library import runs_on
from limner.nn.cache import (
    CacheShape,
    CacheStep,
    Group,
    RowCache,
    kept_shapes,
    zeros_untouched,
)
from limner.nn.carried import CarriedShape
from limner.nn.scoring import Scoring, attention

#: Tokens a page holds. A prefix is shared in whole pages, and a text wastes half of one.
PAGE_SIZE = 32
#: The page that no row is given: it stays zero, and stands in tables where nothing is kept.
NOBODYS = 0


class PagedCache(RowCache):
    """Keys and values of `rows` texts in `pages` pages that rows share as they are told.

    `tables` int32 (R, pages a row) lists the pages that hold a row's text, in order; `give` writes
    to it. Who owns which page is the caller's to know (`limner.inference.pages`). Pages 1 to
    `pages` may be given; without `pages` every row has its own from the start, room for `capacity`
    tokens. What recurrent layers carry is kept by row.

    On the CPU in float32, `keys` are (P, K, S/16, W, 16), as the kernels read them fastest, and
    otherwise (P, K, S, W); `values` (P, K, S, W). Memory is reserved at once and taken from the
    system only as tokens fill it.
    """

    def __init__(
        self,
        shapes: Sequence[CacheShape | CarriedShape],
        rows: int,
        capacity: int,
        pages: int | None = None,
        page_size: int = PAGE_SIZE,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(shapes, rows, capacity, dtype, device)
        if page_size % LANES:
            raise ValueError(f"page_size must be a multiple of {LANES}, not {page_size}")
        each = -(-capacity // page_size)
        self.pages, self.page_size = rows * each if pages is None else pages, page_size
        self.tables = torch.full((rows, each), NOBODYS, dtype=torch.int32)
        #: The same numbers beside the keys.
        self.device_tables = self.tables.to(self.device)
        self.dtype, self.shapes = dtype, kept_shapes(shapes)
        self._allocate()
        if pages is None:
            for row in range(rows):
                self.give(row, range(1 + row * each, 1 + (row + 1) * each))

    def _allocate(self) -> None:
        self.keys = [self._new_keys(shape, self.dtype) for shape in self.shapes]
        self.values = [self._new(s.heads, s.value_width, self.dtype) for s in self.shapes]

    def _new_keys(self, shape: CacheShape, dtype: torch.dtype) -> Tensor:
        # Values that are a part of their keys need these as they are.
        if self.dtype != torch.float32 or self.device.type != "cpu" or not shape.value_width:
            return self._new(shape.heads, shape.key_width, dtype)
        size = (1 + self.pages, shape.heads, self.page_size // LANES, shape.key_width, LANES)
        return zeros_untouched(size, dtype, self.device)

    def _new(self, heads: int, width: int, dtype: torch.dtype) -> Tensor:
        size = (1 + self.pages, heads, self.page_size, width)
        return zeros_untouched(size, dtype, self.device)

    @property
    def kept(self) -> list[Tensor]:
        """All that is kept, by page."""
        return [*self.keys, *self.values]

    @property
    def page_bytes(self) -> int:
        """Bytes of one page, all layers together."""
        return sum(kept[0].nbytes for kept in self.kept)

    def give(self, row: int, pages: Sequence[int], start: int = 0) -> None:
        """Let `pages` hold the text of `row`, from its `start`-th page on."""
        listed = torch.tensor(pages, dtype=torch.int32)
        for tables in {id(t): t for t in (self.tables, self.device_tables)}.values():
            tables[row, start : start + len(pages)] = listed

    def resume(self, row: int, pages: Sequence[int], length: int) -> None:
        """Let `row` hold the first `length` tokens of a text, as they stand in `pages`."""
        assert self.can_rewind or not length
        self.free(row)
        self.give(row, pages)
        self.lengths[row] = length

    def copy_page(self, source: int, target: int) -> None:
        """Let page `target` hold what page `source` holds."""
        for kept in self.kept:
            kept[target] = kept[source]

    def copy_carried(self, source: int, target: int) -> None:
        """Let row `target` be as long as row `source`, and its recurrent layers carry the same."""
        for carried in self.carried.values():
            for tensor in carried:
                tensor[target] = tensor[source]
        self.lengths[target] = self.lengths[source]

    def step(
        self, work: Sequence[tuple[int, int]], lengths: Sequence[int] | None = None
    ) -> PagedStep:
        """The state of one forward pass over (row, count of new tokens) pairs, laid end to end."""
        return PagedStep(self, work, lengths)

    def decode_step(self, texts: Tensor, positions: Tensor, pages: int | None = None) -> DecodeStep:
        """The state of a pass over one token of each row in `texts` (N), at `positions` (N).

        Both int64, beside the keys. The pass reads nothing else but them and the tables, so a
        captured one can be replayed when they hold other numbers; `advance` then counts the tokens.
        Where the kernels do not attend it reads so many `pages` of each row, which must hold all
        positions: as many as a row can have if not given.
        """
        return DecodeStep(self, texts, positions, pages)

    def advance(self, work: Sequence[tuple[int, int]]) -> None:
        """Count (row, count of new tokens) pairs that a pass has written."""
        for row, count in work:
            self.lengths[row] += count

    def takes_kernels(self, layer: int, *tensors: Tensor) -> bool:
        """Whether the kernels can attend in `layer` with these queries, keys or values."""
        return self.device.type == "cpu" and self.dtype == torch.float32 and runs_on(*tensors)

    def store(self, layer: int, key: Tensor, value: Tensor, places: kernels.Places) -> None:
        """Write `key`, `value` (N, K, W) to their places, by the kernels."""
        kernels.store(key, self.keys[layer], places)
        if self.shapes[layer].value_width:
            kernels.store(value, self.values[layer], places)

    def mix(
        self, layer: int, query: Tensor, width: int, scoring: Scoring, places: kernels.Places
    ) -> Tensor:
        """Mix values of `width` for `query` (N, H, W), by the kernels."""
        keys, values = self.keys[layer], self.values[layer]
        values = values if self.shapes[layer].value_width else keys[..., :width]
        scale, window, softcap = scoring.scale, scoring.window, scoring.softcap
        return kernels.attend(query, keys, values, places, scale, window, softcap)

    def write(self, layer: int, page: Tensor, slot: Tensor, key: Tensor, value: Tensor) -> None:
        """Write `key`, `value` (n, C, K, W) to slots `slot` (n, C) of pages `page` (n, C)."""
        put(key, self.keys[layer], page, slot)
        if self.shapes[layer].value_width:
            put(value, self.values[layer], page, slot)

    def read(self, layer: int, pages: Tensor, width: int) -> tuple[Tensor, Tensor]:
        """Copies of the keys and values, of `width`, in `pages` (n, p), as (n, K, p * S, W)."""
        keys = self.keys_of(layer, pages).flatten(2, 3)
        if not self.shapes[layer].value_width:
            return keys, keys[..., :width]
        return keys, self.values_of(layer, pages).flatten(2, 3)

    def keys_of(self, layer: int, pages: Tensor) -> Tensor:
        """Copies of the keys in `pages` (n, p), as (n, K, p, S, W)."""
        return slot_by_slot(head_by_head(self.keys[layer], pages), self.keys[layer].dim() == 5)

    def values_of(self, layer: int, pages: Tensor) -> Tensor:
        """Copies of the values in `pages` (n, p), as (n, K, p, S, W)."""
        return head_by_head(self.values[layer], pages)


def head_by_head(kept: Tensor, pages: Tensor) -> Tensor:
    """Copies of `pages` (n, p) of `kept` (P, K, ...), as (n, K, p, ...).

    In one go: what a text's heads hold then lies one behind another, with no second copy.
    """
    heads = torch.arange(kept.shape[1], device=pages.device)
    return kept.flatten(0, 1)[pages[:, None] * kept.shape[1] + heads[:, None]]


@dataclass
class _Pages:
    """Where a group's tokens go and what its rows hold."""

    page: Tensor  # (n, C)
    slot: Tensor  # (n, C)
    listed: Tensor  # (n, p)
    past: Tensor  # (n, 1, S, 1): places past the end of each row


class PagedStep(CacheStep):
    """One forward pass over some rows of a paged cache.

    The kernels attend where they can; PyTorch's operators do, to a copy of the pages, elsewhere.
    """

    cache: PagedCache

    def __init__(
        self,
        cache: PagedCache,
        work: Sequence[tuple[int, int]],
        lengths: Sequence[int] | None = None,
    ) -> None:
        super().__init__(cache, work, lengths)
        self._pages: dict[int, _Pages] = {}
        self._places: kernels.Places | None = None

    @property
    def places(self) -> kernels.Places:
        """Where the tokens stand, made once for all layers."""
        if self._places is None:
            texts = [row for row, count in self.work for _ in range(count)]
            starts = [(self.cache.lengths[row], count) for row, count in self.work]
            positions = [start + i for start, count in starts for i in range(count)]
            device = self.cache.device
            self._places = kernels.Places(
                torch.tensor(texts, device=device),
                torch.tensor(positions, device=device),
                self.cache.device_tables,
            )
        return self._places

    def positions(self, batch: int, time: int, device: torch.device) -> Tensor:
        """Places that follow what each row holds, in the order of the work."""
        return self.places.positions.to(device).view(batch, time)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Keep the new keys and values, then mix."""
        plain = scoring.causal and scoring.bias is None and scoring.pattern is None
        if not (plain and self.cache.takes_kernels(layer, query, key, value)):
            return super().attend(layer, query, key, value, scoring)
        self.cache.store(layer, key.flatten(0, 1), value.flatten(0, 1), self.places)
        rows, width = query.flatten(0, 1), value.shape[-1]
        mixed = self.cache.mix(layer, rows, width, scoring, self.places)
        return mixed.view(*query.shape[:-1], -1)

    def keep(self, layer: int, group: Group, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write to the pages, and copy all that the rows hold together."""
        at = self._pages_of(group)
        self.cache.write(layer, at.page, at.slot, key.transpose(1, 2), value.transpose(1, 2))
        keys, values = self.cache.read(layer, at.listed, value.shape[-1])
        keys, values = keys[:, :, : group.longest], values[:, :, : group.longest]
        # Pages come with what another text left in them, and a NaN would show through the mask.
        return keys.masked_fill(at.past, 0), values.masked_fill(at.past, 0)

    def _pages_of(self, group: Group) -> _Pages:
        if id(group) not in self._pages:
            size, tables = self.cache.page_size, self.cache.device_tables
            places = torch.arange(group.longest, device=self.cache.device)
            self._pages[id(group)] = _Pages(
                page=tables[group.row_index[:, None], group.index // size].long(),
                slot=group.index % size,
                listed=tables[group.row_index, : -(-group.longest // size)].long(),
                past=(places > group.index[:, -1:])[:, None, :, None],
            )
        return self._pages[id(group)]


@dataclass
class _Sight:
    """The pages of each row that a layer reads, and what of them it sees."""

    listed: Tensor  # (n, p)
    places: Tensor  # (n or 1, p * S)
    visible: Tensor | None  # (n, 1, 1, p * S)
    unwritten: Tensor  # (n, 1, p * S, 1)


class DecodeStep(PagedStep):
    """A pass over one token a row that does no work in Python that depends on which they are.

    Where the kernels do not attend, all sizes follow from the numbers of rows and pages, and
    nothing is asked of the device: a GPU records such a pass once and replays it. A token at a
    position below 0 is left out: a place to fill a batch of a fixed size with.
    """

    def __init__(
        self, cache: PagedCache, texts: Tensor, positions: Tensor, pages: int | None = None
    ) -> None:
        super().__init__(cache, [])
        self.pages = cache.tables.shape[1] if pages is None else pages
        self._places = kernels.Places(texts, positions, cache.device_tables)
        whole, longest = slice(0, len(texts)), self.pages * cache.page_size
        # Not a property that is cached: torch.compile does not see through the lock of one.
        self.groups = [Group(texts, texts, whole, positions[:, None], None, longest)]
        self._written: tuple[Tensor, Tensor] | None = None
        self._sights: dict[tuple[object, ...], _Sight] = {}

    def text_lengths(self, positions: Tensor) -> Tensor:
        """Up to each token itself, (B, T)."""
        return (positions + 1).cpu()

    def _page_and_slot(self, group: Group) -> tuple[Tensor, Tensor]:
        """Where each token goes, (n, 1) both; to the page of nobody if nowhere."""
        if self._written is None:
            index, size = group.index, self.cache.page_size
            page = self.cache.device_tables[group.row_index[:, None], index // size]
            self._written = torch.where(index >= 0, page, NOBODYS).long(), index % size
        return self._written

    def _attend_group(
        self, group: Group, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        nowhere = (group.index < 0)[..., None]  # (n, 1, 1)
        page, slot = self._page_and_slot(group)
        new = (heads.masked_fill(nowhere, 0)[:, None] for heads in (key, value))  # (n, 1, K, W)
        self.cache.write(layer, page, slot, *new)
        seen = self._sight(group, scoring)
        keys, values = self.cache.read(layer, seen.listed, value.shape[-1])  # (n, K, p * S, W)
        # Copies already. Values that are a part of their keys are filled twice.
        keys, values = (held.masked_fill_(seen.unwritten, 0) for held in (keys, values))
        bias = None if scoring.bias is None else scoring.bias(group.index, seen.places)
        mixed = attention(query[:, :, None], keys, values, scoring, seen.visible, bias)
        return mixed.squeeze(2)  # (n, H, W)

    def _sight(self, group: Group, scoring: Scoring) -> _Sight:
        """What layers that score like this read and see, worked out once for all of them."""
        kind = (scoring.causal, scoring.window, scoring.pattern)
        if kind not in self._sights:
            self._sights[kind] = self._look(group, scoring)
        return self._sights[kind]

    def _look(self, group: Group, scoring: Scoring) -> _Sight:
        """The pages that a layer may look back to; with a window those of the last places only."""
        size, window, tables = self.cache.page_size, scoring.window, self.cache.device_tables
        listed = torch.arange(self.pages, device=self.cache.device)[None]  # (1, p)
        spanned = self.pages if window is None else (window + size - 2) // size + 1
        if window is not None and spanned < self.pages:
            first = (group.index - window + 1).clamp(min=0) // size  # (n, 1)
            listed = first + listed[:, :spanned]
        slots = torch.arange(size, device=self.cache.device)
        places = (listed[..., None] * size + slots).flatten(1)  # (n or 1, p * S)
        # Pages past the end of a table are later than any token.
        listed = listed.clamp(max=tables.shape[1] - 1)
        return _Sight(
            listed=tables[group.row_index[:, None], listed].long(),
            places=places,
            visible=scoring.visible(group.index, places),
            unwritten=(places > group.index)[:, None, :, None],
        )
