"""Interpolated modified Kneser-Ney probabilities from adjusted counts (Chen and Goodman 1998).

p(w | h) = (c(h w) - D(c(h w))) / c(h) + gamma(h) p(w | h without its first word), where D is one of
three discounts by count and gamma(h) the mass they take; the last step down is to all words alike.

n n-grams of order k, c contexts (their words but the last).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
from numpy.typing import NDArray

from limner.models.ngram.model import NGramModel, Order
from limner.models.ngram.sorting import ArrayFile, Counts, Integers, Packing, SortedCounts
from limner.models.ngram.vocabulary import NGramVocabulary

log = logging.getLogger(__name__)

#: For counts of 1, 2 and more, where a small corpus gives none (as KenLM's --discount_fallback).
FALLBACK = (0.5, 1.0, 1.5)

Floats = NDArray[numpy.float64]


def discounts(counts: Counts, order: int) -> Floats:
    """What is taken off counts of 0, 1, 2, and 3 or more, (4,)."""
    n1, n2, n3, n4 = (int((counts == number).sum()) for number in (1, 2, 3, 4))
    if n1 and n2 and n3:
        y = n1 / (n1 + 2 * n2)
        found = (1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3)
        if all(0 < discount <= most for most, discount in enumerate(found, 1)):
            return numpy.array((0.0, *found))
    log.warning(
        "%d-grams: %s of them count 1, 2, 3 and 4, which gives no discounts; using %s",
        order,
        (n1, n2, n3, n4),
        FALLBACK,
    )
    return numpy.array((0.0, *FALLBACK))


def smooth(
    vocabulary: NGramVocabulary, counts: list[SortedCounts], rows: int, folder: Path
) -> NGramModel:
    """The model of these adjusted counts; its arrays are files in `folder`, read by memory map."""
    lowest, probabilities = _unigrams(vocabulary, counts[0])
    orders, links = [lowest], numpy.zeros(len(vocabulary), numpy.int64)
    for sorted_counts in counts[1:]:
        level = _Level(vocabulary, orders, folder)
        order, probabilities, links = level.smooth(sorted_counts, probabilities, links, rows)
        orders.append(order)
    return NGramModel(vocabulary, orders)


def _unigrams(vocabulary: NGramVocabulary, counted: SortedCounts) -> tuple[Order, Floats]:
    """Words share what discounts take alike, `<unk>` and words never seen among them."""
    found, counts = counted.block(0, len(counted))
    discount = discounts(counts, 1)
    total = counts.sum()
    taken = discount[numpy.minimum(counts, 3)]
    probabilities = numpy.full(len(vocabulary), taken.sum() / total / (len(vocabulary) - 1))
    (words,) = Packing(len(vocabulary), 1).unpack(found)
    probabilities[words] += (counts - taken) / total
    logarithms = numpy.log10(probabilities).astype(numpy.float32)
    logarithms[vocabulary.begin] = 0.0  # given, never predicted
    backoffs = numpy.zeros(len(vocabulary), numpy.float32)
    keys = numpy.arange(len(vocabulary), dtype=numpy.int64)
    return Order(keys, logarithms, backoffs), probabilities


@dataclass(frozen=True)
class _Contexts:
    """Some n-grams that share contexts: where each context begins, and its words."""

    words: list[Integers]  # k of (n,)
    counts: Counts  # (n,)
    first: Integers  # (c,)

    @property
    def sizes(self) -> Integers:
        """How many n-grams each context has, (c,)."""
        return numpy.diff(self.first, append=len(self.counts))


class _Level:
    """One order above those that are smoothed already."""

    def __init__(self, vocabulary: NGramVocabulary, below: list[Order], folder: Path) -> None:
        self.below, self.radix = below, len(vocabulary)
        self.packing = Packing(self.radix, len(below) + 1)
        name = f"smoothed{len(below) + 1}"
        self.keys = ArrayFile(folder / f"{name}.keys", numpy.int64)
        self.links = ArrayFile(folder / f"{name}.links", numpy.int64)
        self.probabilities = ArrayFile(folder / f"{name}.probabilities", numpy.float64)
        self.logarithms = ArrayFile(folder / f"{name}.logarithms", numpy.float32)

    def smooth(
        self, counted: SortedCounts, lower: Floats, links: Integers, rows: int
    ) -> tuple[Order, Floats, Integers]:
        """The order, its probabilities, and each n-gram's number without its first word.

        `lower` and `links` are the same of the order below, whose backoffs are filled in.
        """
        discount = discounts(counted.counts, self.packing.order)
        below = self.below[-1]
        for contexts in self._blocks(counted, rows):
            numbers = self._numbers(contexts)
            gamma, own = _discounted(contexts, discount)
            below.backoffs[numbers] = numpy.log10(gamma)
            prefix, word = numbers.repeat(contexts.sizes), contexts.words[-1]
            shorter = links[prefix] * self.radix + word if len(self.below) > 1 else word
            link = below.keys.searchsorted(shorter)
            probability = own + gamma.repeat(contexts.sizes) * lower[link]
            self.keys.append(prefix * self.radix + word)
            self.links.append(link)
            self.probabilities.append(probability)
            self.logarithms.append(numpy.log10(probability))
        keys = self.keys.read()
        order = Order(keys, self.logarithms.read(), numpy.zeros(len(keys), numpy.float32))
        return order, self.probabilities.read(), self.links.read()

    def _blocks(self, counted: SortedCounts, rows: int) -> Iterator[_Contexts]:
        """All n-grams in order, about `rows` at a time; a context is never cut in two."""
        at = 0
        size = rows
        while at < len(counted):
            keys, counts = counted.block(at, at + size)
            words = self.packing.unpack(keys)
            new = numpy.ones(len(counts), bool)
            new[1:] = numpy.any([word[1:] != word[:-1] for word in words[:-1]], axis=0)
            first = numpy.flatnonzero(new)
            if at + len(counts) < len(counted):
                if len(first) == 1:
                    size *= 2  # one context alone is larger than the block
                    continue
                end, first = first[-1], first[:-1]
                words, counts = [word[:end] for word in words], counts[:end]
            yield _Contexts(words, counts, first)
            at, size = at + len(counts), rows

    def _numbers(self, contexts: _Contexts) -> Integers:
        """The number of each context among the n-grams of the order below, (c,)."""
        number = contexts.words[0][contexts.first]
        for order, word in zip(self.below[1:], contexts.words[1:-1], strict=True):
            number = order.keys.searchsorted(number * self.radix + word[contexts.first])
        return number


def _discounted(contexts: _Contexts, discount: Floats) -> tuple[Floats, Floats]:
    """The mass that each context loses, (c,), and what each n-gram keeps, (n,)."""
    totals = numpy.add.reduceat(contexts.counts, contexts.first)
    taken = discount[numpy.minimum(contexts.counts, 3)]
    gamma = numpy.add.reduceat(taken, contexts.first) / totals
    return gamma, (contexts.counts - taken) / totals.repeat(contexts.sizes)
