"""Rows of tokens cut from a corpus, and the order they come in.

A row has T + 1 tokens: the token at place t + 1 is what the model is to predict at place t. Every
token of the corpus but the first of each document is such a target exactly once an epoch.

T time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy

from limner.data.corpus import Corpus, Integers

#: The document that padding belongs to.
NO_DOCUMENT = -1


class Row(NamedTuple):
    """A row, and the seed of whatever noise is put on it."""

    tokens: Integers  # (T + 1,); 0 at padding
    documents: Integers  # (T + 1,): which document each token is of, NO_DOCUMENT at padding
    seed: int


class Rows(Protocol):
    """Rows by their number, which may be cut otherwise each epoch."""

    @property
    def length(self) -> int:
        """Tokens of a row that are read, T."""
        ...

    def count(self, shift: float) -> int:
        """How many rows there are."""
        ...

    def cut(self, number: int, shift: float) -> tuple[Integers, Integers]:
        """Tokens and documents, each (T + 1,), of row `number`."""
        ...


@dataclass(frozen=True)
class PackedRows:
    """Documents laid end to end and cut every `length` tokens, so that no place is wasted.

    `shift` from 0 to 1 moves the cuts by that share of a row: what stood at a row's start, and so
    had nothing before it, stands inside a row in another epoch.
    """

    corpus: Corpus
    length: int

    def count(self, shift: float) -> int:
        """How many rows there are."""
        return max(-(-(len(self.corpus) - 1 + self._lead(shift)) // self.length), 0)

    def cut(self, number: int, shift: float) -> tuple[Integers, Integers]:
        """Tokens and documents of one row."""
        start = number * self.length - self._lead(shift)
        return _padded(self.corpus, max(start, 0), start + self.length + 1, self.length + 1)

    def _lead(self, shift: float) -> int:
        return int(shift * self.length)


class PaddedRows:
    """A document a row, filled up with padding; a longer one takes several rows.

    For objectives that read a text as a whole, and for models that cannot tell documents apart.
    """

    def __init__(self, corpus: Corpus, length: int) -> None:
        self.corpus, self.length = corpus, length
        self.ends = corpus.document_ends()
        self.starts = numpy.concatenate([numpy.zeros(1, numpy.int64), self.ends])[: len(self.ends)]
        pieces = numpy.maximum(-(-(self.ends - self.starts - 1) // length), 1)
        self.first_rows = numpy.cumsum(pieces) - pieces
        self.rows = int(pieces.sum())

    def count(self, shift: float) -> int:
        """How many rows there are; documents cannot be cut elsewhere, whatever the shift."""
        return self.rows

    def cut(self, number: int, shift: float) -> tuple[Integers, Integers]:
        """Tokens and documents of one row."""
        document = int(numpy.searchsorted(self.first_rows, number, side="right")) - 1
        row = number - int(self.first_rows[document])
        start = int(self.starts[document]) + row * self.length
        stop = min(start + self.length + 1, int(self.ends[document]))
        return _padded(self.corpus, start, stop, self.length + 1)


def _padded(corpus: Corpus, start: int, stop: int, size: int) -> tuple[Integers, Integers]:
    """Tokens `start` to `stop`, filled up to `size`."""
    tokens, documents = corpus.read(start, min(stop, len(corpus)))
    missing = size - len(tokens)
    if missing:
        tokens = numpy.pad(tokens, (0, missing))
        documents = numpy.pad(documents, (0, missing), constant_values=NO_DOCUMENT)
    return tokens, documents


class RowStream(Iterator[Row]):
    """Rows for ever, epoch after epoch, each epoch in an order of its own.

    The order depends on (seed, epoch) alone, so a stream whose state was loaded goes on with the
    very rows that would have followed.
    """

    def __init__(self, rows: Rows, seed: int = 0) -> None:
        if not rows.count(0.0):
            raise ValueError("the corpus has fewer than two tokens: there is nothing to predict")
        self.rows, self.seed = rows, seed
        self.epoch = self.given = 0
        self._order, self._shift = self._plan()

    def __next__(self) -> Row:
        if self.given == len(self._order):
            self.epoch, self.given = self.epoch + 1, 0
            self._order, self._shift = self._plan()
        number = int(self._order[self.given])
        self.given += 1
        return Row(*self.rows.cut(number, self._shift), noise_seed(self.seed, self.epoch, number))

    def _plan(self) -> tuple[Integers, float]:
        random = numpy.random.default_rng([self.seed, self.epoch])
        shift = float(random.random())
        return random.permutation(self.rows.count(shift)), shift

    def state_dict(self) -> dict[str, Any]:
        """Epoch, and rows given in it."""
        return {"seed": self.seed, "epoch": self.epoch, "given": self.given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; ValueError if the order was drawn from another seed."""
        if state["seed"] != self.seed:
            raise ValueError(
                f"the data was shuffled with seed {state['seed']}, not {self.seed}: "
                "go on with the same seed, or start anew in another folder"
            )
        self.epoch, self.given = state["epoch"], state["given"]
        self._order, self._shift = self._plan()


def in_order(rows: Rows, seed: int = 0) -> Iterator[Row]:
    """Every row once, in the order of the corpus; noise is the same each time."""
    for number in range(rows.count(0.0)):
        yield Row(*rows.cut(number, 0.0), noise_seed(seed, 0, number))


def noise_seed(*numbers: int) -> int:
    """A seed that depends on all of these, 64 bits."""
    return int(numpy.random.SeedSequence(numbers).generate_state(1, numpy.uint64)[0])
