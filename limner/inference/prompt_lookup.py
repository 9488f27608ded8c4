"""Guessing by looking back: what followed the last tokens when they stood in the text before.

Answers often repeat their prompt: summaries, corrections, code, names (Saxena 2023, prompt lookup
decoding, https://github.com/apoorvumang/prompt-lookup-decoding).
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence as Many

from limner.inference.rejection import Guess
from limner.inference.sequence import Sequence
from limner.inference.speculation import Drafter

#: The last so many tokens are sought, the longest run first.
LONGEST, SHORTEST = 4, 2


class PromptLookup(Drafter):
    """Guesses what came after the latest place where the text's last tokens stood before."""

    def __init__(self, longest: int = LONGEST, shortest: int = SHORTEST) -> None:
        if not 1 <= shortest <= longest:
            raise ValueError(
                f"prompt lookup seeks runs of {shortest} to {longest} tokens: the shortest must be "
                "1 or more and not above the longest"
            )
        self.sizes = range(longest, shortest - 1, -1)
        self._indices: weakref.WeakKeyDictionary[Sequence, Index] = weakref.WeakKeyDictionary()

    def guess(self, asked: Many[tuple[Sequence, int]]) -> list[list[Guess]]:
        """Up to so many tokens that may follow each sequence; none where nothing is found."""
        return [[Guess(token) for token in self._look(*request)] for request in asked]

    def _look(self, sequence: Sequence, count: int) -> list[int]:
        index = self._indices.get(sequence)
        if index is None:
            index = self._indices[sequence] = Index(self.sizes)
        index.read(sequence.tokens)
        return index.following(sequence.tokens, count)


class Index:
    """Where each run of tokens ends for the last time, the end of the text not counted."""

    def __init__(self, sizes: Many[int]) -> None:
        self._ends: dict[tuple[int, ...], int] = {}
        self._sizes, self._read = sizes, 0

    def read(self, tokens: Many[int]) -> None:
        """Take in what is new of a text that only grows."""
        for end in range(self._read + 1, len(tokens)):
            for size in self._sizes:
                if size <= end:
                    self._ends[tuple(tokens[end - size : end])] = end
        self._read = max(self._read, len(tokens) - 1)

    def following(self, tokens: Many[int], count: int) -> list[int]:
        """Up to `count` tokens that followed the longest known run; a loop goes round."""
        for size in self._sizes:
            end = self._ends.get(tuple(tokens[-size:])) if size <= len(tokens) else None
            if end is not None:
                period = len(tokens) - end
                return [tokens[end + place % period] for place in range(count)]
        return []
