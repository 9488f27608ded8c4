"""The text that a tokenizer learns from: all of it, or an even sample, piece by piece."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

#: Gives the documents anew each time; they are read two or three times.
Documents = Callable[[], Iterable[str]]
#: Called with (bytes of text read so far, whether that is all).
Progress = Callable[[int, bool], None]

#: Characters of a piece at most: little beside a sample, so that one huge document cannot fill it.
PIECE = 16_384
#: Pieces between two calls of a progress.
OFTEN = 64


@dataclass(frozen=True)
class Measure:
    """How much text there is."""

    size: int
    """bytes of UTF-8"""
    pieces: int
    characters: Counter[str]
    """how often each character occurs; empty if nobody asked"""


def pieces_of(documents: Iterable[str]) -> Iterator[str]:
    """The documents, those that are long cut into pieces after line ends or at least spaces."""
    for text in documents:
        start = 0
        while len(text) - start > PIECE:
            cut = start + PIECE
            places = (text.rfind(mark, start, cut) + 1 for mark in ("\n", " "))
            stop = next((place for place in places if place > start), cut)
            yield text[start:stop]
            start = stop
        if start < len(text):
            yield text[start:]


def measure(documents: Documents, characters: bool, progress: Progress | None = None) -> Measure:
    """Read all text once; ValueError if there is none."""
    size = count = 0
    found: Counter[str] = Counter()
    for piece in pieces_of(documents()):
        size += len(piece.encode())
        count += 1
        if characters:
            found.update(piece)
        if progress is not None and count % OFTEN == 0:
            progress(size, False)
    if not size:
        raise ValueError("there is no text to learn from")
    if progress is not None:
        progress(size, True)
    return Measure(size, count, found)


def sample(documents: Documents, size: int, limit: int) -> Iterator[str]:
    """Pieces of at most `limit` bytes together, spread evenly over all `size` bytes of the text."""
    share = min(limit / size, 1.0)
    seen = kept = 0
    for piece in pieces_of(documents()):
        length = len(piece.encode())
        seen += length
        if share == 1.0 or kept + length <= share * seen:
            kept += length
            yield piece
