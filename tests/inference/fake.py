"""A network without weights whose logits depend on every token before, and on nothing else."""

import hashlib
from types import SimpleNamespace

import torch


class FakeCache:
    """Rows of tokens instead of keys and values; notices every misuse."""

    def __init__(self, rows, capacity, can_rewind):
        self.can_rewind = can_rewind
        self.held: list[list[int]] = [[] for _ in range(rows)]
        self.capacity = capacity

    @property
    def lengths(self):
        return [len(row) for row in self.held]

    def step(self, work):
        assert len({row for row, _ in work}) == len(work)
        assert all(count > 0 for _, count in work)
        assert all(len(self.held[row]) + count <= self.capacity for row, count in work)
        return work

    def rewind(self, row, length):
        assert 0 <= length <= len(self.held[row])
        assert self.can_rewind or length == 0
        del self.held[row][length:]

    def free(self, row):
        self.rewind(row, 0)


class FakeNetwork:
    """Logits drawn from a generator seeded by a hash of the whole prefix.

    `interrupt` is called before each forward and after it has filled the cache; `poison` is a token
    after which the logits are not a number.
    """

    def __init__(self, vocabulary=12, context=40, poison=None, can_rewind=True):
        self.config = SimpleNamespace(vocabulary=vocabulary, context=context)
        self.poison, self.can_rewind = poison, can_rewind
        self.steps: list[list[tuple[int, int]]] = []
        self.interrupt = lambda: None

    def parameters(self):
        return iter([torch.zeros(1)])

    def new_cache(self, rows, capacity):
        self.cache = FakeCache(rows, capacity, self.can_rewind)
        return self.cache

    def __call__(self, tokens, positions, work):
        self.steps.append(work)
        before = [list(self.cache.held[row]) for row, _ in work]
        self.interrupt()
        hidden, offset = [], 0
        for (row, count), held in zip(work, before, strict=True):
            for place in range(offset, offset + count):
                assert positions[0, place] == len(held)
                held.append(int(tokens[0, place]))
                hidden.append(self.digest(held))
            offset += count
            self.cache.held[row] += held[len(held) - count :]
        assert tokens.shape == positions.shape == (1, offset)
        self.interrupt()
        return torch.tensor([hidden], dtype=torch.int64).unsqueeze(-1)

    def head(self, hidden):
        rows = [self.logits(int(digest)) for digest in hidden.flatten()]
        return torch.stack(rows)[None] if rows else torch.empty(1, 0, self.config.vocabulary)

    def digest(self, prefix):
        if self.poison in prefix:
            return -1
        digest = hashlib.blake2b(bytes(prefix), digest_size=6).digest()
        return int.from_bytes(digest, "big")

    def logits(self, digest):
        if digest < 0:
            return torch.full((self.config.vocabulary,), torch.nan)
        generator = torch.Generator().manual_seed(digest)
        return torch.randn(self.config.vocabulary, generator=generator) * 2

    def next_logits(self, prefix):
        return self.logits(self.digest(prefix))


class Letters:
    """A decoder whose tokens are letters, of which some stay incomplete until the next token.

    Token 0 completes nothing by itself: it is written with the token that follows, or at the end.
    """

    pieces = ("?", "a", "b", "c", "ab", "bc", "abc", "\n", " a", "b ", "aa", "bb")

    def __init__(self):
        self.open = ""

    def push(self, token):
        self.open += self.pieces[token % len(self.pieces)]
        if token == 0:
            return ""
        text, self.open = self.open, ""
        return text

    def finish(self):
        text, self.open = self.open, ""
        return text
