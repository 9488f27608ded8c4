"""From events to responses: the one path of chats and completions, whole and streamed."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from limner.inference.constraints import LOST
from limner.inference.sampler import NOTHING_LEFT
from limner.inference.sequence import Event
from limner.serving.engine_thread import AnswerFailedError, AnswerTimedOutError
from limner.serving.errors import ApiError, server_error
from limner.serving.token_scores import Score

Json = dict[str, Any]
Events = AsyncIterator[tuple[int, Event]]


@dataclass
class Written:
    """What an answer has come to."""

    text: str = ""
    tokens: int = 0
    scores: list[Score] = field(default_factory=list)
    finish_reason: str | None = None

    def take(self, event: Event) -> None:
        """Add what happened."""
        self.text += event.text
        self.tokens += event.token is not None
        self.scores += scores_of(event)
        self.finish_reason = event.finish_reason


class Shape(Protocol):
    """How a route writes its answers (`limner.serving.chat`, `limner.serving.completions`)."""

    prompt_tokens: int

    def opening(self) -> Iterator[Json]:
        """Choices that a stream begins with."""
        ...

    def pieces(self, index: int, event: Event) -> Iterator[Json]:
        """Choices that an event adds to a stream."""
        ...

    def choices(self, written: Sequence[Written]) -> list[Json]:
        """The choices of a whole response."""
        ...


@dataclass(frozen=True)
class Envelope:
    """What all parts of a response have in common."""

    model: str
    kind: Literal["chat.completion", "text_completion"]
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def of(cls, model: str, kind: Literal["chat.completion", "text_completion"]) -> Envelope:
        """A new response's."""
        prefix = "chatcmpl" if kind == "chat.completion" else "cmpl"
        return cls(model, kind, f"{prefix}-{secrets.token_hex(12)}")

    def around(self, choices: list[Json], *, chunk: bool = False) -> Json:
        """A response, or a chunk of one."""
        kind = f"{self.kind}.chunk" if chunk and self.kind == "chat.completion" else self.kind
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }


def scores_of(event: Event) -> list[Score]:
    """The score of an event's token, if it has one."""
    if event.token is None or event.logprob is None:
        return []
    return [Score(event.token, event.logprob, event.alternatives)]


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> Json:
    """Tokens read and written, and how many of the first earlier texts had computed."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def reason(event_reason: str | None) -> str | None:
    """A finish reason that OpenAI's clients know; who cancelled is not there to read it."""
    return "stop" if event_reason == "cancelled" else event_reason


async def whole(
    events: Events, count: int, shape: Shape, envelope: Envelope, cached_tokens: Callable[[], int]
) -> Json:
    """The response when all answers have ended. Raises ApiError if one cannot go on.

    `cached_tokens` is asked then; see `usage`.
    """
    written = [Written() for _ in range(count)]
    try:
        async for index, event in events:
            written[index].take(event)
    except AnswerFailedError as error:
        raise failure(error) from None
    total = sum(answer.tokens for answer in written)
    counted = usage(shape.prompt_tokens, total, cached_tokens())
    return envelope.around(shape.choices(written)) | {"usage": counted}


async def chunks(
    events: Events, shape: Shape, envelope: Envelope, cached_tokens: Callable[[], int] | None
) -> AsyncIterator[Json]:
    """The chunks of a stream; an error, should there be one, is the last.

    With `cached_tokens` (see `usage`) the last chunk counts the tokens.
    """
    empty = {"usage": None} if cached_tokens else {}
    for choice in shape.opening():
        yield envelope.around([choice], chunk=True) | empty
    tokens = 0
    try:
        async for index, event in events:
            tokens += event.token is not None
            for choice in shape.pieces(index, event):
                yield envelope.around([choice], chunk=True) | empty
    except AnswerFailedError as error:
        yield failure(error).body
        return
    if cached_tokens:
        counted = usage(shape.prompt_tokens, tokens, cached_tokens())
        yield envelope.around([], chunk=True) | {"usage": counted}


def failure(error: AnswerFailedError) -> ApiError:
    """Whose mistake it was that an answer broke off."""
    message = f"the answer broke off: {error}"
    if isinstance(error, AnswerTimedOutError):
        return ApiError(504, message, kind="server_error", code="timeout")
    asked_too_much = str(error).startswith((NOTHING_LEFT, LOST))
    return ApiError(400, message) if asked_too_much else server_error(message)


async def ended_at_once(count: int) -> Events:
    """The events of answers that nobody wants a token of."""
    for index in range(count):
        yield index, Event(-1, finish_reason="length")
