"""Caches: states that keep keys and values, or what layers carry, for the tokens to come.

B batch, T time, N tokens laid end to end, H query heads, K key-value heads, W head width, R rows of
a cache, S places in a row.
"""

from __future__ import annotations

import mmap
import sys
from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from limner.nn.carried import CarriedShape, Recurrence, keep
from limner.nn.scoring import Scoring, attention
from limner.nn.state import State


@dataclass(frozen=True)
class CacheShape:
    """What one layer keeps of a token: `heads` keys of `key_width` and values of `value_width`.

    Without a `value_width`, values are the first numbers of their keys (latent attention).
    """

    heads: int
    key_width: int
    value_width: int


class RowCache(State):
    """What every cache of `rows` texts of up to `capacity` tokens does; where keys go is its own.

    Used as a state it means all rows, side by side; `step` picks rows and token counts.
    """

    def __init__(
        self,
        shapes: Sequence[CacheShape | CarriedShape],
        rows: int,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self.rows, self.capacity, self.device = rows, capacity, torch.device(device)
        self.lengths = [0] * rows
        self.recurrent = {
            layer: shape for layer, shape in enumerate(shapes) if isinstance(shape, CarriedShape)
        }
        self.carried = {
            layer: shape.new(rows, dtype, device) for layer, shape in self.recurrent.items()
        }
        self.can_rewind = not self.recurrent

    @abstractmethod
    def step(
        self, work: Sequence[tuple[int, int]], lengths: Sequence[int] | None = None
    ) -> CacheStep:
        """The state of one forward pass over (row, count of new tokens) pairs, laid end to end.

        `lengths` says how long each whole text is, where more of it is known than is computed now:
        a prompt in chunks. Raises ValueError if a row would overflow its capacity.
        """

    def begin(self, batch: int, time: int) -> CacheStep:
        """All rows take `time` tokens each; the batch must be the rows."""
        if batch != self.rows:
            raise ValueError(f"the cache holds {self.rows} rows but the tokens have {batch}")
        return self.step([(row, time) for row in range(batch)])

    def positions(self, batch: int, time: int, device: torch.device) -> Tensor:
        """Places that follow what each row holds."""
        return self.begin(batch, time).positions(batch, time, device)

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Not by itself: `begin` makes the state of one forward pass."""
        raise AssertionError("call begin() or step() first")

    def rewind(self, row: int, length: int) -> None:
        """Forget what `row` holds beyond its first `length` tokens.

        Recurrent layers can only forget all of it: ask `can_rewind` before going back to elsewhere.
        """
        assert 0 <= length <= self.lengths[row]
        assert self.can_rewind or length in (0, self.lengths[row])
        self.lengths[row] = length
        for layer, shape in self.recurrent.items() if length == 0 else ():
            shape.restart(self.carried[layer], row)

    def free(self, row: int) -> None:
        """Forget all that `row` holds."""
        self.rewind(row, 0)


class DenseCache(RowCache):
    """Keys and values of `rows` texts, each with room for `capacity` tokens; or what layers carry.

    Memory is reserved at once and taken from the system only as tokens fill it.
    """

    def __init__(
        self,
        shapes: Sequence[CacheShape | CarriedShape],
        rows: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(shapes, rows, capacity, dtype, device)
        places = kept_shapes(shapes)
        self.keys = [
            zeros_untouched((rows, shape.heads, capacity, shape.key_width), dtype, device)
            for shape in places
        ]
        self.values = [
            zeros_untouched((rows, shape.heads, capacity, shape.value_width), dtype, device)
            for shape in places
        ]

    def step(
        self, work: Sequence[tuple[int, int]], lengths: Sequence[int] | None = None
    ) -> CacheStep:
        """The state of one forward pass over (row, count of new tokens) pairs, laid end to end."""
        return DenseStep(self, work, lengths)

    def copy_rows(self, rows: Sequence[int], sources: Sequence[int]) -> None:
        """Let each of `rows` hold what the row of `sources` beside it held until now."""
        lengths = [self.lengths[source] for source in sources]
        longest = max(lengths, default=0)
        into, origin = torch.tensor(rows), torch.tensor(sources)
        for kept in (*self.keys, *self.values):
            kept[into, :, :longest] = kept[origin, :, :longest]
        for carried in self.carried.values():
            for tensor in carried:
                tensor[into] = tensor[origin]
        for row, length in zip(rows, lengths, strict=True):
            self.lengths[row] = length

    def free(self, row: int) -> None:
        """Forget all that `row` holds."""
        for kept in (*self.keys, *self.values):
            kept[row, :, : self.lengths[row]] = 0  # a NaN would show through the next text's mask
        super().free(row)


@dataclass
class Group:
    """Rows that take the same number of tokens in a step, attended to together.

    n rows, C tokens each.
    """

    rows: slice | Tensor
    row_index: Tensor  # (n,)
    tokens: slice | Tensor  # which of the N tokens of the step
    index: Tensor  # (n, C): place of each token in its row
    start: int | None  # the place of the first token, when it is the same in every row
    longest: int  # places to read: the longest row, its new tokens counted


class CacheStep(State):
    """One forward pass over some rows of a cache; the cache's lengths move on at its `end`.

    It attends with PyTorch's operators to what `keep` gives it.
    """

    keeps = True

    def __init__(
        self,
        cache: RowCache,
        work: Sequence[tuple[int, int]],
        lengths: Sequence[int] | None = None,
    ) -> None:
        self.cache, self.work, self.can_rewind = cache, work, cache.can_rewind
        held = [cache.lengths[row] + count for row, count in work]
        for (row, _), length in zip(work, held, strict=True):
            if length > cache.capacity:
                raise ValueError(
                    f"row {row} would hold {length} tokens but the cache has room for "
                    f"{cache.capacity}: make it with a larger capacity"
                )
        self.held = held if lengths is None else list(map(max, held, lengths))
        self._visible: dict[tuple[object, ...], Tensor | None] = {}

    @cached_property
    def groups(self) -> list[Group]:
        """The rows by the number of tokens they take."""
        return [self._group(count) for count in sorted({count for _, count in self.work})]

    def positions(self, batch: int, time: int, device: torch.device) -> Tensor:
        """Places that follow what each row holds, in the order of the work."""
        lengths = self.cache.lengths
        places = [torch.arange(lengths[row], lengths[row] + count) for row, count in self.work]
        return torch.cat(places).to(device).view(batch, time)

    def text_lengths(self, positions: Tensor) -> Tensor:
        """How long the text of each token is, (B, T)."""
        counts = torch.tensor([count for _, count in self.work])
        return torch.tensor(self.held).repeat_interleave(counts).view_as(positions)

    @abstractmethod
    def keep(self, layer: int, group: Group, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write new `key`, `value` (n, K, C, W) to their places; all that the rows hold now.

        Both (n, K, S, W), finite everywhere; places past a row's end are hidden by the caller.
        """

    def attend(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        """Keep the new keys and values, then mix for each group of rows."""
        shape = query.shape
        query, key, value = (heads.flatten(0, 1) for heads in (query, key, value))  # (N, H, W)
        if len(self.groups) == 1:
            mixed = self._attend_group(self.groups[0], layer, query, key, value, scoring)
        else:
            mixed = value.new_empty(*query.shape[:-1], value.shape[-1])
            for group in self.groups:
                mixed[group.tokens] = self._attend_group(
                    group,
                    layer,
                    query[group.tokens],
                    key[group.tokens],
                    value[group.tokens],
                    scoring,
                )
        return mixed.view(*shape[:-1], value.shape[-1])

    def scan(self, mixer: Recurrence, inputs: Tensor) -> Tensor:
        """Run a recurrent layer on from what each row carries."""
        parts, tokens = inputs.flatten(0, 1), []  # (N, ...)
        kept = self.cache.carried[mixer.layer]
        for group in self.groups:
            part = parts[group.tokens].unflatten(0, group.index.shape)  # (n, C, ...)
            before = tuple(tensor[group.rows] for tensor in kept)
            outputs, after = mixer.recur(part, before, None)
            keep(kept, group.rows, after)
            tokens.append(outputs.flatten(0, 1))
        if len(tokens) == 1:
            return tokens[0].unflatten(0, inputs.shape[:2])
        mixed = tokens[0].new_empty(parts.shape[0], *tokens[0].shape[1:])
        for group, outputs in zip(self.groups, tokens, strict=True):
            mixed[group.tokens] = outputs
        return mixed.unflatten(0, inputs.shape[:2])

    def end(self) -> None:
        """The rows have grown by their counts."""
        for row, count in self.work:
            self.cache.lengths[row] += count

    def _attend_group(
        self, group: Group, layer: int, query: Tensor, key: Tensor, value: Tensor, scoring: Scoring
    ) -> Tensor:
        rows, count = group.index.shape
        query, key, value = (
            heads.view(rows, count, *heads.shape[1:]).transpose(1, 2)
            for heads in (query, key, value)
        )  # (n, H, C, W)
        keys, values = self.keep(layer, group, key, value)
        places = torch.arange(group.longest, device=query.device)[None]  # (1, S)
        bias = None if scoring.bias is None else scoring.bias(group.index, places)
        whole = group.start == 0 and scoring.window is None and scoring.pattern is None
        if whole and bias is None and scoring.causal:
            mixed = attention(query, keys, values, scoring, causal=count > 1)
        else:
            visible = self._visible_to(group, scoring, places)
            mixed = attention(query, keys, values, scoring, visible, bias)
        return mixed.transpose(1, 2).flatten(0, 1)  # (n * C, H, W)

    def _visible_to(self, group: Group, scoring: Scoring, places: Tensor) -> Tensor | None:
        """Which places each token sees, worked out once for all layers that score alike."""
        one = group.index.shape[1] == 1 and group.start is not None
        if one and scoring.window is None and scoring.pattern is None:
            return None  # a single new token sees everything that its row holds
        kind = (id(group), scoring.causal, scoring.window, scoring.pattern)
        if kind not in self._visible:
            self._visible[kind] = scoring.visible(group.index, places)
        return self._visible[kind]

    def _group(self, count: int) -> Group:
        device = self.cache.device
        rows, starts, tokens, offset = [], [], [], 0
        for row, taken in self.work:
            if taken == count:
                rows.append(row)
                starts.append(self.cache.lengths[row])
                tokens.append(offset)
            offset += taken
        index = torch.tensor(starts, device=device)[:, None] + torch.arange(count, device=device)
        taken_tokens = (torch.tensor(tokens)[:, None] + torch.arange(count)).flatten()
        return Group(
            rows=_slice_if_adjacent(rows, device),
            row_index=torch.tensor(rows, device=device),
            tokens=_slice_if_adjacent(taken_tokens.tolist(), device),
            index=index,
            start=starts[0] if len(set(starts)) == 1 else None,
            longest=max(starts) + count,
        )


class DenseStep(CacheStep):
    """One forward pass over some rows of a dense cache."""

    cache: DenseCache

    def keep(self, layer: int, group: Group, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write to the rows, and look at them where they lie."""
        keys = _keep(self.cache.keys[layer], group, key)
        kept = self.cache.values[layer]
        return keys, _keep(kept, group, value) if kept.shape[-1] else keys[..., : value.shape[-1]]


def _keep(kept: Tensor, group: Group, new: Tensor) -> Tensor:
    """Write `new` (n, K, C, W) to its places in `kept` (R, K, S, W); all that the rows now hold."""
    if group.start is not None and isinstance(group.rows, slice):
        kept[group.rows, :, group.start : group.start + new.shape[2]] = new
    else:
        kept[group.row_index[:, None], :, group.index] = new.transpose(1, 2)
    return kept[group.rows, :, : group.longest]


def _slice_if_adjacent(numbers: list[int], device: torch.device) -> slice | Tensor:
    """Numbers that follow one another as a slice, which reads without copying."""
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return slice(numbers[0], numbers[0] + len(numbers))
    return torch.tensor(numbers, device=device)


def kept_shapes(shapes: Sequence[CacheShape | CarriedShape]) -> list[CacheShape]:
    """What each layer keeps of a token; nothing for one that carries."""
    nothing = CacheShape(0, 0, 0)
    return [shape if isinstance(shape, CacheShape) else nothing for shape in shapes]


def zeros_untouched(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str
) -> Tensor:
    """Zeros whose pages the system hands out when first written.

    torch.zeros writes them all; a cache for a long context would take its gigabytes at once.
    Places past a row's end are read under a mask, so they must be finite: not torch.empty.
    """
    if torch.device(device).type != "cpu" or 0 in shape:
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(_untouched(prod(shape) * dtype.itemsize), dtype=dtype).view(shape)


def _untouched(size: int) -> mmap.mmap:
    """Bytes straight from the system."""
    if sys.platform == "win32":
        return mmap.mmap(-1, size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if sys.platform == "linux":
        # The first tokens of each layer would take a huge page, which is two megabytes.
        with suppress(OSError):  # where the kernel has none
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return memory
