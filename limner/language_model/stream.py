"""An answer while it is being written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from limner.inference.engine import Engine
from limner.inference.sequence import Sequence
from limner.language_model.calling import CallReader
from limner.language_model.completion import Completion, TokenScore, Usage, token_text

if TYPE_CHECKING:
    from limner.tokenizers import Tokenizer


class Stream(Iterator[str]):
    """Pieces of text as they become certain; joined, they are the text of the completion.

    Closing it, leaving its `with` block or dropping it cancels what is not yet generated. With
    `reader`, what belongs to calls of functions is no part of the text.
    """

    def __init__(
        self,
        engine: Engine,
        sequence: Sequence,
        tokenizer: Tokenizer,
        reader: CallReader | None = None,
    ) -> None:
        self._engine, self._sequence, self._tokenizer = engine, sequence, tokenizer
        self._reader = reader
        self._events = engine.follow(sequence)

    def __next__(self) -> str:
        for event in self._events:
            if event.error:
                raise ValueError(f"the answer broke off: {event.error}")
            text = event.text if self._reader is None else self._reader.take(event)
            if text:
                return text
        raise StopIteration

    @property
    def completion(self) -> Completion:
        """The answer so far; whole once the stream has ended."""
        answer, reader = completion(self._sequence, self._tokenizer), self._reader
        if reader is None:
            return answer
        called = bool(reader.calls) and answer.finish_reason == "stop"
        reason = "tool_calls" if called else answer.finish_reason
        return replace(answer, text=reader.text, calls=reader.calls, finish_reason=reason)

    def close(self) -> None:
        """Stop generating; what has been generated stays in `completion`."""
        self._events.close()  # type: ignore[attr-defined]  # a generator
        self._engine.cancel(self._sequence)

    def __enter__(self) -> Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self._engine.cancel(self._sequence)


def completion(sequence: Sequence, tokenizer: Tokenizer) -> Completion:
    """What a sequence has come to; ValueError if it broke off with an error."""
    if sequence.finish_reason == "error":
        raise ValueError(f"the answer broke off: {sequence.error}")
    tokens = tuple(sequence.generated)
    return Completion(
        text=sequence.text,
        tokens=tokens,
        finish_reason=sequence.finish_reason,
        usage=Usage(sequence.prompt_length, len(tokens), sequence.reused or 0),
        logprobs=_scores(sequence, tokenizer),
    )


def _scores(sequence: Sequence, tokenizer: Tokenizer) -> tuple[TokenScore, ...] | None:
    if sequence.sampling.logprobs is None:
        return None
    return tuple(
        TokenScore(
            event.token, token_text(tokenizer, event.token), event.logprob, event.alternatives
        )
        for event in sequence.events
        if event.token is not None and event.logprob is not None
    )
