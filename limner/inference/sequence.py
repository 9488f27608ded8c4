"""One answer in the making: its tokens, and how many of them the cache already holds."""

from __future__ import annotations

import collections.abc
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from limner.inference.constraints import Constraint
from limner.inference.record import Record
from limner.inference.sampler import Draw
from limner.inference.sampling import Sampling
from limner.inference.stopping import Transcript
from limner.peft import Adapter

FinishReason = Literal["stop", "length", "cancelled", "error"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a sequence: a new token, its end, or both."""

    sequence: int
    """The id of the sequence."""
    token: int | None = None
    """The new token, if there is one."""
    text: str = ""
    """The text that is now certain; text that may begin a stop string comes with a later event."""
    logprob: float | None = None
    """The token's log-probability, if asked for."""
    alternatives: tuple[tuple[int, float], ...] = ()
    """The best tokens with their log-probabilities, best first, if asked for."""
    finish_reason: FinishReason | None = None
    """Why this is the last event: an end token or stop string, the length asked for or left, a
    cancellation, or an error; None when more will come."""
    error: str | None = None
    """What went wrong, in one line."""


@dataclass(frozen=True, slots=True)
class Place:
    """A sequence as it would be after some guessed tokens: what the sampler needs of it there."""

    sampling: Sampling
    seed: int
    sample: int
    tokens: list[int]
    prompt_length: int
    allowed: Tensor | None
    constraint: Constraint | None


@dataclass(eq=False)
class Sequence:
    """A request and the answer so far. Made by `Engine.submit`; the engine moves it on.

    `computed` is the only progress there is: tokens[:computed] are in the cache, the others are
    still to be computed. A new prompt, a prompt computed in chunks, a sequence put back to make
    room, and one token of a running answer differ only in how many those are.
    """

    id: int
    tokens: list[int]
    """The prompt and what was generated so far."""
    prompt_length: int
    limit: int
    """Tokens at which the answer is cut off, prompt included."""
    sampling: Sampling
    seed: int
    sample: int
    end_tokens: collections.abc.Set[int]
    transcript: Transcript
    allowed: Tensor | None = None
    """(V,) bool: the tokens that may come next; None allows all."""
    constraint: Constraint | None = None
    """What form the answer is held to."""
    conditions: tuple[object, ...] = ()
    """What its keys and values depend on beside its tokens; their repr tells."""
    adapter: Adapter | None = None
    """What changes the network for it; its number is one of the conditions."""
    leader: Sequence | None = None
    """Another answer to the same prompt, which computes it for both; None once that is done."""
    computed: int = 0
    reused: int | None = None
    """Tokens that an earlier text had computed for it; None until it has a row."""
    row: int | None = None
    """The row of the cache that it has, if any."""
    pages: list[int] = field(default_factory=list)
    """The pages of the cache that hold it, in order; 0 for one no longer needed."""
    long: bool = False
    """Whether it is computed as a text past the length at which the network reads otherwise."""
    keys: list[bytes] = field(default_factory=list, repr=False)
    """What names the contents of its full pages, the conditions first."""
    events: list[Event] = field(default_factory=list)
    speculates: bool = True
    """Whether its tokens may be guessed, if the engine has somebody to guess."""
    record: Record = field(default_factory=Record)
    """How guesses of its tokens fared."""
    finish_reason: FinishReason | None = None
    error: str | None = None

    @property
    def generated(self) -> list[int]:
        """The tokens of the answer, the end token included."""
        return self.tokens[self.prompt_length :]

    @property
    def text(self) -> str:
        """The text of the answer so far; empty without a decoder."""
        return "".join(event.text for event in self.events)

    @property
    def pending(self) -> int:
        """How many tokens are not yet computed."""
        return len(self.tokens) - self.computed

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return self.finish_reason is not None

    def after(self, guessed: list[int]) -> Place:
        """Itself with guessed tokens at its end."""
        tokens = [*self.tokens, *guessed]
        return Place(
            self.sampling, self.seed, self.sample, tokens, self.prompt_length, self.allowed,
            self.constraint,
        )  # fmt: skip

    def accept(self, draw: Draw) -> Event:
        """Append a drawn token, and finish if it is the last."""
        if draw.token is None:
            return self.finish("error", draw.error)
        ended = draw.token in self.end_tokens
        text = "" if ended else self.transcript.push(draw.token)
        reason: FinishReason | None = None
        if ended or self.transcript.stopped:
            reason = "stop"
        elif len(self.tokens) + 1 == self.limit:
            reason = "length"
        if reason:
            text += self.transcript.finish()
        event = Event(self.id, draw.token, text, draw.logprob, draw.alternatives, reason)
        self.tokens.append(draw.token)
        return self._record(event)

    def finish(self, reason: FinishReason, error: str | None = None) -> Event:
        """Finish without a new token."""
        text = self.transcript.finish()
        return self._record(Event(self.id, text=text, finish_reason=reason, error=error))

    def _record(self, event: Event) -> Event:
        self.events.append(event)
        self.error = event.error
        self.finish_reason = event.finish_reason
        return event
