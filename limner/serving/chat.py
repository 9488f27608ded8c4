"""Chats: messages in, and answers in the shape of OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from limner.inference.sequence import Event
from limner.language_model import LanguageModel
from limner.serving.answering import Json, Written, reason, scores_of
from limner.serving.engine_thread import Submission
from limner.serving.requests import ChatRequest, Message
from limner.serving.token_scores import Score, chat_score
from limner.tokenizers import Tokenizer

#: Variables that a template gets from the request itself.
RESERVED = ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message")


def prompt_of(
    tokenizer: Tokenizer, messages: Sequence[Message], variables: dict[str, Any] | None
) -> list[int]:
    """Token ids of messages; ValueError if there is no template, or it refuses them."""
    for name in variables or {}:
        if name in RESERVED:
            raise ValueError(f"chat_template_kwargs may not set '{name}'")
    plain = [message.plain() for message in messages]
    return tokenizer.apply_chat(plain, **(variables or {})).ids


def submissions(model: LanguageModel, body: ChatRequest) -> list[Submission]:
    """What is to be generated for a chat. Raises ValueError."""
    sampling = model.sampling(**body.options())
    tokens = prompt_of(model.tokenizer, body.messages, body.chat_template_kwargs)
    return [Submission(tokens, sampling, sample) for sample in range(body.n or 1)]


class ChatShape:
    """Choices of a chat completion."""

    def __init__(self, tokenizer: Tokenizer, prompt_tokens: int, count: int, logprobs: bool):
        self.tokenizer, self.prompt_tokens = tokenizer, prompt_tokens
        self.count, self.logprobs = count, logprobs

    def opening(self) -> Iterator[Json]:
        """Who speaks; the text follows."""
        for index in range(self.count):
            yield self._choice(index, {"role": "assistant", "content": "", "refusal": None})

    def pieces(self, index: int, event: Event) -> Iterator[Json]:
        """The text, if any, and then the end, if it is one."""
        scores = scores_of(event)
        if event.text or (scores and self.logprobs):
            yield self._choice(index, {"content": event.text}, scores)
        if event.finish_reason:
            yield self._choice(index, {}) | {"finish_reason": reason(event.finish_reason)}

    def choices(self, written: Sequence[Written]) -> list[Json]:
        """The answers."""
        return [
            {
                "index": index,
                "message": {"role": "assistant", "content": answer.text, "refusal": None},
                "logprobs": self._scores(answer.scores) if self.logprobs else None,
                "finish_reason": reason(answer.finish_reason),
            }
            for index, answer in enumerate(written)
        ]

    def _choice(self, index: int, delta: Json, scores: Sequence[Score] = ()) -> Json:
        logprobs = self._scores(scores) if self.logprobs and scores else None
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}

    def _scores(self, scores: Sequence[Score]) -> Json:
        return {
            "content": [chat_score(self.tokenizer, score) for score in scores], "refusal": None,
        }  # fmt: skip
