"""Which runs of tokens of some texts stand in a corpus too.

Runs are compared by 64-bit hashes, so what is held in memory grows with the texts, not the corpus.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from limner.data.corpus import Corpus

Hashes = NDArray[numpy.uint64]
#: Tokens of the corpus looked at together.
BLOCK = 1_000_000
#: Odd, so that multiplying loses nothing (Knuth's and Steele's constants).
MULTIPLIER, SCATTER = numpy.uint64(6364136223846793005), numpy.uint64(0x9E3779B97F4A7C15)


def run_hashes(tokens: NDArray[Any], length: int) -> Hashes:
    """A hash of each run of `length` of the `tokens` (T,), (T - length + 1,)."""
    count = max(len(tokens) - length + 1, 0)
    scattered = (tokens.astype(numpy.uint64) + numpy.uint64(1)) * SCATTER
    scattered ^= scattered >> numpy.uint64(32)
    hashes = numpy.zeros(count, numpy.uint64)
    for place in range(length):
        hashes = hashes * MULTIPLIER + scattered[place : place + count]
    return hashes


def places_in(wanted: Hashes, hashes: Hashes) -> NDArray[numpy.int64]:
    """Where in `wanted`, which are sorted, those of the `hashes` stand that are among them."""
    if not len(wanted):
        return numpy.zeros(0, numpy.int64)
    places = numpy.minimum(wanted.searchsorted(hashes), len(wanted) - 1)
    return places[wanted[places] == hashes]


def shared_runs(
    corpora: Iterable[Corpus], texts: Sequence[NDArray[Any]], length: int
) -> list[float]:
    """For each text the share of its runs of `length` tokens that stand in the corpora.

    A text that is shorter than that has none, and its share is 0.
    """
    runs = [numpy.unique(run_hashes(text, length)) for text in texts]
    wanted = numpy.unique(numpy.concatenate([numpy.zeros(0, numpy.uint64), *runs]))
    found = numpy.zeros(len(wanted), bool)
    for corpus in corpora:
        for start in range(0, len(corpus), BLOCK):
            tokens, _ = corpus.read(start, min(start + BLOCK + length - 1, len(corpus)))
            hashes = run_hashes(tokens, length)
            found[places_in(wanted, hashes)] = True
    seen = wanted[found]
    return [float(numpy.isin(own, seen).mean()) if len(own) else 0.0 for own in runs]
