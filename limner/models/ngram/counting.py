"""Counts as modified Kneser-Ney smoothing needs them (Chen and Goodman 1998; Heafield et al. 2013).

Only the longest n-grams are counted from the text. Sorted by their last word, then the one before
it and so on, they show each shorter n-gram together with all words that stand before it.

N order of the model, k order at hand, n n-grams.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from limner.models.ngram.sorting import (
    ArrayFile,
    Counts,
    Integers,
    Packing,
    SortedCounts,
    Sorter,
)

#: Tokens written to disk at once.
_TOKENS = 1 << 20


def write_tokens(
    sentences: Iterable[Sequence[int]], begin: int, end: int, folder: Path
) -> NDArray[numpy.uint32]:
    """All sentences laid end to end on disk, each between `begin` and `end`."""
    waiting = array("I")
    with ArrayFile(folder / "tokens", numpy.uint32) as file:
        for sentence in sentences:
            waiting.append(begin)
            waiting.extend(sentence)
            waiting.append(end)
            if len(waiting) > _TOKENS:
                file.append(numpy.array(waiting))
                waiting = array("I")
        file.append(numpy.array(waiting, numpy.uint32))
    return file.read()


def adjusted_counts(
    tokens: NDArray[numpy.uint32], begin: int, vocabulary: int, order: int, rows: int, folder: Path
) -> list[SortedCounts]:
    """For each order, its n-grams in order of their words, with the counts that smoothing takes.

    The longest n-grams, and those that begin a sentence, have their counts in the text; all others
    the number of distinct words found before them. `rows` n-grams are held in memory at once.
    """
    packing = Packing(vocabulary, order)
    by_last_word = Sorter(folder, "backwards", packing, rows)
    for words in backward_ngrams(tokens, begin, order, rows):
        by_last_word.add(packing.pack(words), numpy.ones(len(words[0]), numpy.int64))
    sorters = [
        Sorter(folder, f"order{k}", Packing(vocabulary, k), rows // order)
        for k in range(1, order + 1)
    ]
    before = [numpy.full(1, -1)] * order
    for keys, counts in by_last_word.blocks():
        words = packing.unpack(keys)
        for sorter, part in zip(sorters, _shorter(words, counts, before, begin), strict=True):
            sorter.add(sorter.packing.pack(part[0]), part[1])
        before = [word[-1:] for word in words]
    return [_written(sorter, folder) for sorter in sorters]


def backward_ngrams(
    tokens: NDArray[numpy.uint32], begin: int, order: int, rows: int
) -> Iterator[list[Integers]]:
    """The n-gram that ends at each token but the `begin`s, last word first; N arrays a block.

    Before the beginning of its sentence there is nothing but `begin`.
    """
    at = 0
    while at < len(tokens):
        block = _whole_sentences(tokens, at, rows, begin)
        at += len(block)
        index = numpy.arange(len(block))
        place = index - numpy.maximum.accumulate(numpy.where(block == begin, index, 0))
        inside = numpy.flatnonzero(place)
        place = place[inside]
        yield [
            numpy.where(place >= back, block[numpy.maximum(inside - back, 0)], begin)
            for back in range(order)
        ]


def _whole_sentences(tokens: NDArray[Any], at: int, rows: int, begin: int) -> Integers:
    """About `rows` tokens from `at` on, ending where a sentence does."""
    block = tokens[at : at + rows].astype(numpy.int64)
    if at + rows >= len(tokens):
        return block
    starts = numpy.flatnonzero(block == begin)
    if len(starts) > 1:
        return block[: starts[-1]]
    return _whole_sentences(tokens, at, 2 * rows, begin)  # a sentence longer than the block


def _shorter(
    words: list[Integers], counts: Counts, before: list[Integers], begin: int
) -> Iterator[tuple[list[Integers], Counts]]:
    """For each order, the n-grams of a sorted block (first word first) and their adjusted counts.

    An n-gram at the edge of a block may come again in the next: its counts add up later.
    `before` holds the words of the row that the block follows.
    """
    same = numpy.ones(len(counts), bool)
    new: list[NDArray[numpy.bool_]] = []  # whether a row's last k words differ from the row before
    for word, last in zip(words, before, strict=True):
        same = same & (word == numpy.concatenate((last, word[:-1])))
        new.append(~same)
    for k in range(1, len(words) + 1):
        edges = new[k - 1].copy()
        edges[0] = True
        first = numpy.flatnonzero(edges)
        longer = counts if k == len(words) else new[k].astype(numpy.int64)
        values = numpy.where(words[k - 1] == begin, counts, longer)
        sums = numpy.add.reduceat(values, first)
        real = words[k - 2][first] != begin if k > 1 else numpy.ones(len(first), bool)
        yield [word[first[real]] for word in words[k - 1 :: -1]], sums[real]


def _written(sorter: Sorter, folder: Path) -> SortedCounts:
    counts = SortedCounts(folder, sorter.name, sorter.packing.columns)
    for block in sorter.blocks():
        counts.append(*block)
    counts.close()
    return counts
