"""Messages: chats in Anthropic's form."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request, Response

from limner.serving.answering import Json
from limner.serving.errors import ApiError, error_body
from limner.serving.event_stream import EventStream, cancelled_on_disconnect
from limner.serving.message_requests import CountRequest, MessageRequest
from limner.serving.reading import as_json, read_body, registry_of
from limner.serving.served import ServedModel
from limner.serving.turns import Arguments, Call, End, Part, Text, Turn, begin, prepare
from limner.tokenizers import Tokenizer

REASONS = {"length": "max_tokens", "tool_calls": "tool_use"}


class MessageWriter:
    """Turns the parts of a turn into events, and keeps the whole message.

    Args:
        body: the request.
        turn: its answer in the making.
        tokenizer: the model's.
    """

    def __init__(self, body: MessageRequest, turn: Turn, tokenizer: Tokenizer) -> None:
        self.body, self.turn, self.tokenizer = body, turn, tokenizer
        self.reply: Json = {
            "id": f"msg_{secrets.token_hex(12)}",
            "type": "message",
            "role": "assistant",
            "model": body.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": self._usage(),
        }
        self._open: Json | None = None
        self._arguments = ""

    def begin(self) -> Iterator[Json]:
        """The message is being written."""
        yield {"type": "message_start", "message": self.reply | {"content": []}}

    def take(self, part: Part) -> Iterator[Json]:
        """The events of a part."""
        if isinstance(part, Text):
            if self._open is None or self._open["type"] != "text":
                yield from self._begin_block({"type": "text", "text": ""})
            assert self._open is not None
            self._open["text"] += part.text
            yield self._delta({"type": "text_delta", "text": part.text})
        elif isinstance(part, Call):
            block = {"type": "tool_use", "id": part.id, "name": part.name, "input": {}}
            yield from self._begin_block(block)
        elif isinstance(part, Arguments):
            self._arguments += part.text
            yield self._delta({"type": "input_json_delta", "partial_json": part.text})
        else:
            yield from self._finish(part)

    def _finish(self, end: End) -> Iterator[Json]:
        yield from self._end_block()
        found = self._stop_sequence() if end.reason == "stop" else None
        reason = "stop_sequence" if found else REASONS.get(end.reason, "end_turn")
        ended = {"stop_reason": reason, "stop_sequence": found}
        self.reply |= ended | {"usage": self._usage()}
        yield {"type": "message_delta", "delta": ended, "usage": self._usage()}
        yield {"type": "message_stop"}

    def _stop_sequence(self) -> str | None:
        """The stop string that ended the answer, if one did: that which was complete first."""
        if self.turn.written[-1] in self.turn.end_tokens:
            return None
        text = self.tokenizer.decode(self.turn.written)
        ends = {
            stop: text.find(stop) + len(stop)
            for stop in self.body.stop_sequences or ()
            if stop in text
        }
        return min(ends, key=lambda stop: (ends[stop], -len(stop)), default=None)

    def _begin_block(self, block: Json) -> Iterator[Json]:
        yield from self._end_block()
        self._open, self._arguments = block, ""
        yield self._of_block("content_block_start", content_block=dict(block))

    def _end_block(self) -> Iterator[Json]:
        if self._open is None:
            return
        if self._open["type"] == "tool_use":
            self._open["input"] = _parsed(self._arguments)
        yield self._of_block("content_block_stop")
        self.reply["content"].append(self._open)
        self._open = None

    def _delta(self, delta: Json) -> Json:
        return self._of_block("content_block_delta", delta=delta)

    def _of_block(self, kind: str, **facts: Any) -> Json:
        return {"type": kind, "index": len(self.reply["content"])} | facts

    def _usage(self) -> Json:
        """Anthropic counts what was read from the cache beside the input, not in it."""
        found = self.turn.cached_tokens
        return {
            "input_tokens": self.turn.prompt_tokens - found,
            "output_tokens": self.turn.tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": found,
        }


def _parsed(arguments: str) -> Any:
    """The arguments of a call; what is cut off in the middle cannot be read and is left out."""
    try:
        return json.loads(arguments or "{}")
    except ValueError:
        return {}


async def create_message(request: Request) -> Response:
    """Answer a conversation in Anthropic's form."""
    body = await read_body(request, MessageRequest)
    served = registry_of(request).model(body.model)
    turn = await _turn(request, served, body)
    writer = MessageWriter(body, turn, served.model.tokenizer)
    if body.stream:
        return EventStream(_events(request, turn, writer), turn.cancel, named=True)
    async with cancelled_on_disconnect(request.receive, turn.cancel):
        async for part in turn:
            for _ in writer.take(part):
                pass
    return as_json(writer.reply)


async def _turn(request: Request, served: ServedModel, body: MessageRequest) -> Turn:
    asked = body.chat()
    submission = await prepare(served, asked, body, "messages", go_on=body.goes_on)
    # these may be more than OpenAI's chats allow, so they do not go through one
    stops: Sequence[str] = body.stop_sequences or ()
    sampling = replace(submission.sampling, stop=(*submission.sampling.stop, *stops))
    return begin(request, served, asked, replace(submission, sampling=sampling))


async def _events(request: Request, turn: Turn, writer: MessageWriter) -> AsyncIterator[Json]:
    for event in writer.begin():
        yield event
    try:
        async for part in turn:
            for event in writer.take(part):
                yield event
    except ApiError as error:
        yield error_body(request.url.path, error, request.state.request_id)


async def count_tokens(request: Request) -> Response:
    """How many tokens a conversation has."""
    body = await read_body(request, CountRequest)
    served = registry_of(request).model(body.model)
    submission = await prepare(
        served, body.chat(), body, "messages", go_on=body.goes_on, check=False
    )
    return as_json({"input_tokens": len(submission.tokens)})
