"""What comes back from a model: text, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from limner.tokenizers import Tokenizer

#: "stop": an end token or a stop string; "length": max_tokens or the context; "cancelled": closed
#: early; None: not finished yet.
FinishReason = Literal["stop", "length", "cancelled"] | None


@dataclass(frozen=True)
class Usage:
    """Tokens read and tokens written."""

    prompt_tokens: int
    completion_tokens: int

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
class Completion:
    """An answer.

    `tokens` are those generated, an end token among them; `logprobs` is filled if asked for with
    `logprobs=0` or more; `score` is what a search ranks answers by.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    usage: Usage
    logprobs: tuple[TokenScore, ...] | None = field(default=None, repr=False)
    score: float | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return self.text

    @property
    def message(self) -> dict[str, str]:
        """The answer as a message, to be appended to a conversation."""
        return {"role": "assistant", "content": self.text}


def token_text(tokenizer: Tokenizer, token: int) -> str:
    """A token as a reader would write it; ids of a padded embedding have no text."""
    if token >= tokenizer.vocabulary_size:
        return ""
    if token in tokenizer.special_ids:
        return tokenizer.token(token)
    return tokenizer.token_bytes(token).decode("utf-8", "backslashreplace")
