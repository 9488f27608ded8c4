"""Responses: OpenAI's newer form of chats, which the server remembers if it may."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from typing import Any

from fastapi import Request, Response

from limner.serving.account import account
from limner.serving.answering import Json
from limner.serving.errors import ApiError
from limner.serving.event_stream import EventStream, cancelled_on_disconnect
from limner.serving.reading import as_json, read_body, registry_of
from limner.serving.response_requests import ResponseRequest, messages_of
from limner.serving.response_store import ResponseStore, Stored
from limner.serving.served import ServedModel
from limner.serving.turns import Arguments, Call, End, Part, Text, Turn, begin, prepare, shortened

#: What OpenAI answers where a request says nothing.
DEFAULTS: Json = {
    "background": False,
    "conversation": None,
    "error": None,
    "incomplete_details": None,
    "max_tool_calls": None,
    "object": "response",
    "prompt": None,
    "reasoning": {"effort": None, "summary": None},
    "service_tier": "default",
}


class ResponseWriter:
    """Turns the parts of a turn into events, the last of which holds the whole response."""

    def __init__(self, body: ResponseRequest, turn: Turn) -> None:
        self.turn, self.reply = turn, _opening(body, turn)
        self._number = 0
        self._item: Json | None = None
        self._text, self._scores = "", list[Json]()

    def begin(self) -> Iterator[Json]:
        """The response is there and is being answered."""
        yield self._event("response.created", response=dict(self.reply))
        yield self._event("response.in_progress", response=dict(self.reply))

    def take(self, part: Part) -> Iterator[Json]:
        """The events of a part."""
        if isinstance(part, Text):
            yield from self._take_text(part)
        elif isinstance(part, Call):
            yield from self._close("completed")
            yield from self._open_call(part)
        elif isinstance(part, Arguments):
            assert self._item is not None
            self._item["arguments"] += part.text
            yield self._of_item("response.function_call_arguments.delta", delta=part.text)
        else:
            yield from self._finish(part)

    def fail(self, error: ApiError) -> Json:
        """The answer broke off."""
        told = {"code": "server_error", "message": error.message}
        self.reply |= {"status": "failed", "error": told}
        return self._event("response.failed", response=self.reply)

    def _take_text(self, part: Text) -> Iterator[Json]:
        if self._item is None or self._item["type"] != "message":
            yield from self._open_message()
        self._text += part.text
        self._scores += part.scores
        yield self._of_content(
            "response.output_text.delta", delta=part.text, logprobs=_brief(part.scores)
        )

    def _finish(self, end: End) -> Iterator[Json]:
        if self._item is None and not self.reply["output"]:
            yield from self._open_message()
        cut = end.reason == "length"
        status = "incomplete" if cut else "completed"
        yield from self._close(status)
        read, wrote, found = self.turn.prompt_tokens, self.turn.tokens, self.turn.cached_tokens
        self.reply |= {
            "status": status,
            "completed_at": None if cut else time.time(),
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": {
                "input_tokens": read,
                "input_tokens_details": {"cached_tokens": found, "cache_write_tokens": 0},
                "output_tokens": wrote,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": read + wrote,
            },
        }
        yield self._event(f"response.{status}", response=self.reply)

    # Items

    def _open_message(self) -> Iterator[Json]:
        yield from self._close("completed")
        self._text, self._scores = "", []
        yield from self._open(
            {"id": _identity("msg"), "type": "message", "role": "assistant", "content": []}
        )
        yield self._of_content("response.content_part.added", part=_content("", []))

    def _open_call(self, call: Call) -> Iterator[Json]:
        item = {"id": _identity("fc"), "type": "function_call", "call_id": call.id}
        yield from self._open(item | {"name": call.name, "arguments": ""})

    def _open(self, item: Json) -> Iterator[Json]:
        self._item = item | {"status": "in_progress"}
        yield self._of_output("response.output_item.added", item=dict(self._item))

    def _close(self, status: str) -> Iterator[Json]:
        item = self._item
        if item is None:
            return
        if item["type"] == "message":
            part = _content(self._text, self._scores)
            told = {"text": self._text, "logprobs": _brief(self._scores)}
            yield self._of_content("response.output_text.done", **told)
            yield self._of_content("response.content_part.done", part=part)
            item["content"] = [part]
        else:
            told = {"name": item["name"], "arguments": item["arguments"]}
            yield self._of_item("response.function_call_arguments.done", **told)
        item["status"] = status
        yield self._of_output("response.output_item.done", item=item)
        self.reply["output"].append(item)
        self._item = None

    # Events

    def _event(self, kind: str, **facts: Any) -> Json:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1} | facts

    def _of_output(self, kind: str, **facts: Any) -> Json:
        return self._event(kind, output_index=len(self.reply["output"]), **facts)

    def _of_item(self, kind: str, **facts: Any) -> Json:
        assert self._item is not None
        return self._of_output(kind, item_id=self._item["id"], **facts)

    def _of_content(self, kind: str, **facts: Any) -> Json:
        return self._of_item(kind, content_index=0, **facts)


def _identity(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(24)}"


def _opening(body: ResponseRequest, turn: Turn) -> Json:
    """The response before anything is in it: what was asked, and what the server chose."""
    sampling, same = turn.submission.sampling, body.model_dump(exclude_none=True)
    return DEFAULTS | {
        "id": _identity("resp"),
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "in_progress",
        "model": body.model,
        "instructions": body.instructions,
        "previous_response_id": body.previous_response_id,
        "max_output_tokens": body.max_output_tokens,
        "metadata": body.metadata or {},
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "store": body.store is not False,
        "temperature": sampling.temperature,
        "text": {"format": {"type": "text"}} | same.get("text", {}),
        "tool_choice": same.get("tool_choice", "auto"),
        "tools": [{"parameters": None, "strict": None} | tool for tool in same.get("tools", [])],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": sampling.top_p,
        "truncation": body.truncation or "disabled",
    }


def _content(text: str, scores: Sequence[Json]) -> Json:
    return {"type": "output_text", "annotations": [], "logprobs": list(scores), "text": text}


def _brief(scores: Sequence[Json]) -> list[Json]:
    """Scores as events tell them, without the tokens' bytes."""

    def plain(score: Json) -> Json:
        return {"token": score["token"], "logprob": score["logprob"]}

    return [
        plain(score) | {"top_logprobs": [plain(one) for one in score["top_logprobs"]]}
        for score in scores
    ]


