"""Reading an answer that arrives in pieces as if it stood still.

A parser is a coroutine that asks for one character at a time. So what it makes of an answer cannot
depend on how the answer was cut into pieces.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

Result = TypeVar("Result")
Reading = Generator[None, str, Result]
"""A coroutine that is sent characters, and "" when there are no more."""

SPACE = " \t\r\n"


class EndedError(Exception):
    """The answer has ended."""


class NoCallError(Exception):
    """What looked like a call is none."""


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Text of the answer that belongs to no call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallPiece:
    """What is new of a call: the first piece of each names the function."""

    call: int
    """The first call of an answer is 0."""
    name: str | None = None
    arguments: str = ""
    """Further text of the JSON object of arguments."""


Piece = TextPiece | CallPiece


class Writer:
    """Collects the pieces that a parser finds."""

    def __init__(self) -> None:
        self.calls = 0
        self._pieces: list[Piece] = []

    def text(self, text: str) -> None:
        """Text outside of calls."""
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, TextPiece):
            self._pieces[-1] = TextPiece(last.text + text)
        elif text:
            self._pieces.append(TextPiece(text))

    def begin(self, name: str) -> None:
        """A call begins."""
        self._pieces.append(CallPiece(self.calls, name))
        self.calls += 1

    def arguments(self, text: str) -> None:
        """More of the latest call's arguments."""
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, CallPiece):
            self._pieces[-1] = replace(last, arguments=last.arguments + text)
        elif text:
            self._pieces.append(CallPiece(self.calls - 1, arguments=text))

    def take(self) -> list[Piece]:
        """What was found since the last time."""
        pieces, self._pieces = self._pieces, []
        return pieces


class Source:
    """The characters of an answer. Every method is a coroutine; raises EndedError at the end."""

    def __init__(self) -> None:
        self._returned = ""
        self._ended = False
        self.read = ""
        """What was read since `mark`."""

    def mark(self) -> None:
        """Begin to remember what is read."""
        self.read = ""

    def give_back(self, text: str) -> None:
        """What was read last is to be read again."""
        self._returned = text + self._returned
        self.read = self.read[: len(self.read) - len(text)]

    def next(self) -> Reading[str]:
        """The next character."""
        if self._returned:
            character, self._returned = self._returned[0], self._returned[1:]
        elif self._ended:
            raise EndedError
        else:
            character = yield
        if not character:
            self._ended = True
            raise EndedError
        self.read += character
        return character

    def next_word(self) -> Reading[str]:
        """The next character that is no space."""
        while True:
            character = yield from self.next()
            if character not in SPACE:
                return character

    def expect(self, text: str) -> Reading[bool]:
        """Take `text` if it stands next."""
        taken = ""
        for wanted in text:
            try:
                character = yield from self.next()
            except EndedError:
                self.give_back(taken)
                return False
            taken += character
            if character != wanted:
                self.give_back(taken)
                return False
        return True

    def until(self, *marks: str) -> Reading[tuple[str, str]]:
        """The text before the first of `marks`, and which it is."""
        text = ""
        while True:
            text += yield from self.next()
            for mark in marks:
                if text.endswith(mark):
                    return text.removesuffix(mark), mark

    def string(self) -> Reading[str]:
        """The JSON string whose opening quote was read. Raises NoCallError if it is none."""
        raw = '"'
        while True:
            character = yield from self.next()
            raw += character
            if character == "\\":
                raw += yield from self.next()
            elif character == '"':
                return _parsed(raw)


def _parsed(raw: str) -> str:
    try:
        return str(json.loads(raw, strict=False))
    except json.JSONDecodeError:
        raise NoCallError from None


def text_until(source: Source, writer: Writer, *marks: str) -> Reading[tuple[str, str]]:
    """Write text until one of `marks` stands there; returns the space before it, and the mark.

    Space before a mark, and after the last call, is no text.
    """
    held = ""
    try:
        while True:
            held += yield from source.next()
            for mark in marks:
                if held.endswith(mark):
                    before = held.removesuffix(mark)
                    text = before.rstrip(SPACE)
                    writer.text(text)
                    return before[len(text) :], mark
            certain = held[: len(held) - _undecided(held, marks)].rstrip(SPACE)
            writer.text(certain)
            held = held[len(certain) :]
    except EndedError:
        writer.text(held.rstrip(SPACE) if writer.calls else held)
        raise


def _undecided(text: str, marks: Sequence[str]) -> int:
    """How many characters at the end of a text may begin a mark."""
    longest = max((len(mark) for mark in marks), default=1) - 1
    for size in range(min(longest, len(text)), 0, -1):
        if any(mark.startswith(text[-size:]) for mark in marks):
            return size
    return 0
