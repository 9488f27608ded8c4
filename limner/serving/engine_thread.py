"""The thread that owns an engine: requests in and events out, through queues.

The asyncio side never touches the engine. It hands over orders; the thread carries them out between
two steps, and hands back what each step made, a whole step at a time.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from limner.inference.constraints import Constraint
from limner.inference.engine import Engine
from limner.inference.sampling import Sampling
from limner.inference.sequence import Event
from limner.inference.sequence import Sequence as EngineSequence
from limner.inference.stopping import TextDecoder
from limner.peft import Adapter

Result = TypeVar("Result")
Order = Callable[[], None]
Pieces = Generator[None, None, Result]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Submission:
    """What one answer is made from; `sample` tells apart several to one prompt under one seed."""

    tokens: list[int]
    sampling: Sampling
    sample: int = 0
    constraint: Constraint | None = None
    """What holds the answer to a form."""
    decoder: TextDecoder | None = None
    """Makes the answer's text; None: the model's plain one."""
    adapter: Adapter | None = None
    """Changes the model for this answer."""


class QueueFullError(Exception):
    """More answers are under way and waiting than the server takes on."""


class AnswerFailedError(Exception):
    """The engine could not go on with an answer; the message is one line."""


class AnswerTimedOutError(AnswerFailedError):
    """An answer took longer than the server lets one take."""


class Observer(Protocol):
    """Who measures (`limner.serving.metrics`). Called on the asyncio side."""

    def first_token(self, seconds: float, /) -> None:
        """An answer's first token came this long after its request."""
        ...

    def next_token(self, seconds: float, /) -> None:
        """A further token came this long after the one before."""
        ...


class Answers:
    """The answers to one request, in the making.

    Iterating gives (index of the answer, event) as they come, until all have ended; what was
    cancelled ends with an event too. Raises AnswerFailedError if one cannot go on.
    """

    def __init__(
        self,
        count: int,
        cancel: Callable[[Answers], None],
        observer: Observer,
        *,
        on_token: Callable[[], None],
        most_seconds: float | None,
    ) -> None:
        self.count = self.unfinished = count
        self._on_token, self._most_seconds = on_token, most_seconds
        self.sequences: list[EngineSequence] = []  # the engine thread's own
        self.first: list[EngineSequence] = []
        """The first answer to each prompt; these are the engine thread's own, too."""
        self._cancel, self._observer = cancel, observer
        self._events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        self._latest: list[float | None] = [None] * count
        self._submitted = time.perf_counter()
        now = asyncio.get_running_loop().time()
        self._deadline = None if most_seconds is None else now + most_seconds

    async def __aiter__(self) -> AsyncIterator[tuple[int, Event]]:
        left = self.count
        while left:
            index, event = await self._next()
            left -= event.finish_reason is not None
            if event.finish_reason == "error":
                raise AnswerFailedError(event.error)
            yield index, event

    async def _next(self) -> tuple[int, Event]:
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._events.get()
        except TimeoutError:
            self.cancel()
            raise AnswerTimedOutError(
                f"it took longer than the {self._most_seconds:g} seconds that this server gives it"
            ) from None

    @property
    def cached_tokens(self) -> int:
        """Tokens of the prompts that earlier texts had computed; whole when answers have begun."""
        return sum(sequence.reused or 0 for sequence in self.first)

    def cancel(self) -> None:
        """End what is unfinished, and free its rows before the engine's next step."""
        if self.unfinished:
            self._cancel(self)

    def receive(self, index: int, event: Event) -> None:
        """Take an event from the engine thread; runs on the asyncio side."""
        self.unfinished -= event.finish_reason is not None
        if event.token is not None:
            self._measure(index)
            self._on_token()
        self._events.put_nowait((index, event))

    def _measure(self, index: int) -> None:
        now, latest = time.perf_counter(), self._latest[index]
        if latest is None:
            self._observer.first_token(now - self._submitted)
        else:
            self._observer.next_token(now - latest)
        self._latest[index] = now


