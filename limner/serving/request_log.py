"""The log of requests: a line for each, without what was said unless that is wanted."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TextIO

from starlette.types import Message, Receive, Send

Form = Literal["json", "text", "off"]

requests_log = logging.getLogger("limner.serving.requests")


@dataclass(frozen=True)
class RequestLog:
    """How requests are written down.

    Args:
        form: "json" is a line of JSON for each request, "text" a line for people, "off" none.
        texts: whether the bodies of requests and answers are written too.
    """

    form: Form = "json"
    texts: bool = False

    def listen(self, receive: Receive, send: Send) -> Heard:
        """Stand between the server and the application, and keep the texts if they are wanted."""
        return Heard(receive, send) if self.texts else Unheard(receive, send)

    def write(self, facts: Mapping[str, Any]) -> None:
        """Write the line of one request."""
        if self.form == "json":
            requests_log.info(json.dumps(facts))
        elif self.form == "text":
            first = ("request", "method", "path", "status", "seconds")
            words = [str(facts[name]) for name in first]
            rest = [f"{name}={value}" for name, value in facts.items() if name not in first]
            requests_log.info(" ".join([*words, *rest]))


@dataclass
class Heard:
    """The bodies of a request and of its answer, as they went by."""

    asked_through: Receive
    answered_through: Send
    question: list[bytes] = field(default_factory=list)
    answer: list[bytes] = field(default_factory=list)

    async def receive(self) -> Message:
        """Pass on a message of the request."""
        message = await self.asked_through()
        self.question.append(message.get("body", b""))
        return message

    async def send(self, message: Message) -> None:
        """Pass on a message of the answer."""
        self.answer.append(message.get("body", b""))
        await self.answered_through(message)

    def texts(self) -> dict[str, str]:
        """What was said."""
        return {
            "question": b"".join(self.question).decode(errors="replace"),
            "answer": b"".join(self.answer).decode(errors="replace"),
        }


class Unheard(Heard):
    """Nothing is kept."""

    async def receive(self) -> Message:
        """Pass on a message of the request."""
        return await self.asked_through()

    async def send(self, message: Message) -> None:
        """Pass on a message of the answer."""
        await self.answered_through(message)

    def texts(self) -> dict[str, str]:
        """Nothing."""
        return {}


class StandardError(logging.StreamHandler[TextIO]):
    """Writes to what standard error is by then: tests and notebooks exchange it, and close it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        self.stream = sys.stderr
        super().emit(record)


def log_to_standard_error() -> None:
    """Write the lines to standard error, beside the package's other messages."""
    handler = StandardError()
    handler.setFormatter(logging.Formatter("%(message)s"))
    requests_log.handlers, requests_log.propagate = [handler], False
    requests_log.setLevel(logging.INFO)
