"""Who computes what in a step, and what becomes of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from limner.inference import sequence as sequences
from limner.inference.sampler import Draw


class Cache(Protocol):
    """Keys and values by row (`limner.nn.cache.DenseCache`)."""

    can_rewind: bool
    """Whether a row can go back to any earlier length, or only to nothing."""

    def step(self, work: Sequence[tuple[int, int]], /) -> Any:
        """The state of one forward pass over (row, count of new tokens) pairs."""
        ...

    def rewind(self, row: int, length: int, /) -> None:
        """Forget what a row holds beyond its first `length` tokens."""
        ...

    def free(self, row: int, /) -> None:
        """Forget all that a row holds."""
        ...


@dataclass(frozen=True, slots=True)
class Work:
    """The next `count` tokens of a sequence; if they are its last, the step draws one more."""

    sequence: sequences.Sequence
    row: int
    count: int
    draws: bool


class Scheduler:
    """Plans steps of at most `token_budget` tokens for sequences in `rows` rows.

    First come, first served. Sequences with one token to compute go first, so that running answers
    flow on while prompts are computed in what is left of the budget. The budget is at least the
    number of rows; so whenever a prompt is unfinished at least one token is left for it, and
    nothing starves.

    An interrupt may end a step anywhere, so nothing is written down twice: `sequences` is all that
    is unfinished, in order of arrival; those with a row are running, the others wait; and the rows
    that nobody has are free. What a step left in the cache without a commit is undone by the next.
    """

    def __init__(self, cache: Cache, rows: int, token_budget: int) -> None:
        self.cache, self.rows, self.token_budget = cache, rows, token_budget
        self.sequences: list[sequences.Sequence] = []
        self._underway: list[Work] = []
        self._unreported: list[sequences.Event] = []

    @property
    def busy(self) -> bool:
        """Whether a step would do or report something."""
        return bool(self.sequences or self._unreported)

    def add(self, sequence: sequences.Sequence) -> None:
        """Put a sequence at the end of the queue."""
        self.sequences.append(sequence)

    def cancel(self, sequence: sequences.Sequence) -> None:
        """Finish a sequence now, wherever it stands, and free its row."""
        self._unreported.append(sequence.finish("cancelled"))
        self._release()

    def preempt(self, sequence: sequences.Sequence) -> None:
        """Take a running sequence's row; what it held is computed again when it gets another."""
        assert sequence.row is not None
        sequence.computed = 0
        self.cache.free(sequence.row)
        sequence.row = None

    def plan(self) -> list[Work]:
        """What the next step computes."""
        self._recover()
        self._release()
        self._admit()
        running = [sequence for sequence in self.sequences if sequence.row is not None]
        work, left = [], self.token_budget
        for sequence in sorted(running, key=lambda sequence: sequence.pending > 1):
            if left:
                work.append(self._take(sequence, left))
                left -= work[-1].count
        # neighbouring rows are read without a copy when they stand side by side
        self._underway = sorted(work, key=lambda item: item.row)
        return self._underway

    def commit(self, work: Iterable[Work], draws: Iterable[Draw]) -> list[sequences.Event]:
        """Append what was drawn; return what happened since the last commit."""
        drawn = iter(draws)
        for item in work:
            result = next(drawn) if item.draws else None
            if item.sequence.finished:  # cancelled meanwhile, say by a stream that was dropped
                self.cache.free(item.row)
                continue
            if result:
                self._unreported.append(item.sequence.accept(result))
            item.sequence.computed += item.count
        self._release()
        self._underway = []
        events, self._unreported = self._unreported, []
        return events

    def _recover(self) -> None:
        """Undo what the last step did to the cache, if it was interrupted before its end."""
        for item in self._underway:
            if item.sequence.row is None:
                self.cache.free(item.row)
            elif self.cache.can_rewind:
                self.cache.rewind(item.row, item.sequence.computed)
            else:
                item.sequence.computed = 0
                self.cache.free(item.row)
        self._underway = []

    def _admit(self) -> None:
        """Give the free rows to those who came first."""
        taken = {sequence.row for sequence in self.sequences}
        free = (row for row in range(self.rows) if row not in taken)
        waiting = (sequence for sequence in self.sequences if sequence.row is None)
        for row, sequence in zip(free, waiting, strict=False):
            sequence.row = row

    def _take(self, sequence: sequences.Sequence, left: int) -> Work:
        assert sequence.row is not None
        count = min(sequence.pending, left)
        return Work(sequence, sequence.row, count, draws=count == sequence.pending)

    def _release(self) -> None:
        """Free the rows of finished sequences."""
        for sequence in self.sequences:
            if sequence.finished and sequence.row is not None:
                self.cache.free(sequence.row)
                sequence.row = None
        self.sequences = [sequence for sequence in self.sequences if not sequence.finished]
