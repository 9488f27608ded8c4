"""What one request uses: counted against its key's limits, and written into the log."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import HTTPConnection

from limner.serving.keys import Key
from limner.serving.rates import Allowance


@dataclass
class Account:
    """The tokens of one request, and whose they are; without a key nothing limits them."""

    key: Key | None = None
    allowance: Allowance | None = None
    model: str | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_token: float | None = None
    """Seconds from the request's arrival to its first token."""
    started: float = field(default_factory=time.perf_counter)

    @property
    def owner(self) -> str:
        """Whose the request is: what it stores, only the same owner finds again."""
        return "" if self.key is None else self.key.id

    def read(self, model: str, tokens: int) -> None:
        """The request makes this model read a prompt. Raises ApiError if that is too much."""
        if self.allowance is not None:
            self.allowance.read(tokens)
        self.model, self.prompt_tokens = model, self.prompt_tokens + tokens

    def wrote(self) -> None:
        """A token of an answer came."""
        if self.first_token is None:
            self.first_token = time.perf_counter() - self.started
        self.completion_tokens += 1
        if self.allowance is not None:
            self.allowance.wrote(1)

    def facts(self) -> dict[str, Any]:
        """What the log tells of it."""
        if self.model is None:
            return {}
        told: dict[str, Any] = {"model": self.model, "prompt_tokens": self.prompt_tokens}
        if self.completion_tokens:
            told["completion_tokens"] = self.completion_tokens
        if self.first_token is not None:
            told["first_token_seconds"] = round(self.first_token, 4)
        return told


def account(request: HTTPConnection) -> Account:
    """That of a request."""
    found: Account = request.scope["state"]["account"]
    return found
