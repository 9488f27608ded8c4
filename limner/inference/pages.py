"""Which pages of the cache are whose, and which can be had again: no tensors here.

A page is in one of three states: used (some sequences refer to it), cached (nobody does, but what
it holds is known and may be asked for), or free.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence


def key_after(parent: bytes, tokens: Sequence[int]) -> bytes:
    """Names what a full page holds: its `tokens`, and by the key of the page before all others.

    A collision would show one text's keys to another, so the hash is a cryptographic one.
    """
    return hashlib.blake2b(parent + array("q", tokens).tobytes(), digest_size=32).digest()


def first_key(*conditions: object) -> bytes:
    """The parent of a text's first page: whatever else its keys and values depend on."""
    return hashlib.blake2b(repr(conditions).encode(), digest_size=32).digest()


class PagePool:
    """Pages 1 to `pages`, counted by who refers to them, and what the full ones hold.

    Cached pages are given away again when no free one is left, the least recently used first, and
    beyond `most_cached` of them at once.
    """

    def __init__(self, pages: int, most_cached: int | None = None) -> None:
        self.pages = pages
        self.most_cached = pages if most_cached is None else most_cached
        self._known: dict[bytes, int] = {}
        self.restore(())

    def restore(self, held: Iterable[Iterable[int]]) -> None:
        """Start again from the pages that each sequence holds and what is known of pages.

        An interrupt may come between any two lines of what changes the pool.
        """
        self._references = [0] * (self.pages + 1)
        for page in (page for pages in held for page in pages):
            self._references[page] += 1
        self._keys = {page: key for key, page in self._known.items()}
        # In the order in which they were left: dictionaries keep it.
        self._cached = dict.fromkeys(p for p in self._known.values() if not self._references[p])
        every = range(self.pages, 0, -1)
        self._free = [p for p in every if not self._references[p] and p not in self._keys]

    @property
    def available(self) -> int:
        """How many pages can be taken."""
        return len(self._free) + len(self._cached)

    @property
    def cached(self) -> int:
        """How many pages nobody refers to but that hold something known."""
        return len(self._cached)

    @property
    def used(self) -> int:
        """How many pages somebody refers to."""
        return self.pages - self.available

    def references(self, page: int) -> int:
        """How many refer to a page."""
        return self._references[page]

    def take(self) -> int:
        """A page that nobody refers to, for one to write to.

        The one freed last, since its memory is at hand; a cached one only if none is free.
        """
        if not self._free:
            self._evict()
        page = self._free.pop()
        self._references[page] = 1
        return page

    def share(self, page: int) -> None:
        """One more refers to a page."""
        assert self._references[page] or page in self._cached
        self._cached.pop(page, None)
        self._references[page] += 1

    def release(self, page: int) -> None:
        """One fewer refers to a page; the last one leaves it cached if it is known, else free."""
        assert self._references[page] > 0
        self._references[page] -= 1
        if self._references[page]:
            return
        if page not in self._keys:
            self._free.append(page)
            return
        self._cached[page] = None
        if len(self._cached) > self.most_cached:
            self._evict()

    def remember(self, page: int, key: bytes) -> None:
        """A page is full and holds what `key` says; of two that hold the same one is remembered."""
        if key not in self._known and page not in self._keys:
            self._known[key] = page
            self._keys[page] = key

    def find(self, keys: Iterable[bytes]) -> list[int]:
        """The pages that hold `keys`, up to the first that is not there."""
        found = []
        for key in keys:
            page = self._known.get(key)
            if page is None:
                break
            found.append(page)
        return found

    def _evict(self) -> None:
        page = next(iter(self._cached))
        del self._known[self._keys.pop(page)]
        del self._cached[page]
        self._free.append(page)