# Routes


async def create_response(request: Request) -> Response:
    """Answer a conversation, and remember it unless the request says not to."""
    body = await read_body(request, ResponseRequest)
    served = registry_of(request).model(body.model)
    items = await _earlier(request, body) + body.items
    turn = await _turn(request, served, body, items)
    writer = ResponseWriter(body, turn)
    keep = partial(_keep, request, body, items, writer)
    if body.stream:
        return EventStream(_events(turn, writer, keep), turn.cancel, named=True)
    async with cancelled_on_disconnect(request.receive, turn.cancel):
        async for part in turn:
            for _ in writer.take(part):
                pass
    await keep()
    return as_json(writer.reply)


async def _earlier(request: Request, body: ResponseRequest) -> list[Json]:
    """The items that a response that came before had read and written."""
    if body.previous_response_id is None:
        return []
    return (await _found(request, body.previous_response_id, "previous_response_id")).conversation


async def _turn(
    request: Request, served: ServedModel, body: ResponseRequest, items: Sequence[Json]
) -> Turn:
    system = [] if body.instructions is None else [("system", body.instructions)]
    first = [{"role": role, "content": text} for role, text in system]
    messages = [*first, *messages_of(items)]

    async def prepared(messages: Sequence[Json]) -> tuple[Any, Any]:
        asked = body.chat(messages)
        return asked, await prepare(served, asked, body, "input")

    if body.truncation == "auto":
        asked, submission = await shortened(prepared, messages, len(first))
    else:
        asked, submission = await prepared(messages)
    return begin(request, served, asked, submission)


async def _events(turn: Turn, writer: ResponseWriter, keep: Any) -> AsyncIterator[Json]:
    for event in writer.begin():
        yield event
    try:
        async for part in turn:
            for event in writer.take(part):
                if isinstance(part, End) and "response" in event:
                    await keep()  # whoever reads the last event may ask for the response at once
                yield event
    except ApiError as error:
        yield writer.fail(error)


async def _keep(
    request: Request, body: ResponseRequest, items: list[Json], writer: ResponseWriter
) -> None:
    if body.store is not False:
        stored = Stored(writer.reply, items)
        await asyncio.to_thread(_store(request).put, account(request).owner, stored)


async def get_response(request: Request, response: str) -> Response:
    """A response that was stored."""
    return as_json((await _found(request, response)).reply)


async def get_input_items(request: Request, response: str) -> Response:
    """What the model had read for a response."""
    stored = await _found(request, response)
    data = [_listed(item, f"{number}_{response}") for number, item in enumerate(stored.input)]
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"], "has_more": False}
    return as_json({"object": "list", "data": data} | ends)


def _listed(item: Json, name: str) -> Json:
    """An item as OpenAI lists it, however short it was written."""
    if item["type"] != "message":
        kind = "fc" if item["type"] == "function_call" else "fco"
        return {"id": f"{kind}_{name}", "status": "completed"} | item
    own = item["role"] == "assistant"
    more: Json = {"annotations": [], "logprobs": []} if own else {}
    kind, content = "output_text" if own else "input_text", item["content"]
    texts = [content] if isinstance(content, str) else [part["text"] for part in content]
    parts = [{"type": kind, "text": text} | more for text in texts]
    return {"id": f"msg_{name}", "status": "completed"} | item | {"content": parts}


async def delete_response(request: Request, response: str) -> Response:
    """Forget a response."""
    if not await asyncio.to_thread(_store(request).delete, account(request).owner, response):
        raise _unknown(response, None)
    return as_json({"id": response, "object": "response", "deleted": True})


async def _found(request: Request, name: str, param: str | None = None) -> Stored:
    stored = await asyncio.to_thread(_store(request).get, account(request).owner, name)
    if stored is None:
        raise _unknown(name, param)
    return stored


def _unknown(name: str, param: str | None) -> ApiError:
    status = 404 if param is None else 400
    code = None if param is None else "previous_response_not_found"
    return ApiError(
        status, f"there is no response with the id '{name[:100]}'", param=param, code=code
    )


def _store(request: Request) -> ResponseStore:
    """Where responses are kept; a request that was forwarded to a replica brings its own."""
    found: ResponseStore = getattr(request.state, "responses", request.app.state.responses)
    return found
