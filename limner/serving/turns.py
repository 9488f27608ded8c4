"""One turn of a conversation, for the routes whose clients call things by other names.

They say what they want as a chat request, so that prompt, sampling and tools are the chat's own,
and read the answer in the parts below.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request
from pydantic import ValidationError

from limner.language_model.calling import as_read
from limner.serving import chat
from limner.serving.account import account
from limner.serving.answering import Json, Shape, failure
from limner.serving.engine_thread import AnswerFailedError, Answers, Submission
from limner.serving.errors import ApiError, wrong_body
from limner.serving.requests import Body, ChatRequest
from limner.serving.served import ServedModel
from limner.tokenizers import Tokenizer


@dataclass(frozen=True)
class Text:
    """Further text, and the scores of its tokens if they are asked for."""

    text: str
    scores: list[Json]


@dataclass(frozen=True)
class Call:
    """The beginning of a call of a function; its arguments follow."""

    id: str
    name: str


@dataclass(frozen=True)
class Arguments:
    """Further characters of the arguments of the latest call."""

    text: str


@dataclass(frozen=True)
class End:
    """The end of the turn: "stop", "length" or "tool_calls"."""

    reason: str


Part = Text | Call | Arguments | End


@dataclass
class Turn:
    """An answer in the making. Iterate over it once."""

    prompt_tokens: int
    submission: Submission
    end_tokens: frozenset[int]
    """Tokens that end an answer by themselves."""
    _answers: Answers
    _shape: Shape
    tokens: int = 0
    """Tokens written so far."""
    written: tuple[int, ...] = ()
    """Those tokens."""

    @property
    def cached_tokens(self) -> int:
        """How many tokens of the prompt earlier texts had computed, once the answer has begun."""
        return self._answers.cached_tokens

    def cancel(self) -> None:
        """End the answer, and free its row."""
        self._answers.cancel()

    async def __aiter__(self) -> AsyncIterator[Part]:
        """The parts as they come. Raises ApiError if the answer cannot go on."""
        try:
            async for index, event in self._answers:
                if event.finish_reason == "cancelled":
                    raise ApiError(499, "the client went away")  # half an answer is none
                if event.token is not None:
                    self.tokens += 1
                    self.written += (event.token,)
                for choice in self._shape.pieces(index, event):
                    for part in _parts(choice):
                        yield part
        except AnswerFailedError as error:
            raise failure(error) from None


def _parts(choice: Json) -> list[Part]:
    """What a piece of a chat's stream tells."""
    delta, found = choice["delta"], list[Part]()
    scores = (choice["logprobs"] or {}).get("content") or []
    if delta.get("content") or scores:
        found.append(Text(delta.get("content") or "", scores))
    for call in delta.get("tool_calls") or ():
        if call.get("id"):
            found.append(Call(call["id"], call["function"]["name"]))
        if call["function"].get("arguments"):
            found.append(Arguments(call["function"]["arguments"]))
    if choice["finish_reason"]:
        found.append(End(choice["finish_reason"]))
    return found


def chat_request(fields: dict[str, Any]) -> ChatRequest:
    """A chat request of these fields, those that are None left out. Raises ApiError."""
    given = {name: value for name, value in fields.items() if value is not None}
    try:
        return ChatRequest.model_validate(given)
    except ValidationError as error:
        raise wrong_body(ChatRequest, error) from None


async def prepare(
    served: ServedModel,
    body: ChatRequest,
    given: Body,
    param: str,
    *,
    go_on: bool = False,
    check: bool = True,
) -> Submission:
    """What is to be generated; with `go_on` the last message is left open, to be continued.

    Raises ApiError that names the field of `given` at fault; with `check` also if it does not fit.
    """

    def make() -> Submission:
        (submission,) = chat.submissions(served.model, body)
        if go_on:
            submission = replace(submission, tokens=_left_open(served.model.tokenizer, body))
        if check:
            served.check([submission], param)
        return submission

    return await served.prepare(given, param, make)


def _left_open(tokenizer: Tokenizer, body: ChatRequest) -> list[int]:
    """Token ids of messages, the last of which is not ended."""
    calling = chat.calling_of(tokenizer, body)
    tools = calling.tools if calling else ()
    plain, described = as_read(tokenizer, [message.plain() for message in body.messages], tools)
    return tokenizer.apply_chat(
        plain, tools=described, add_generation_prompt=False, continue_final_message=True
    ).ids


def begin(request: Request, served: ServedModel, body: ChatRequest, submission: Submission) -> Turn:
    """Queue it. Raises ApiError as `ServedModel.submit` does."""
    prompt_tokens = len(submission.tokens)
    shape = chat.ChatShape(served.model.tokenizer, body, prompt_tokens)
    answers = served.submit([submission], prompt_tokens, account(request))
    ends = served.model.tokenizer.stop_ids.union(submission.sampling.stop_tokens)
    return Turn(prompt_tokens, submission, ends, answers, shape)


async def shortened(
    prepare_these: Callable[[Sequence[Json]], Any], messages: Sequence[Json], keep: int
) -> Any:
    """What `prepare_these` makes of messages without as many of the oldest as do not fit.

    The first `keep` messages stay. Raises ApiError if the newest alone does not fit.
    """
    first, rest = list(messages[:keep]), list(messages[keep:])
    while True:
        try:
            return await prepare_these([*first, *rest])
        except ApiError as error:
            if error.code != "context_length_exceeded" or len(rest) == 1:
                raise
            rest = rest[1:]
