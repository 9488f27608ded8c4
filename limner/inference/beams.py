"""Beam search: several beginnings are followed at once, and the best whole text is kept.

B sources, R rows, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from limner.inference.sequence_to_sequence import Writer, next_logits
from limner.nn.memory import Remembering


class Beam(NamedTuple):
    """A text, and the sum of the log-probabilities of its tokens.

    Of a finished text the score is that sum divided by a power of its length.
    """

    tokens: list[int]
    score: float


class Candidate(NamedTuple):
    """A beam by its place among those that run, and a token that may follow it."""

    beam: int
    token: int
    score: float


@dataclass(frozen=True, kw_only=True)
class BeamSettings:
    """How the search is done; names and meanings are those of transformers.

    `num_beams` texts are followed. The score of a finished one is divided by its length to the
    power `length_penalty`: above 0 favours long texts. `early_stopping` True stops at `num_beams`
    finished texts; False when the best that runs could not be better if it ended now; "never" when
    it could not at any length. `no_repeat_ngram_size` forbids to repeat that many tokens; `banned`
    tokens are not written.
    """

    num_beams: int = 4
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    no_repeat_ngram_size: int = 0
    banned: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.num_beams < 1:
            raise ValueError(f"num_beams must be 1 or more, not {self.num_beams}")
        if self.early_stopping not in (True, False, "never"):
            wrong = self.early_stopping
            raise ValueError(f"early_stopping must be true, false or 'never', not {wrong!r}")


@dataclass(eq=False)
class Search:
    """The beams of one source."""

    settings: BeamSettings
    ends: Collection[int]
    given: int  # tokens that do not count in the length
    longest: int  # tokens of the longest text, those given among them
    running: list[Beam]
    finished: list[Beam] = field(default_factory=list)
    done: bool = False

    def candidates(self, logprobs: Tensor) -> list[Candidate]:
        """The best ways of going on, by log-probabilities (running beams, V) of the next token."""
        # Even if the best of every beam end, enough are left to go on with.
        count = max(2, 1 + len(self.ends)) * self.settings.num_beams
        scores = logprobs.new_tensor([beam.score for beam in self.running])
        total = (logprobs + scores[:, None]).flatten()
        best = total.topk(min(count, len(total)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        vocabulary = logprobs.shape[1]
        return [Candidate(i // vocabulary, i % vocabulary, score) for i, score in pairs]

    def advance(self, candidates: Sequence[Candidate]) -> list[int]:
        """Go on with the best candidates; the place of the beam that each new one continues."""
        beams = self.settings.num_beams
        length = len(self.running[0].tokens) + 1
        texts = [[*self.running[c.beam].tokens, c.token] for c in candidates]
        ended = [c.token in self.ends or length == self.longest for c in candidates]
        for rank, (candidate, text) in enumerate(zip(candidates, texts, strict=True)):
            if ended[rank] and rank < beams:
                self.finished.append(Beam(text, self.scaled(candidate.score, length)))
        self.finished = sorted(self.finished, key=lambda beam: -beam.score)[:beams]
        kept = [rank for rank, end in enumerate(ended) if not end][:beams]
        self.running = [Beam(texts[rank], candidates[rank].score) for rank in kept]
        self.done = not self.running or not self.can_improve(length)
        return [candidates[rank].beam for rank in kept]

    def scaled(self, score: float, length: int) -> float:
        """The score of a text of `length` tokens."""
        scale: float = float(length - self.given) ** self.settings.length_penalty
        return score / scale

    def can_improve(self, length: int) -> bool:
        """Whether going on could give a text that would be kept."""
        if len(self.finished) < self.settings.num_beams:
            return True
        early, penalty = self.settings.early_stopping, self.settings.length_penalty
        if early is True or self.settings.num_beams == 1:  # one beam is greedy: it ends at an end
            return False
        best_length = self.longest if early == "never" and penalty > 0 else length
        return self.scaled(self.running[0].score, best_length) > self.finished[-1].score


@torch.inference_mode()
def beam_search(
    network: Writer,
    memory: Remembering,
    prompt: Sequence[int],
    settings: BeamSettings,
    *,
    end_tokens: Collection[int],
    max_tokens: int,
) -> list[list[Beam]]:
    """The finished texts of each source in `memory`, which the network's `read` made, best first.

    Each begins with `prompt`, whose first token (it starts every target) does not count in lengths,
    and gets at most `max_tokens` tokens more.
    """
    longest = len(prompt) + max_tokens
    searches = [
        Search(settings, end_tokens, 1, longest, [Beam([*prompt], 0.0)]) for _ in memory.memory
    ]
    cache = network.new_cache(len(searches) * settings.num_beams, longest)
    rows = [number * settings.num_beams for number in range(len(searches))]
    active = list(searches)
    while active:
        texts = [beam.tokens for search in active for beam in search.running]
        logprobs = next_logits(network, memory, cache, rows, texts).float().log_softmax(-1)
        logprobs = forbid(logprobs, texts, settings)
        parts = logprobs.split([len(search.running) for search in active])
        places: list[int] = []
        sources: list[int] = []
        offset = 0
        for search, part in zip(active, parts, strict=True):
            came_from = [offset + beam for beam in search.advance(search.candidates(part))]
            offset += len(part)
            if not search.done:
                first = searches.index(search) * settings.num_beams
                places += range(first, first + len(came_from))
                sources += came_from
        active = [search for search in active if not search.done]
        if active:
            cache.copy_rows(places, [rows[source] for source in sources])
            memory, rows = memory.choose(sources), places
    return [search.finished for search in searches]


def forbid(logprobs: Tensor, texts: Sequence[Sequence[int]], settings: BeamSettings) -> Tensor:
    """Rule out, in log-probabilities (R, V), the tokens that may not follow `texts`."""
    if settings.banned:
        logprobs[:, list(settings.banned)] = -torch.inf
    size = settings.no_repeat_ngram_size
    for row, text in enumerate(texts if size else ()):
        recent = list(text[len(text) - size + 1 :])
        for start in range(len(text) - size + 1):
            if list(text[start : start + size - 1]) == recent:
                logprobs[row, text[start + size - 1]] = -torch.inf
    return logprobs
