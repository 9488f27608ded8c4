"""Sorting more n-grams than fit in memory: sorted runs on disk, merged block by block.

n n-grams, W columns of 64 bits that hold the words of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import DTypeLike, NDArray

Keys = NDArray[numpy.uint64]  # (W, n), compared from the first row on
Counts = NDArray[numpy.int64]  # (n,)
Integers = NDArray[numpy.int64]


class Packing:
    """How the words of an n-gram stand in columns of 64 bits, so that they sort as words do."""

    def __init__(self, vocabulary: int, order: int) -> None:
        self.order = order
        self.bits = max(1, (vocabulary - 1).bit_length())
        self.words_a_column = 64 // self.bits
        self.columns = -(-order // self.words_a_column)

    def pack(self, words: Sequence[NDArray[Any]]) -> Keys:
        """Columns (W, n) of words, each (n,), first word first."""
        keys = numpy.zeros((self.columns, len(words[0])), numpy.uint64)
        for place, word in enumerate(words):
            column, shift = self._place(place)
            keys[column] |= word.astype(numpy.uint64) << shift
        return keys

    def unpack(self, keys: Keys) -> list[Integers]:
        """The words, each (n,), of columns (W, n)."""
        mask = numpy.uint64((1 << self.bits) - 1)
        words = []
        for place in range(self.order):
            column, shift = self._place(place)
            words.append((keys[column] >> shift & mask).astype(numpy.int64))
        return words

    def _place(self, place: int) -> tuple[int, numpy.uint64]:
        column, inside = divmod(place, self.words_a_column)
        return column, numpy.uint64(64 - (inside + 1) * self.bits)


def sum_equal(keys: Keys, counts: Counts) -> tuple[Keys, Counts]:
    """Sort, and add the counts of equal n-grams."""
    order = keys[0].argsort() if len(keys) == 1 else numpy.lexsort(keys[::-1])
    keys, counts = keys[:, order], counts[order]
    new = numpy.ones(keys.shape[1], bool)
    new[1:] = (keys[:, 1:] != keys[:, :-1]).any(0)
    first = numpy.flatnonzero(new)
    return keys[:, first], numpy.add.reduceat(counts, first)


class ArrayFile:
    """An array on disk that grows at its end, then is read by memory map."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        self.path, self.dtype = path, numpy.dtype(dtype)
        self._file = path.open("wb")

    def __enter__(self) -> ArrayFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def append(self, values: NDArray[Any]) -> None:
        """Write `values` behind the others."""
        self._file.write(numpy.ascontiguousarray(values, self.dtype).data)

    def read(self) -> NDArray[Any]:
        """All that was written; nothing more can be. Changes stay in memory."""
        self._file.close()
        if self.path.stat().st_size == 0:
            return numpy.zeros(0, self.dtype)
        return numpy.memmap(self.path, self.dtype, "c")


class SortedCounts:
    """Distinct n-grams in order with their counts, on disk."""

    def __init__(self, folder: Path, name: str, columns: int) -> None:
        self._keys = [ArrayFile(folder / f"{name}.{n}", numpy.uint64) for n in range(columns)]
        self._counts = ArrayFile(folder / f"{name}.counts", numpy.int64)

    def append(self, keys: Keys, counts: Counts) -> None:
        """Write n-grams that follow those written."""
        for file, column in zip(self._keys, keys, strict=True):
            file.append(column)
        self._counts.append(counts)

    def close(self) -> None:
        """Everything is written: read from now on."""
        self.keys = [file.read() for file in self._keys]
        self.counts: Counts = self._counts.read()

    def __len__(self) -> int:
        return len(self.counts)

    def block(self, begin: int, end: int) -> tuple[Keys, Counts]:
        """N-grams `begin` to `end` (or as many as there are)."""
        keys = numpy.stack([column[begin:end] for column in self.keys])
        return keys, numpy.array(self.counts[begin:end])

    def remove(self) -> None:
        """Take the files away."""
        self.keys, self.counts = [], numpy.zeros(0, numpy.int64)
        for file in (*self._keys, self._counts):
            file.path.unlink()


class Sorter:
    """Takes n-grams in any order and gives them back sorted, equal ones added up."""

    def __init__(self, folder: Path, name: str, packing: Packing, rows: int) -> None:
        """`rows` n-grams at most are held in memory."""
        self.folder, self.name, self.packing, self.rows = folder, name, packing, rows
        self.runs: list[SortedCounts] = []
        self._waiting: list[tuple[Keys, Counts]] = []

    def add(self, keys: Keys, counts: Counts) -> None:
        """Take n-grams; a run is written when enough have come."""
        if sum(len(waiting) for _, waiting in self._waiting) + len(counts) > self.rows:
            self._write_run()
        self._waiting.append((keys, counts))

    def blocks(self) -> Iterator[tuple[Keys, Counts]]:
        """All n-grams, sorted and distinct, in blocks; the runs are removed after."""
        if not self.runs and self._waiting:
            yield self._take()  # all fitted in memory
            return
        self._write_run()
        yield from merge(self.runs, max(1, self.rows // max(1, len(self.runs))))
        for run in self.runs:
            run.remove()

    def _take(self) -> tuple[Keys, Counts]:
        waiting, self._waiting = self._waiting, []
        return sum_equal(
            numpy.concatenate([keys for keys, _ in waiting], axis=1),
            numpy.concatenate([counts for _, counts in waiting]),
        )

    def _write_run(self) -> None:
        if not self._waiting:
            return
        name = f"{self.name}.run{len(self.runs)}"
        run = SortedCounts(self.folder, name, self.packing.columns)
        run.append(*self._take())
        run.close()
        self.runs.append(run)


def merge(runs: Sequence[SortedCounts], rows: int) -> Iterator[tuple[Keys, Counts]]:
    """Merge sorted runs, `rows` n-grams of each at a time.

    Everything up to the least of the last n-grams at hand can be given out: what is not yet read
    comes after it in every run.
    """
    places = [0] * len(runs)
    while True:
        blocks = [run.block(at, at + rows) for run, at in zip(runs, places, strict=True)]
        unread = [
            tuple(int(column) for column in keys[:, -1])
            for run, at, (keys, counts) in zip(runs, places, blocks, strict=True)
            if at + len(counts) < len(run)
        ]
        taken = blocks
        if unread:
            bound = min(unread)
            sizes = [up_to(keys, bound) for keys, _ in blocks]
            taken = [(k[:, :n], c[:n]) for (k, c), n in zip(blocks, sizes, strict=True)]
        places = [at + len(counts) for at, (_, counts) in zip(places, taken, strict=True)]
        keys = numpy.concatenate([keys for keys, _ in taken], axis=1)
        if keys.shape[1]:
            yield sum_equal(keys, numpy.concatenate([counts for _, counts in taken]))
        if not unread:
            return


def up_to(keys: Keys, bound: Sequence[int]) -> int:
    """How many of the sorted `keys` (W, n) are not above `bound`."""
    low, high = 0, keys.shape[1]
    for column, number in zip(keys, bound, strict=True):
        part, value = column[low:high], numpy.uint64(number)
        low, high = (
            low + int(part.searchsorted(value)),
            low + int(part.searchsorted(value, "right")),
        )
    return high
