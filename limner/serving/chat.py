"""Chats: messages in, and answers in the shape of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from limner.inference.sequence import Event
from limner.language_model import LanguageModel
from limner.language_model.calling import Calling, Tool, as_read, new_identity
from limner.serving.answering import Json, Written, reason, scores_of
from limner.serving.engine_thread import Submission
from limner.serving.forms import constraint_of
from limner.serving.requests import ChatRequest, Message
from limner.serving.token_scores import Score, chat_score
from limner.serving.tooling import tooling
from limner.tokenizers import Tokenizer
from limner.tools.source import Piece, TextPiece

#: Variables that a template gets from the request itself.
RESERVED = ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message")


def prompt_of(
    tokenizer: Tokenizer,
    messages: Sequence[Message],
    variables: dict[str, Any] | None,
    tools: Sequence[Tool] = (),
) -> list[int]:
    """Token ids of messages; ValueError if there is no template, or it refuses them."""
    for name in variables or {}:
        if name in RESERVED:
            raise ValueError(f"chat_template_kwargs may not set '{name}'")
    plain, described = as_read(tokenizer, [message.plain() for message in messages], tools)
    return tokenizer.apply_chat(plain, tools=described, **(variables or {})).ids


def calling_of(tokenizer: Tokenizer, body: ChatRequest) -> Calling | None:
    """The functions that the answers may call, if any. Raises ValueError."""
    if not body.tools and body.tool_choice not in (None, "none", "auto"):
        raise ValueError("tool_choice asks for a call, but tools are not given")
    if not body.tools or body.tool_choice == "none":
        return None
    parallel = body.parallel_tool_calls is not False
    return tooling(tokenizer, body.tools, body.tool_choice, parallel=parallel)


def submissions(model: LanguageModel, body: ChatRequest) -> list[Submission]:
    """What is to be generated for a chat. Raises ValueError."""
    tokenizer, sampling = model.tokenizer, model.sampling(**body.options())
    calling = calling_of(tokenizer, body)
    tools = calling.tools if calling else ()
    tokens = prompt_of(tokenizer, body.messages, body.chat_template_kwargs, tools)
    form = calling.form(body.form(), model.constraint) if calling else body.form()
    field = "tools" if calling else body.form_field
    return [
        Submission(
            tokens,
            sampling,
            sample,
            constraint=constraint_of(model, form, field, sampling),
            decoder=calling.decoder() if calling else None,
        )
        for sample in range(body.n or 1)
    ]


class ChatShape:
    """Choices of a chat completion."""

    def __init__(self, tokenizer: Tokenizer, body: ChatRequest, prompt_tokens: int) -> None:
        self.tokenizer, self.prompt_tokens = tokenizer, prompt_tokens
        self.count, self.logprobs = body.n or 1, bool(body.logprobs)
        calling = calling_of(tokenizer, body)
        self._answers = [Answer(calling) for _ in range(self.count)]

    def opening(self) -> Iterator[Json]:
        """Who speaks; the text follows."""
        for index in range(self.count):
            yield self._choice(index, {"role": "assistant", "content": "", "refusal": None})

    def pieces(self, index: int, event: Event) -> Iterator[Json]:
        """The text and the calls, if any, and then the end, if it is one."""
        answer, scores = self._answers[index], scores_of(event)
        deltas = list(answer.take(event))
        if scores and self.logprobs and not deltas:
            deltas = [{"content": event.text if answer.calling is None else ""}]
        for delta in deltas:
            yield self._choice(index, delta, scores)
            scores = []
        if event.finish_reason:
            yield self._choice(index, {}) | {"finish_reason": answer.ending(event.finish_reason)}

    def choices(self, written: Sequence[Written]) -> list[Json]:
        """The answers."""
        return [self._whole(index, answer) for index, answer in enumerate(written)]

    def _whole(self, index: int, written: Written) -> Json:
        answer = self._answers[index]
        event = Event(-1, text=written.text, finish_reason="stop")
        message: Json = {"role": "assistant", "content": "", "refusal": None}
        calls: list[Json] = []
        for delta in answer.take(event):
            message["content"] += delta.get("content", "")
            for call in delta.get("tool_calls", ()):
                _add(calls, call)
        if calls:
            message |= {"content": message["content"] or None, "tool_calls": calls}
        return {
            "index": index,
            "message": message,
            "logprobs": self._scores(written.scores) if self.logprobs else None,
            "finish_reason": answer.ending(written.finish_reason),
        }

    def _choice(self, index: int, delta: Json, scores: Sequence[Score] = ()) -> Json:
        logprobs = self._scores(scores) if self.logprobs and scores else None
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}

    def _scores(self, scores: Sequence[Score]) -> Json:
        return {
            "content": [chat_score(self.tokenizer, score) for score in scores], "refusal": None,
        }  # fmt: skip


class Answer:
    """One answer of a chat as it comes: its text, and its calls."""

    def __init__(self, calling: Calling | None) -> None:
        self.calling = calling
        self._parser = calling.parser() if calling else None
        self._calls = 0

    def take(self, event: Event) -> Iterator[Json]:
        """What an event adds."""
        if self._parser is None:
            if event.text:
                yield {"content": event.text}
            return
        pieces = self._parser.push(event.text)
        if event.finish_reason:
            pieces += self._parser.finish()
        for piece in pieces:
            yield from self._delta(piece)

    def ending(self, why: str | None) -> str | None:
        """Why it has ended, as OpenAI's clients know it."""
        told = reason(why)
        return "tool_calls" if told == "stop" and self._calls else told

    def _delta(self, piece: Piece) -> Iterator[Json]:
        if isinstance(piece, TextPiece):
            yield {"content": piece.text}
            return
        assert self.calling is not None
        if piece.call and not self.calling.several:
            return
        if piece.name is not None:
            self._calls += 1
            function = {"name": piece.name, "arguments": ""}
            call = {"index": piece.call, "id": new_identity(), "type": "function"}
            yield {"tool_calls": [call | {"function": function}]}
        if piece.arguments:
            more = {"index": piece.call, "function": {"arguments": piece.arguments}}
            yield {"tool_calls": [more]}


def _add(calls: list[Json], delta: Json) -> None:
    """Add to whole calls what a stream would tell of them."""
    if "id" in delta:
        calls.append({name: field for name, field in delta.items() if name != "index"})
    else:
        calls[delta["index"]]["function"]["arguments"] += delta["function"]["arguments"]
