"""Guessing by a smaller model that knows the same tokens.

V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from limner.inference.randomness import uniform
from limner.inference.rejection import GUESS, Guess
from limner.inference.runner import Network, Runner
from limner.inference.sampler import invert, scored
from limner.inference.scheduler import Work
from limner.inference.sequence import Sequence
from limner.inference.speculation import Drafter
from limner.nn.paged import PAGE_SIZE

#: Tokens of a text that it catches up with in a step; until it has, it guesses nothing.
CATCHING_UP = 512


class DraftModel(Drafter):
    """Guesses what a smaller network would answer under the same settings.

    It keeps a cache of its own, which follows what the network's answers come to. Tokens are drawn
    with the same random numbers as the network's, so the same token is likely and the answer is the
    one without guesses. With `rejection`, they are drawn with other numbers and judged by the
    rejection rule: more are right (all but the difference of the two distributions), the
    distribution of answers is the same, but the answer to a seed is another one, and depends on how
    much was guessed.

    Args:
        network: the smaller network.
        cost: what one of its steps costs, as a share of one of the network's.
        rejection: draw with other random numbers than the network.
    """

    def __init__(self, network: Network, *, cost: float = 0.2, rejection: bool = False) -> None:
        self.network, self.cost, self.rejection = network, cost, rejection

    def prepare(self, network: Network, rows: int, capacity: int) -> None:
        """Make room for so many texts. Raises ValueError if the vocabularies differ."""
        own, other = self.network.config.vocabulary, network.config.vocabulary
        if own != other:
            raise ValueError(
                f"the draft model knows {own} tokens and the model {other}: a draft model must "
                "have the model's own tokens, as models of one family do"
            )
        self.capacity = min(capacity, self.network.config.context)
        each = -(-self.capacity // PAGE_SIZE)
        cache = self.network.new_paged_cache(rows, self.capacity, rows * each, PAGE_SIZE, None)
        if not cache.can_rewind:
            raise ValueError(
                "the draft model is recurrent and cannot take back what it guessed: use one "
                "that attends"
            )
        for row in range(rows):
            cache.give(row, range(1 + row * each, 1 + (row + 1) * each))
        self.runner, self.held = Runner(self.network, cache), [list[int]() for _ in range(rows)]

    @torch.inference_mode()
    def guess(self, asked: Many[tuple[Sequence, int]]) -> list[list[Guess]]:
        """Up to so many tokens for each sequence; none for one that it has yet to catch up with."""
        drafts = [self._draft(sequence, count) for sequence, count in asked]
        left, active = CATCHING_UP, list[_Draft]()
        for draft in drafts:
            if draft.wanted and draft.text.pending <= left:
                active.append(draft)
                left -= draft.text.pending
            elif draft.wanted and left:
                self._run([draft], left)
                left = 0
        while active:
            self._extend(active, self._run(active))
            active = [draft for draft in active if len(draft.guesses) < draft.wanted]
        return [draft.guesses for draft in drafts]

    def _draft(self, sequence: Sequence, count: int) -> _Draft:
        """What is in its cache of the sequence's text, and how many tokens there is room for."""
        assert sequence.row is not None
        held = self.held[sequence.row]
        same = common_length(held, sequence.tokens[:-1])
        del held[same:]
        self.runner.cache.rewind(sequence.row, same)
        quiet = replace(sequence.sampling, logprobs=None)
        text = replace(
            sequence, tokens=[*sequence.tokens], computed=same, sampling=quiet, adapter=None
        )
        return _Draft(text, max(0, min(count, self.capacity - len(text.tokens))))

    def _run(self, drafts: Many[_Draft], most: int = CATCHING_UP) -> Tensor:
        """Compute what is pending; the logits (R, V) after it."""
        work = []
        for draft in drafts:
            text, row = draft.text, draft.text.row
            assert row is not None
            count = min(text.pending, most)
            work.append(Work(text, row, count, draws=count == text.pending))
        logits = self.runner.run(work).logits
        for item in work:
            item.sequence.computed += item.count
            self.held[item.row][:] = item.sequence.tokens[: item.sequence.computed]
        return logits

    def _extend(self, drafts: Many[_Draft], logits: Tensor) -> None:
        """Guess one more token for each."""
        texts = [draft.text for draft in drafts]
        scores = scored(logits, texts).scores
        purpose = GUESS if self.rejection else 0
        numbers = torch.from_numpy(
            uniform(
                [t.seed for t in texts], [t.sample for t in texts], [len(t.tokens) for t in texts],
                purpose,
            )
        )  # fmt: skip
        drawn = invert(scores, numbers.to(scores.device)).tolist()
        best = scores.argmax(-1).tolist()
        for index, draft in enumerate(drafts):
            greedy = draft.text.sampling.greedy
            known = self.rejection and not greedy
            token = best[index] if greedy else drawn[index]
            if not scores[index].amax().isfinite():
                draft.wanted = len(draft.guesses)
                continue
            probabilities = scores[index].double().softmax(-1) if known else None
            draft.guesses.append(Guess(token, probabilities))
            draft.text.tokens.append(token)
            if token in draft.text.end_tokens:
                draft.wanted = len(draft.guesses)  # nothing comes after it, in no form


@dataclass
class _Draft:
    """A text with its guesses in the making."""

    text: Sequence
    wanted: int
    guesses: list[Guess] = field(default_factory=list)


def common_length(one: Many[int], other: Many[int]) -> int:
    """How many tokens two texts begin with alike."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return next(place for place in range(length) if one[place] != other[place])
