"""What each sequence holds of the cache: its pages, and the row whose table lists them.

A sequence's own `pages` and `computed` are the truth; the pool's counts and the cache's tables
follow from them, so that an interrupt between any two lines can be mended (`restore`).
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from typing import Any, Protocol

from limner.inference.pages import PagePool, first_key, key_after
from limner.inference.sequence import Sequence

#: Stands in a sequence's pages for one that it needs no more.
NOBODYS = 0


class Cache(Protocol):
    """Keys and values in pages, which rows list (`limner.nn.paged.PagedCache`)."""

    pages: int
    """How many pages can be given."""
    page_size: int
    """Tokens a page holds."""
    can_rewind: bool
    """Whether a row can go back to any earlier length, or only to nothing."""

    def step(self, work: Many[tuple[int, int]], lengths: Many[int] | None = None, /) -> Any:
        """The state of one forward pass over (row, count of new tokens) pairs.

        `lengths` says how much of each text is known by now.
        """
        ...

    def give(self, row: int, pages: Many[int], start: int = 0, /) -> None:
        """Let `pages` hold the text of a row, from its `start`-th page on."""
        ...

    def resume(self, row: int, pages: Many[int], length: int, /) -> None:
        """Let a row hold the first `length` tokens of a text, as they stand in `pages`."""
        ...

    def rewind(self, row: int, length: int, /) -> None:
        """Forget what a row holds beyond its first `length` tokens."""
        ...

    def free(self, row: int, /) -> None:
        """Forget all that a row holds."""
        ...

    def copy_page(self, source: int, target: int, /) -> None:
        """Let one page hold what another holds."""
        ...

    def copy_carried(self, source: int, target: int, /) -> None:
        """Let row `target` be as long as row `source`, and its recurrent layers carry the same."""
        ...


@dataclass(frozen=True)
class Rules:
    """What a network's keys and values allow.

    `window` is how far back any layer looks, if all have a limit; `chunk` how many tokens are
    computed at once. `rereads_at` is the length past which a text must be read anew. `shares` says
    whether equal beginnings have equal keys.
    """

    chunk: int
    window: int | None = None
    rereads_at: int | None = None
    shares: bool = True

    def most_pages(self, tokens: int, size: int) -> int:
        """Pages of `size` tokens that a text of `tokens` holds at most, while it is computed."""
        whole = -(-tokens // size)
        if self.window is None:
            return whole
        return min(whole, -(-(self.window + self.chunk) // size) + 1)


class Holdings:
    """Gives sequences rows and pages, and takes them back."""

    def __init__(self, cache: Cache, pool: PagePool, rules: Rules) -> None:
        self.cache, self.pool, self.rules = cache, pool, rules
        self.size = cache.page_size
        self.shares = rules.shares and cache.can_rewind and pool.most_cached > 0
        #: Tokens of texts that came, and how many of them were found computed.
        self.asked = self.found = 0

    def missing(self, sequence: Sequence, found: Many[int] = ()) -> int:
        """Pages it will want for the tokens it has and the next, beside those that were found."""
        tokens = min(len(sequence.tokens) + 1, sequence.limit - 1)
        held = sum(page != NOBODYS for page in (*sequence.pages, *found))
        return max(0, self.rules.most_pages(tokens, self.size) - held)

    def found_pages(self, sequence: Sequence) -> list[int]:
        """Pages that hold the beginning of its text already; at least a token is left over."""
        sequence.long = self._is_long(sequence)
        if not self.shares:
            return []
        most = (len(sequence.tokens) - 1) // self.size
        found = self.pool.find(self._keys(sequence)[:most])
        passed = self._out_of_sight(len(found) * self.size)
        return [NOBODYS] * passed + found[passed:]

    def place(self, sequence: Sequence, row: int, found: list[int]) -> None:
        """Give it a row, and the pages that were found."""
        for page in found:
            if page != NOBODYS:
                self.pool.share(page)
        sequence.row, sequence.pages = row, found
        sequence.computed = len(found) * self.size
        if sequence.reused is None:  # one that was put back finds its own pages again
            sequence.reused = sequence.computed
        self.cache.resume(row, found, sequence.computed)
        self.asked += len(sequence.tokens)
        self.found += sequence.computed

    def fork(self, source: Sequence, target: Sequence, row: int) -> None:
        """Give `target` a row that holds all that is computed of `source`, whose text it shares."""
        assert source.row is not None
        whole, rest = divmod(source.computed, self.size)
        pages = source.pages[:whole]
        for page in pages:
            if page != NOBODYS:
                self.pool.share(page)
        target.row, target.pages, target.long = row, pages, source.long
        if rest:
            pages.append(self.pool.take())
            self.cache.copy_page(source.pages[whole], pages[-1])
        self.cache.give(row, pages)
        self.cache.copy_carried(source.row, row)
        target.computed = source.computed

    def fitting(self, sequence: Sequence, count: int) -> int:
        """How many of its next `count` tokens there are pages for."""
        room = (len(sequence.pages) + self.pool.available) * self.size - sequence.computed
        return min(count, room)

    def room(self, sequence: Sequence, most: int) -> int:
        """How many tokens, `most` at most, may be guessed after its last one.

        The one drawn after them must still be in its limit, and they may not make it a text that
        is read otherwise.
        """
        room = min(most, sequence.limit - 1 - len(sequence.tokens))
        if self.rules.rereads_at is not None and not self._is_long(sequence):
            room = min(room, self.rules.rereads_at - len(sequence.tokens))
        return max(0, min(room, self.fitting(sequence, sequence.pending + room) - sequence.pending))

    def extend(self, sequence: Sequence, count: int) -> None:
        """Give it the pages that its next `count` tokens need."""
        assert sequence.row is not None
        start = len(sequence.pages)
        needed = -(-(sequence.computed + count) // self.size)
        for _ in range(start, needed):
            sequence.pages.append(self.pool.take())
        if needed > start:
            self.cache.give(sequence.row, sequence.pages[start:], start)

    def advance(self, sequence: Sequence, count: int) -> None:
        """Its next `count` tokens are computed: remember full pages, leave those out of sight."""
        before = sequence.computed // self.size
        sequence.computed += count
        full = sequence.computed // self.size
        if self.shares and full > before:
            keys = self._keys(sequence)
            for index in range(before, full):
                self.pool.remember(sequence.pages[index], keys[index])
        self._leave(sequence, self._out_of_sight(sequence.computed))

    def forget_guesses(self, sequence: Sequence) -> None:
        """Let its row hold no more than what is computed of it."""
        assert sequence.row is not None
        self.cache.rewind(sequence.row, sequence.computed)

    def drop(self, sequence: Sequence) -> None:
        """Take its row and pages; what it held is computed again when it gets others."""
        assert sequence.row is not None
        row, pages = sequence.row, sequence.pages
        sequence.computed, sequence.pages, sequence.row = 0, [], None
        # The end of a text is worth the least to others: it is the first to be given away.
        for page in reversed(pages):
            if page != NOBODYS:
                self.pool.release(page)
        self.cache.free(row)

    def outgrown(self, sequence: Sequence) -> bool:
        """Whether what is held of it was computed for a shorter text than it now is."""
        return sequence.row is not None and sequence.long != self._is_long(sequence)

    def same_page(self, sequence: Sequence, other: Sequence, index: int) -> bool:
        """Whether `other` is yet to compute what `sequence` wants in its page `index`."""
        if other.pending < 2 or (index + 1) * self.size <= other.computed:
            return False
        wanted, coming = self._keys(sequence), self._keys(other)
        return index < min(len(wanted), len(coming)) and wanted[index] == coming[index]

    def restore(self, sequences: Iterable[Sequence], rows: int) -> None:
        """Let the pool and the cache say what the sequences say."""
        sequences = list(sequences)
        self.pool.restore([p for p in s.pages if p != NOBODYS] for s in sequences)
        owners = {sequence.row: sequence for sequence in sequences}
        for row in range(rows):
            owner = owners.get(row)
            if owner is None:
                self.cache.free(row)
            elif self.cache.can_rewind:
                self.cache.resume(row, owner.pages, owner.computed)
            else:
                self.drop(owner)

    def _out_of_sight(self, computed: int) -> int:
        """How many pages no layer looks back to from the token after so many."""
        window = self.rules.window
        return 0 if window is None else max(0, computed + 1 - window) // self.size

    def _leave(self, sequence: Sequence, first: int) -> None:
        """Release its pages before the `first`: no layer looks back so far."""
        assert sequence.row is not None
        for index in range(first - 1, -1, -1):
            page = sequence.pages[index]
            if page == NOBODYS:
                break
            sequence.pages[index] = NOBODYS
            self.cache.give(sequence.row, [NOBODYS], index)
            self.pool.release(page)

    def _is_long(self, sequence: Sequence) -> bool:
        at = self.rules.rereads_at
        return at is not None and len(sequence.tokens) > at

    def _keys(self, sequence: Sequence) -> list[bytes]:
        """Names of what its full pages hold, as far as its tokens are known."""
        root = first_key(sequence.conditions, sequence.long)
        keys = sequence.keys
        if keys[:1] != [root]:
            keys[:] = [root]
        for index in range(len(keys) - 1, len(sequence.tokens) // self.size):
            tokens = sequence.tokens[index * self.size : (index + 1) * self.size]
            keys.append(key_after(keys[-1], tokens))
        return keys[1:]
