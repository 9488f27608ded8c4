"""ARPA files: n-gram models as text, read by KenLM, SRILM and others.

Logarithms are to base 10. They are written with as many digits as give the same number back.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy
from numpy.typing import NDArray

from limner.models.ngram.model import NGramModel, Order
from limner.models.ngram.vocabulary import UNKNOWN, NGramVocabulary, split

#: N-grams made into text at once.
_BLOCK = 1 << 16


def write_arpa(model: NGramModel, path: Path) -> None:
    """Write the model as an ARPA file.

    Raises ValueError if a word holds white space, which the format cannot tell from its own.
    """
    for word in model.vocabulary.words:
        if split(word) != [word]:
            raise ValueError(f"an ARPA file cannot hold the word {word!r}: it has white space")
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\\data\\\n")
        for length, count in enumerate(model.counts, 1):
            file.write(f"ngram {length}={count}\n")
        for length in range(1, model.order + 1):
            file.write(f"\n\\{length}-grams:\n")
            _write_order(model, length, file)
        file.write("\n\\end\\\n")


def _write_order(model: NGramModel, length: int, file: TextIO) -> None:
    order, words = model.orders[length - 1], numpy.array(model.vocabulary.words, object)
    for at in range(0, len(order.keys), _BLOCK):
        numbers = numpy.arange(at, min(at + _BLOCK, len(order.keys)))
        ngrams = words[numpy.stack(_words(model, length, numbers), 1)].tolist()
        logarithms = order.logarithms[numbers].astype(str).tolist()
        lines = [f"{log}\t{' '.join(w)}" for log, w in zip(logarithms, ngrams, strict=True)]
        if length < model.order:
            backoffs = order.backoffs[numbers].astype(str).tolist()
            lines = [f"{line}\t{back}" for line, back in zip(lines, backoffs, strict=True)]
        file.write("\n".join(lines) + "\n")


def _words(model: NGramModel, length: int, numbers: NDArray[Any]) -> list[NDArray[Any]]:
    """The words of n-grams by their numbers, first word first."""
    words = []
    for order in reversed(model.orders[1:length]):
        numbers, word = numpy.divmod(order.keys[numbers], len(model.vocabulary))
        words.append(word)
    return [numbers, *reversed(words)]


@dataclass
class _Lines:
    """What the lines of one order say."""

    words: list[array[int]]
    logarithms: array[float] = field(default_factory=lambda: array("d"))
    backoffs: array[float] = field(default_factory=lambda: array("d"))


class _Reader:
    """Reads an ARPA file line by line; errors name the line."""

    def __init__(self, path: Path) -> None:
        self.path, self.number = path, 0

    def lines(self, file: TextIO) -> Iterator[str]:
        """Lines that are not empty."""
        for self.number, line in enumerate(file, 1):
            line = line.strip(" \t\r\n")
            if line:
                yield line

    def error(self, problem: str) -> ValueError:
        """What to raise when a line is wrong."""
        return ValueError(f"'{self.path}', line {self.number}: {problem}")

    def head(self, lines: Iterator[str]) -> list[int]:
        """The counts announced, up to the line of the first section."""
        counts: list[int] = []
        for line in lines:
            if line == "\\1-grams:":
                return counts
            if line.startswith("ngram "):
                counts.append(int(line.partition("=")[2]))
        raise self.error("the file ends before \\1-grams: it is no ARPA file or is cut short")

    def section(
        self, lines: Iterator[str], length: int, following: str, ids: dict[str, int]
    ) -> _Lines:
        """One order's n-grams, up to the line `following`."""
        found = _Lines([array("q") for _ in range(length)])
        for line in lines:
            if line == following:
                return found
            parts = split(line)
            if not length < len(parts) < length + 3:
                raise self.error(f"'{line}' is no {length}-gram: expected a number and its words")
            if length == 1:
                ids.setdefault(parts[1], len(ids))
            try:
                found.logarithms.append(float(parts[0]))
                found.backoffs.append(float(parts[-1]) if len(parts) == length + 2 else 0.0)
                for place, word in zip(found.words, parts[1 : length + 1], strict=True):
                    place.append(ids[word])
            except KeyError as unknown:
                raise self.error(f"the word {unknown} is not among the 1-grams") from unknown
            except ValueError as error:
                raise self.error(str(error)) from error
        raise self.error(f"the file ends before {following}: it is cut short")


def read_arpa(path: Path) -> NGramModel:
    """Read an ARPA file.

    A model without `<unk>` gets one of probability 10^-100, as KenLM does.

    Raises ValueError if the file is damaged or an n-gram's first words are no n-gram themselves.
    """
    ids: dict[str, int] = {}
    reader = _Reader(path)
    with path.open(encoding="utf-8", newline="\n") as file:
        lines = reader.lines(file)
        counts = reader.head(lines)
        sections = []
        for length, count in enumerate(counts, 1):
            following = f"\\{length + 1}-grams:" if length < len(counts) else "\\end\\"
            sections.append(reader.section(lines, length, following, ids))
            if len(sections[-1].logarithms) != count:
                found = len(sections[-1].logarithms)
                raise reader.error(f"{count} {length}-grams were announced but there are {found}")
    if UNKNOWN not in ids:
        ids[UNKNOWN] = len(ids)
        sections[0].words[0].append(ids[UNKNOWN])
        sections[0].logarithms.append(-100.0)
        sections[0].backoffs.append(0.0)
    vocabulary = NGramVocabulary(ids)
    orders: list[Order] = []
    for section in sections:
        orders.append(_order(section, orders, len(vocabulary), path))
    return NGramModel(vocabulary, orders)


def _order(lines: _Lines, below: list[Order], radix: int, path: Path) -> Order:
    words = [numpy.frombuffer(word, numpy.int64) if len(word) else numpy.zeros(0, numpy.int64)
             for word in lines.words]  # fmt: skip
    keys = words[0]
    for order, word in zip(below[1:], words[1:-1], strict=False):
        keys = order.find(keys * radix + word)
        if (keys < 0).any():
            raise ValueError(
                f"'{path}': a {len(words)}-gram's first words are no {len(words) - 1}-gram: "
                "the model was cut by a tool that leaves gaps; write it again without them"
            )
    keys = keys * radix + words[-1] if below else keys
    ascending = keys.argsort(kind="stable")
    return Order(
        keys[ascending],
        numpy.array(lines.logarithms, numpy.float32)[ascending],
        numpy.array(lines.backoffs, numpy.float32)[ascending],
    )
