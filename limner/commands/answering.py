"""Printing an answer while it is written."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from limner.commands.terminal import harmless, say

if TYPE_CHECKING:
    from limner.language_model import Completion, Stream

#: Where an answer of unstated length is cut off: a small model can go round in circles for ever.
LONGEST = 1024


@dataclass(frozen=True)
class Answer:
    """An answer that has been printed, and when its first text came (seconds, perf_counter)."""

    completion: Completion
    first_text: float | None
    cut_off: bool


def print_answer(stream: Stream, max_tokens: int | None) -> Answer:
    """Print the pieces of a stream and end the line.

    KeyboardInterrupt comes through when Ctrl-C is pressed, with the stream closed.
    """
    first, last = None, "\n"
    unlimited = max_tokens is None
    with stream:
        for last in stream:
            first = first or time.perf_counter()
            say(harmless(last))
            if unlimited and len(stream.completion.tokens) >= LONGEST:
                break
    if not last.endswith("\n"):
        say("\n")
    done = stream.completion
    return Answer(done, first, done.finish_reason in ("length", "cancelled"))
