"""Speculative decoding: a drafter guesses the next tokens cheaply, and one pass checks them all.

A pass over a few tokens costs little more than one over a single token, since both read all weights
once. So where guesses are mostly right, an answer takes fewer passes; and what is answered stays
the same (`limner.inference.rejection`).

How many tokens are guessed follows from how a sequence's guesses fared so far and from what more
tokens cost beside so many rows; often the best number is none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence as Many
from typing import Any

from torch import Tensor

from limner.inference.rejection import Guess
from limner.inference.sequence import Sequence

#: What one more token adds to a pass over one, measured with 8-bit weights on two cores (16 tokens
#: take 3.1 times as long as one).
TOKEN_COST = 0.14


class Drafter(ABC):
    """Guesses the tokens to come."""

    #: What a guessed token costs, in passes of the network over one token.
    cost: float = 0.0
    #: Whether `watch` wants to be called.
    watches: bool = False

    def prepare(self, network: Any, rows: int, capacity: int) -> None:
        """An engine with so many rows will ask; ValueError if the network is not to be guessed."""
        return  # most need nothing

    @abstractmethod
    def guess(self, asked: Many[tuple[Sequence, int]]) -> list[list[Guess]]:
        """Up to so many tokens that may follow each sequence, perhaps none.

        All that is known of a sequence but its last token is computed. Answers must not depend on
        who is asked beside whom.
        """

    def watch(self, places: Many[tuple[Sequence, int]], hidden: Tensor) -> None:
        """A pass is over: the `hidden` vectors (N, D) of the next tokens of sequences.

        `places` are sequences and how many of the N tokens are theirs.
        """
        return  # most need nothing


class Speculation:
    """Who guesses, and how many tokens.

    Args:
        drafter: who guesses.
        longest: tokens guessed at once at most.
        token_cost: what one more token adds to a pass over one token, as a share of it. Near 0
            where memory is the limit (a GPU), near 1 where arithmetic is.

    Raises ValueError for numbers that make no sense.
    """

    def __init__(
        self, drafter: Drafter, *, longest: int = 8, token_cost: float = TOKEN_COST
    ) -> None:
        if longest < 1:
            raise ValueError(f"longest must be 1 guessed token or more, not {longest}")
        if not 0 <= token_cost <= 1:
            raise ValueError(f"token_cost must be a share from 0 to 1, not {token_cost}")
        self.drafter, self.longest, self.token_cost = drafter, longest, token_cost

    def guess(self, asked: Many[tuple[Sequence, int]], rows: int) -> list[list[Guess]]:
        """Guesses of at most so many tokens for each sequence, in a step with `rows` answers."""
        lengths = [min(room, self._length(sequence, rows)) for sequence, room in asked]
        chosen = [(pair[0], length) for pair, length in zip(asked, lengths, strict=True) if length]
        found = iter(self.drafter.guess(chosen) if chosen else ())
        return [
            sound(sequence, next(found)) if length else []
            for (sequence, _), length in zip(asked, lengths, strict=True)
        ]

    def _length(self, sequence: Sequence, rows: int) -> int:
        record = sequence.record
        length = best_length(record.share, rows, self.longest, self.token_cost, self.drafter.cost)
        if not length:
            record.rest()
        return length


def best_length(share: float, rows: int, longest: int, token_cost: float, cost: float) -> int:
    """How many tokens to guess where a `share` of guesses is right, from 0 to `longest`.

    With n guesses a pass brings (1 - share^(n + 1)) / (1 - share) tokens on average (Leviathan et
    al. 2023, equation 1), and takes longer by their checking and their making (`cost` each).
    """
    checking = token_cost * rows / (1 + token_cost * (rows - 1))
    tokens, best, gain = 1.0, 0, 1.0
    for length in range(1, longest + 1):
        tokens += share**length
        if tokens / (1 + length * (checking + cost)) > gain:
            best, gain = length, tokens / (1 + length * (checking + cost))
    return best


def sound(sequence: Sequence, guesses: list[Guess]) -> list[Guess]:
    """The guesses up to the first that ends the answer or leaves its form."""
    tokens = [guess.token for guess in guesses]
    ends = [place + 1 for place, token in enumerate(tokens) if token in sequence.end_tokens]
    length = min(ends, default=len(tokens))
    if sequence.constraint is not None:
        length = sequence.constraint.valid(sequence.generated, tokens[:length])
    return guesses[:length]
