"""What comes back from a model: text, and how it came about."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from limner.tokenizers import Tokenizer

#: "stop": an end token or a stop string; "tool_calls": the same after calls; "length": max_tokens
#: or the context; "cancelled": closed early; None: not finished yet.
FinishReason = Literal["stop", "tool_calls", "length", "cancelled"] | None


@dataclass(frozen=True)
class Usage:
    """Tokens read and tokens written."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = field(default=0, compare=False)
    """Tokens of the prompt that an earlier text had computed."""

    @property
    def total_tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class TokenScore:
    """A generated token, its log-probability (natural logarithm) and those of the best tokens."""

    id: int
    text: str
    logprob: float
    alternatives: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class ToolCall:
    """A call of a function that the model wants made; `arguments` are JSON as the model wrote it.

    What a model wrote freely may be no JSON; what it was held to (`tool_choice`) always is.
    """

    id: str
    name: str
    arguments: str

    @property
    def values(self) -> Any:
        """The arguments as data. Raises ValueError if they are no JSON."""
        return json.loads(self.arguments)


@dataclass(frozen=True)
class Completion:
    """An answer.

    `tokens` are those generated, an end token among them; `logprobs` is filled if asked for with
    `logprobs=0` or more; `score` is what a search ranks answers by; `calls` are the functions that
    a chat with `tools` calls, which `text` then leaves out.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[TokenScore, ...] | None = field(default=None, repr=False)
    score: float | None = field(default=None, repr=False)
    calls: tuple[ToolCall, ...] = ()

    def __str__(self) -> str:
        return self.text

    @property
    def message(self) -> dict[str, Any]:
        """The answer as a message, to be appended to a conversation."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text}
        if self.calls:
            functions = [{"name": call.name, "arguments": call.arguments} for call in self.calls]
            message["tool_calls"] = [
                {"id": call.id, "type": "function", "function": function}
                for call, function in zip(self.calls, functions, strict=True)
            ]
        return message


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token as a reader would write it; ids of a padded embedding have no text."""
    if token >= tokenizer.vocabulary_size:
        return ""
    if token in tokenizer.special_ids:
        return tokenizer.token(token)
    return tokenizer.token_bytes(token).decode("utf-8", "backslashreplace")
