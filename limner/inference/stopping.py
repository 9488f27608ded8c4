"""The text of an answer as it grows, and the strings that end it.

The room speaks token ids; text comes from the decoder that a request brings along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class TextDecoder(Protocol):
    """Turns tokens into text as they arrive (`limner.tokenizers` has it); one for each answer."""

    def push(self, token_id: int, /) -> str:
        """Take one token; return the text that it completes, perhaps none."""
        ...

    def finish(self) -> str:
        """The text of what is not yet complete."""
        ...


class StopStrings:
    """Finds the end of a text that arrives in pieces.

    Text that may yet turn out to begin a stop string is held back. The string that is complete
    first ends the text, and of two that end at the same character the longer one: so the outcome
    does not depend on how the text was cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self._longest = max(map(len, stops), default=0)
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """Take a piece; return the text that is certain. Sets `found` when the text has ended."""
        text = self._held + piece
        ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in self._stops]
        matches = [(end, start) for end, start in ends if start >= 0]
        if matches:
            self.found, self._held = True, ""
            return text[: min(matches)[1]]
        certain = len(text) - self._undecided(text)
        self._held = text[certain:]
        return text[:certain]

    def finish(self) -> str:
        """No more will come: the text that was held back."""
        held, self._held = self._held, ""
        return held

    def _undecided(self, text: str) -> int:
        """How many characters at the end of the text may begin a stop string."""
        for size in range(min(len(text), self._longest - 1), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stops):
                return size
        return 0


class Transcript:
    """The text of one answer; without a decoder it stays empty."""

    def __init__(self, decoder: TextDecoder | None, stops: Sequence[str]) -> None:
        self._decoder = decoder
        self._stops = StopStrings(stops)

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the text."""
        return self._stops.found

    def push(self, token: int) -> str:
        """The text that a token adds for certain, up to a stop string."""
        return self._stops.push(self._decoder.push(token)) if self._decoder else ""

    def finish(self) -> str:
        """What was held back, unless the text has ended before it."""
        if self._decoder is None or self.stopped:
            return ""
        return self._stops.push(self._decoder.finish()) + self._stops.finish()