class EngineThread:
    """Steps an engine in a thread of its own for as long as there is work.

    Args:
        engine: nobody else may touch it from now on.
        new_decoder: makes the decoder of one answer.
        most_waiting: answers that may wait for a row; more are refused with QueueFullError.
        observer: told how long tokens took.
        most_seconds: how long a request's answers may take, queueing included; None: for ever.

    Make it, and call it, on one asyncio loop. An error in a step ends the answers that were in
    that step, each with an event that says so; the thread goes on with the others.
    """

    def __init__(
        self,
        engine: Engine,
        new_decoder: Callable[[], TextDecoder],
        *,
        most_waiting: int,
        observer: Observer,
        most_seconds: float | None = None,
    ) -> None:
        self.engine, self.new_decoder, self.observer = engine, new_decoder, observer
        self.most_seconds = most_seconds
        self.capacity = engine.scheduler.rows + most_waiting
        self.unfinished = 0
        self._loop = asyncio.get_running_loop()
        self._orders: queue.SimpleQueue[Order] = queue.SimpleQueue()
        self._places: dict[int, tuple[Answers, int]] = {}
        self._jobs: deque[tuple[Pieces[Any], asyncio.Future[Any]]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="limner-engine", daemon=True)
        self._thread.start()

    # The asyncio side

    @property
    def running(self) -> int:
        """Answers that have a row."""
        return sum(sequence.row is not None for sequence in self.engine.scheduler.sequences)

    def running_with(self, adapter: Adapter) -> int:
        """Those of them that have this adapter."""
        rows = self.engine.scheduler.sequences
        return sum(one.row is not None and one.adapter is adapter for one in rows)

    def submit(
        self,
        submissions: Sequence[Submission],
        on_token: Callable[[], None] = lambda: None,
        observer: Observer | None = None,
    ) -> Answers:
        """Queue the answers to one request, all or none; `on_token` is called for each token.

        `observer` is told of them, the thread's own if not given. The caller has checked them as
        the engine does. Raises QueueFullError, and ValueError if they are more than would ever fit.
        """
        count = len(submissions)
        if count > self.capacity:
            raise ValueError(
                f"the request asks for {count} answers but this server takes {self.capacity} at "
                "once: ask for fewer"
            )
        if self.unfinished + count > self.capacity:
            raise QueueFullError
        self.unfinished += count
        answers = Answers(
            count,
            self._cancel,
            observer or self.observer,
            on_token=on_token,
            most_seconds=self.most_seconds,
        )
        self._orders.put(partial(self._admit, list(submissions), answers))
        return answers

    async def call(self, function: Callable[[], Result]) -> Result:
        """What a function that needs the engine's network returns; it runs between two steps."""
        done: asyncio.Future[Result] = self._loop.create_future()
        self._orders.put(partial(self._call, function, done))
        return await done

    async def call_in_pieces(self, pieces: Pieces[Result]) -> Result:
        """What a generator returns; it runs from one `yield` to the next between two steps.

        So answers under way go on while something long is computed. Dropped if the caller is.
        """
        done: asyncio.Future[Result] = self._loop.create_future()
        self._orders.put(partial(self._jobs.append, (pieces, done)))
        return await done

    async def stop(self, why: str) -> None:
        """End what is unfinished with an error that says why, and end the thread."""
        self._orders.put(partial(self._stop, why))
        await asyncio.to_thread(self._thread.join)

    def _cancel(self, answers: Answers) -> None:
        self._orders.put(partial(self._end, answers))

    def _receive(self, reports: Sequence[tuple[Answers, int, Event]]) -> None:
        for answers, index, event in reports:
            self.unfinished -= event.finish_reason is not None
            answers.receive(index, event)

    # The engine's side

    def _work(self) -> None:
        while not self._stopping:
            self._take_orders()
            if self.engine.busy:
                self._step()
            if self._jobs:
                self._advance()

    def _advance(self) -> None:
        """Compute a piece of the longest waiting job."""
        pieces, done = self._jobs.popleft()
        if done.cancelled():
            return
        try:
            next(pieces)
        except StopIteration as end:
            self._settle(done, end.value, None)
        except Exception as error:  # the caller's to deal with, on its own side
            self._settle(done, None, error)
        else:
            self._jobs.appendleft((pieces, done))  # one after another: each may take much memory

    def _take_orders(self) -> None:
        """Carry out what is asked for; with nothing else to do, wait for it."""
        if not self.engine.busy and not self._jobs:
            self._orders.get()()
        while True:
            try:
                order = self._orders.get_nowait()
            except queue.Empty:
                return
            order()

    def _step(self) -> None:
        try:
            events = self.engine.step()
        except Exception:  # whatever it is, the other answers must go on
            logger.exception("a step of the engine failed")
            events = self._fail_running()
        self._report(events)

    def _fail_running(self) -> list[Event]:
        """End every answer that was in the step; the engine's next plan frees their rows."""
        running = [s for s in self.engine.scheduler.sequences if s.row is not None]
        error = "the engine failed while computing this answer; the server's log says why"
        return [sequence.finish("error", error) for sequence in running if not sequence.finished]

    def _admit(self, submissions: list[Submission], answers: Answers) -> None:
        beside: EngineSequence | None = None
        for index, submission in enumerate(submissions):
            if index and submission.tokens != submissions[index - 1].tokens:
                beside = None  # another prompt
            try:
                sequence = self.engine.submit(
                    submission.tokens,
                    submission.sampling,
                    sample=submission.sample,
                    decoder=submission.decoder or self.new_decoder(),
                    constraint=submission.constraint,
                    beside=beside,
                    adapter=submission.adapter,
                )
            except ValueError as error:
                event = Event(-1, finish_reason="error", error=str(error))
                self._hand_over([(answers, index, event)])
                continue
            if beside is None:
                answers.first.append(sequence)
                beside = sequence
            answers.sequences.append(sequence)
            self._places[sequence.id] = answers, index

    def _end(self, answers: Answers) -> None:
        for sequence in answers.sequences:
            self.engine.cancel(sequence)

    def _call(self, function: Callable[[], Any], done: asyncio.Future[Any]) -> None:
        try:
            result, error = function(), None
        except Exception as raised:  # the caller's to deal with, on its own side
            result, error = None, raised
        self._settle(done, result, error)

    def _settle(self, done: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
        def settle() -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        self._loop.call_soon_threadsafe(settle)

    def _stop(self, why: str) -> None:
        self._stopping = True
        for sequence in [s for s in self.engine.scheduler.sequences if not s.finished]:
            self.engine.cancel(sequence)
        self._hand_over(
            [
                (answers, index, Event(number, finish_reason="error", error=why))
                for number, (answers, index) in self._places.items()
            ]
        )
        self._places.clear()
        for _, done in self._jobs:
            self._settle(done, None, AnswerFailedError(why))
        self._jobs.clear()

    def _report(self, events: Sequence[Event]) -> None:
        reports = []
        for event in events:
            if event.sequence not in self._places:
                continue  # it failed in a step that had already drawn this token
            answers, index = self._places[event.sequence]
            reports.append((answers, index, event))
            if event.finish_reason:
                del self._places[event.sequence]
        self._hand_over(reports)

    def _hand_over(self, reports: list[tuple[Answers, int, Event]]) -> None:
        if reports:
            self._loop.call_soon_threadsafe(self._receive, reports)
