"""Who computes what in a step, and what becomes of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from limner.inference.holdings import NOBODYS, Holdings
from limner.inference.processors import Row
from limner.inference.rejection import Guess
from limner.inference.sampler import Draw
from limner.inference.sequence import Event, Sequence

#: From sequences and how many tokens may be guessed of each, and the number of answers in a step,
#: to what is guessed (`limner.inference.speculation.Speculation.guess`).
Guesser = Callable[[list[tuple[Sequence, int]], int], list[list[Guess]]]


@dataclass(frozen=True, slots=True)
class Work:
    """The next `count` tokens of a sequence; if they are its last, the step draws one more.

    `followers` draw from the same logits: other answers to the prompt that this one completes.
    `guesses` are the last of the `count` tokens: not yet the sequence's, and the step draws after
    each of them too.
    """

    sequence: Sequence
    row: int
    count: int
    draws: bool
    followers: tuple[Sequence, ...] = ()
    guesses: tuple[Guess, ...] = ()

    @property
    def tokens(self) -> list[int]:
        """The tokens to compute."""
        start = self.sequence.computed
        known = self.sequence.tokens[start : start + self.count]
        return [*known, *(guess.token for guess in self.guesses)]

    @property
    def drawn(self) -> int:
        """How many tokens are drawn."""
        return 1 + len(self.followers) + len(self.guesses) if self.draws else 0

    @property
    def drawing(self) -> list[Row]:
        """Who draws: the sequence and its followers after its last token, it after each guess."""
        if not self.draws:
            return []
        guessed = [guess.token for guess in self.guesses]
        places = [self.sequence.after(guessed[:end]) for end in range(1, len(guessed) + 1)]
        return [self.sequence, *self.followers, *places]


class Scheduler:
    """Plans steps of at most `token_budget` tokens for sequences in `rows` rows.

    First come, first served. Sequences with one token to compute go first, so that running answers
    flow on while prompts are computed in what is left of the budget. The budget is at least the
    number of rows; so whenever a prompt is unfinished at least one token is left for it. A sequence
    for whose next token no page is left takes those of the latest arrival, which is put back and
    computed again later. So the earliest that runs always moves on, and nobody is let in past one
    that waits for pages: nothing starves.

    An interrupt may end a step anywhere, so little is written down twice: `sequences` is all that
    is unfinished, in order of arrival; those with a row are running, the others wait; the rows and
    pages that nobody has are free. What a step left without a commit is mended by the next.
    """

    def __init__(self, holdings: Holdings, rows: int, token_budget: int) -> None:
        self.holdings, self.rows, self.token_budget = holdings, rows, token_budget
        self.sequences: list[Sequence] = []
        #: How often a sequence lost its pages to an earlier one.
        self.preemptions = 0
        #: Tokens guessed, and how many of them were right.
        self.proposed = self.accepted = 0
        self._settled = True  # whether no step is under way, or was interrupted
        self._unreported: list[Event] = []

    @property
    def busy(self) -> bool:
        """Whether a step would do or report something."""
        return bool(self.sequences or self._unreported)

    @property
    def running(self) -> list[Sequence]:
        """The sequences that have a row, in order of arrival."""
        return [sequence for sequence in self.sequences if sequence.row is not None]

    def add(self, sequence: Sequence) -> None:
        """Put a sequence at the end of the queue."""
        self.sequences.append(sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Finish a sequence now, wherever it stands.

        Its row and pages are free at once, or when the step under way is over.
        """
        self._unreported.append(sequence.finish("cancelled"))
        if self._settled:
            self._release()

    def preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's row and pages; it waits for others."""
        self.preemptions += 1
        self.holdings.drop(sequence)

    def plan(self) -> list[Work]:
        """What the next step computes."""
        if not self._settled:
            self.holdings.restore(self.sequences, self.rows)
        self._settled = False
        self._release()
        for sequence in self.sequences:
            if self.holdings.outgrown(sequence):
                self.holdings.drop(sequence)
        self._admit()
        work, left = [], self.token_budget
        for sequence in sorted(self.running, key=lambda sequence: sequence.pending > 1):
            if sequence.row is not None and (count := self._reserve(sequence, left)):
                work.append(self._work(sequence, sequence.row, count))
                left -= count
        # what an earlier arrival put back meanwhile is not computed
        work = [item for item in work if item.sequence.row is not None]
        # neighbouring rows are read without a copy when they stand side by side
        return sorted(work, key=lambda item: item.row)

    def lengthen(self, work: list[Work], guess: Guesser) -> list[Work]:
        """Let running answers compute guesses too, where that takes nothing from others."""
        able = [item for item in work if _can_guess(item)]
        left = self.token_budget - sum(item.count for item in work)
        if left < len(able):
            return work
        rows = sum(item.draws for item in work)
        asked = [(i.sequence, self.holdings.room(i.sequence, left // len(able))) for i in able]
        guesses = {i.row: found for i, found in zip(able, guess(asked, rows), strict=True)}
        return [self._lengthened(item, guesses.get(item.row, [])) for item in work]

    def commit(self, work: Iterable[Work], draws: Iterable[Draw]) -> list[Event]:
        """Append what was drawn, in the order of `drawing`; return what happened since the last."""
        drawn = iter(draws)
        for item in work:
            results = [next(drawn) for _ in range(item.drawn)]
            if item.sequence.finished:  # cancelled meanwhile, say by a stream that was dropped
                continue
            if item.guesses:
                self._take_guesses(item, results)
                continue
            if results:
                self._unreported.append(item.sequence.accept(results[0]))
            self.holdings.advance(item.sequence, item.count)
            for follower, result in zip(item.followers, results[1:], strict=True):
                self._follow(item.sequence, follower, result)
        self._release()
        self._settled = True
        events, self._unreported = self._unreported, []
        return events

    def _admit(self) -> None:
        """Give the free rows to those who came first, while there are pages for what they have."""
        running = self.running
        rows = self._free_rows()
        for sequence in [sequence for sequence in self.sequences if sequence.row is None]:
            if not rows:
                return
            found = self.holdings.found_pages(sequence)
            if self._waits_for_another(sequence, len(found)):
                continue
            if running and not self._fits(sequence, found):
                return
            self.holdings.place(sequence, rows.pop(0), found)
            running.append(sequence)

    def _free_rows(self) -> list[int]:
        taken = {sequence.row for sequence in self.sequences}
        return [row for row in range(self.rows) if row not in taken]

    def _waits_for_another(self, sequence: Sequence, found: int) -> bool:
        """Whether an earlier sequence is computing what this one could use.

        That is its whole prompt, or the page after those that are `found`.
        """
        leader = sequence.leader
        if leader is not None and not leader.finished and not leader.generated:
            return True
        earlier = self.sequences[: self.sequences.index(sequence)]
        return self.holdings.shares and any(
            other.row is not None and self.holdings.same_page(sequence, other, found)
            for other in earlier
        )

    def _fits(self, sequence: Sequence, found: list[int]) -> bool:
        """Whether there are pages for all that the running sequences have by now, and this one."""
        holdings = self.holdings
        promised = sum(holdings.missing(other) for other in self.running)
        woken = sum(page != NOBODYS and not holdings.pool.references(page) for page in found)
        return promised + holdings.missing(sequence, found) + woken <= holdings.pool.available

    def _reserve(self, sequence: Sequence, left: int) -> int:
        """Pages for as many of its next tokens as may be; how many those are."""
        wanted = min(sequence.pending, left)
        while not (count := self.holdings.fitting(sequence, wanted)):
            latest = self.running[-1]
            if latest is sequence or not wanted:
                return 0
            self.preempt(latest)
        self.holdings.extend(sequence, count)
        return count

    def _work(self, sequence: Sequence, row: int, count: int) -> Work:
        if count < sequence.pending:
            return Work(sequence, row, count, draws=False)
        followers = () if sequence.generated else self._followers(sequence)
        return Work(sequence, row, count, draws=True, followers=followers)

    def _lengthened(self, item: Work, guesses: list[Guess]) -> Work:
        """With as many of the guesses as there are pages for."""
        fitting = self.holdings.fitting(item.sequence, item.count + len(guesses)) - item.count
        if fitting < 1:
            return item
        self.holdings.extend(item.sequence, item.count + fitting)
        return replace(item, count=item.count + fitting, guesses=tuple(guesses[:fitting]))

    def _take_guesses(self, item: Work, results: list[Draw]) -> None:
        """Append the guesses that were drawn, and the first token that was not guessed."""
        sequence, guesses = item.sequence, item.guesses
        pairs = zip(results, guesses, strict=False)
        wrong = (n for n, (result, guess) in enumerate(pairs) if result.token != guess.token)
        right = next(wrong, len(guesses))
        taken = 0
        while taken <= right and not sequence.finished:
            self._unreported.append(sequence.accept(results[taken]))
            taken += 1
        sequence.record.learn(len(guesses), right)
        self.proposed += len(guesses)
        self.accepted += right
        self.holdings.advance(sequence, item.count - len(guesses) + taken - 1)
        self.holdings.forget_guesses(sequence)

    def _followers(self, leader: Sequence) -> tuple[Sequence, ...]:
        return tuple(s for s in self.sequences if s.leader is leader and not s.finished)

    def _follow(self, leader: Sequence, follower: Sequence, draw: Draw) -> None:
        """Let a follower begin its answer, and go on at once if its turn has come."""
        if follower.finished:
            return
        self._unreported.append(follower.accept(draw))
        follower.leader = None
        rows = self._free_rows()
        waiting = (s for s in self.sequences if s.row is None and not s.finished)
        if rows and next(waiting, None) is follower:
            shared = leader.pages[: leader.computed // self.holdings.size]
            if self._fits(follower, shared):
                self.holdings.fork(leader, follower, rows[0])

    def _release(self) -> None:
        """Free the rows and pages of finished sequences."""
        for sequence in self.sequences:
            if sequence.finished and sequence.row is not None:
                self.holdings.drop(sequence)
        self.sequences = [sequence for sequence in self.sequences if not sequence.finished]


def _can_guess(item: Work) -> bool:
    """Whether it is the next token of an answer that may be guessed further."""
    sequence = item.sequence
    return item.draws and sequence.speculates and bool(sequence.generated) and item.count == 1
