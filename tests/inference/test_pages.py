"""The page pool: no page lost, none given twice, nothing known of a page that was given away."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from limner.inference.pages import PagePool, first_key, key_after

KEYS = [bytes([n]) for n in range(6)]


class Pool(RuleBasedStateMachine):
    """A pool beside what it should be, written as plainly as possible."""

    def __init__(self):
        super().__init__()
        self.pool = PagePool(5, most_cached=3)
        self.holders: list[int] = []  # a page once for each who refers to it
        self.known: dict[bytes, int] = {}
        self.left: list[int] = []  # unreferenced but known, the one left first at the front

    @precondition(lambda self: self.pool.available)
    @rule()
    def take(self):
        free = set(range(1, 6)) - set(self.holders) - set(self.left)
        page = self.pool.take()
        if free:
            assert page in free
        else:
            assert page == self.left.pop(0)
            self.forget(page)
        self.holders.append(page)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def release(self, data):
        page = data.draw(st.sampled_from(sorted(self.holders)))
        self.pool.release(page)
        self.holders.remove(page)
        if page not in self.holders and page in self.known.values():
            self.left.append(page)
            if len(self.left) > 3:
                self.forget(self.left.pop(0))

    @precondition(lambda self: self.holders)
    @rule(data=st.data(), key=st.sampled_from(KEYS))
    def remember(self, data, key):
        page = data.draw(st.sampled_from(sorted(self.holders)))
        self.pool.remember(page, key)
        if key not in self.known and page not in self.known.values():
            self.known[key] = page

    @rule(keys=st.lists(st.sampled_from(KEYS), unique=True))
    def find_and_share(self, keys):
        found = self.pool.find(keys)
        expected = []
        for key in keys:
            if key not in self.known:
                break
            expected.append(self.known[key])
        assert found == expected
        for page in found:
            self.pool.share(page)
            self.holders.append(page)
            if page in self.left:
                self.left.remove(page)

    @rule()
    def restore(self):
        self.pool.restore([[page] for page in self.holders])
        self.left = [page for page in self.known.values() if page in self.left]

    def forget(self, page):
        self.known = {key: known for key, known in self.known.items() if known != page}

    @invariant()
    def every_page_is_somewhere(self):
        assert self.pool.used == len(set(self.holders))
        assert self.pool.cached == len(self.left)
        assert self.pool.available == 5 - self.pool.used
        assert [self.pool.references(page) for page in range(1, 6)] == [
            self.holders.count(page) for page in range(1, 6)
        ]


TestPool = Pool.TestCase
TestPool.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_nothing_is_kept_where_nothing_may_be():
    pool = PagePool(2, most_cached=0)
    page = pool.take()
    pool.remember(page, KEYS[0])
    pool.release(page)
    assert (pool.cached, pool.available, pool.find(KEYS[:1])) == (0, 2, [])


def test_the_page_freed_last_is_taken_first():
    pool = PagePool(3)
    first, second = pool.take(), pool.take()
    pool.release(first)
    assert pool.take() == first != second


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((("a",), [1, 2]), (("b",), [1, 2])),
        ((("a",), [1, 2]), (("a",), [2, 1])),
        ((("a", 1), [1, 2]), (("a1",), [1, 2])),
        ((("a",), [1, 256]), (("a",), [1 + 2**8, 1])),
    ],
)
def test_what_differs_has_another_key(one, other):
    keys = [key_after(first_key(*conditions), tokens) for conditions, tokens in (one, other)]
    assert keys[0] != keys[1]


def test_a_page_is_named_by_all_that_stands_before_it():
    first, other = (key_after(first_key(), [n]) for n in (1, 2))
    assert key_after(first, [3]) != key_after(other, [3])
