"""Guessing by the network's own predictors (multi-token prediction, DeepSeek-V3, section 2.2).

T time, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass

import torch
from torch import Tensor

from limner.inference.rejection import Guess
from limner.inference.sequence import Sequence
from limner.inference.speculation import Drafter
from limner.models.decoder import Decoder
from limner.nn.state import Documents

#: How many places the predictors look back. They see little of a text, but need no cache: what
#: they know of a text begun by another (a shared prefix) is at first nothing.
LOOK_BACK = 32


class DraftHeads(Drafter):
    """Guesses the most probable tokens of the predictors, each going on from the one before.

    Past its last predictor a network goes on with that one.

    Args:
        cost: what a predictor's step costs, as a share of one of the network's.
    """

    watches = True

    def __init__(self, *, cost: float = 0.1) -> None:
        self.cost = cost

    def prepare(self, network: Decoder, rows: int, capacity: int) -> None:
        """Raises ValueError if the network has no predictors."""
        if not len(network.predictors):
            raise ValueError(
                "the model has no heads that predict further than the next token: guess by prompt "
                "lookup or with a draft model"
            )
        self.network, self.seen = network, dict[int, _Seen]()

    def watch(self, places: Many[tuple[Sequence, int]], hidden: Tensor) -> None:
        """Keep the last `hidden` vectors (N, D) of each sequence."""
        parts = hidden.split([count for _, count in places])
        for (sequence, _), part in zip(places, parts, strict=True):
            assert sequence.row is not None
            seen = self.seen.get(sequence.row)
            before = part[:0]
            if seen is not None and seen.sequence is sequence:
                before = seen.up_to(sequence.computed)
            joined = torch.cat((before, part))[-2 * LOOK_BACK :]
            end = sequence.computed + len(part)
            self.seen[sequence.row] = _Seen(sequence, end - len(joined), joined)

    @torch.inference_mode()
    def guess(self, asked: Many[tuple[Sequence, int]]) -> list[list[Guess]]:
        """Up to so many tokens that may follow each sequence."""
        return [self._guess(sequence, count) for sequence, count in asked]

    def _guess(self, sequence: Sequence, count: int) -> list[Guess]:
        seen = self.seen.get(sequence.row) if sequence.row is not None else None
        if seen is None or seen.sequence is not sequence:
            return []
        hidden = seen.up_to(sequence.computed)[None, -LOOK_BACK:].clone()  # (1, T, D)
        if not hidden.shape[1]:
            return []
        start = sequence.computed - hidden.shape[1]
        tokens, guesses = sequence.tokens[start + 1 :], list[Guess]()
        for depth in range(count):
            predictor = min(depth, len(self.network.predictors) - 1)
            following = torch.tensor([tokens], device=hidden.device)  # (1, T)
            hidden = self.network.ahead(hidden, following, predictor, Documents())
            token = int(self.network.head(hidden[:, -1:])[0, -1].argmax())
            tokens = [*tokens[1:], token]
            guesses.append(Guess(token))
        return guesses


@dataclass(frozen=True)
class _Seen:
    """Hidden vectors (T, D) of the places of a sequence from `start` on."""

    sequence: Sequence
    start: int
    hidden: Tensor

    def up_to(self, end: int) -> Tensor:
        """Those before place `end`; none if there is a gap before it."""
        if end > self.start + len(self.hidden):
            return self.hidden[:0]
        return self.hidden[: max(0, end - self.start)]
