"""A network without weights whose logits depend on every token before, and on nothing else."""

import hashlib
from types import SimpleNamespace

import torch
from torch import nn

#: Added to the tokens of long texts, where those are read otherwise.
LONG = 100


class FakeCache:
    """Pages of tokens instead of keys and values; notices every misuse."""

    def __init__(self, rows, capacity, pages, page_size, can_rewind):
        self.capacity, self.pages, self.page_size = capacity, pages, page_size
        self.can_rewind = can_rewind
        self.contents = [[None] * page_size for _ in range(pages + 1)]
        self.tables: list[list[int]] = [[0] * -(-capacity // page_size) for _ in range(rows)]
        self.lengths = [0] * rows
        self.carried: list[tuple[int, ...]] = [()] * rows  # what recurrent layers read so far

    def step(self, work, lengths):
        assert len({row for row, _ in work}) == len(work) == len(lengths)
        assert all(count > 0 for _, count in work)
        assert all(self.lengths[row] + count <= self.capacity for row, count in work)
        return [(row, count, length) for (row, count), length in zip(work, lengths, strict=True)]

    def write(self, row, tokens):
        for place, token in enumerate(tokens, self.lengths[row]):
            page = self.tables[row][place // self.page_size]
            assert page > 0
            slot = place % self.page_size
            others = [table for other, table in enumerate(self.tables) if other != row]
            shared = any(page in table for table in others)
            assert not shared or self.contents[page][slot] in (token, None), "shared page changed"
            self.contents[page][slot] = token
        self.carried[row] += tuple(tokens)
        self.lengths[row] += len(tokens)

    def held(self, row):
        """The tokens that `row` holds, as its pages say; None in those that are nobody's."""
        tokens = [
            self.contents[self.tables[row][n // self.page_size]][n % self.page_size]
            for n in range(self.lengths[row])
        ]
        if not self.can_rewind:
            assert tuple(tokens) == self.carried[row]
        return tokens

    def give(self, row, pages, start=0):
        self.tables[row][start : start + len(pages)] = pages

    def resume(self, row, pages, length):
        assert self.can_rewind or length == 0
        assert length <= len(pages) * self.page_size
        self.free(row)
        self.give(row, pages)
        self.lengths[row] = length

    def free(self, row):
        self.lengths[row], self.carried[row] = 0, ()
        self.tables[row] = [0] * len(self.tables[row])

    def rewind(self, row, length):
        assert self.can_rewind
        assert length <= self.lengths[row]
        self.lengths[row], self.carried[row] = length, self.carried[row][:length]

    def copy_page(self, source, target):
        self.contents[target] = list(self.contents[source])

    def copy_carried(self, source, target):
        self.carried[target], self.lengths[target] = self.carried[source], self.lengths[source]


class FakeNetwork:
    """Logits drawn from a generator seeded by a hash of the whole prefix, or of its last `window`.

    Every token of a text longer than `rereads_at` must have been read as part of such a text.
    `interrupt` is called before each forward and after it has filled the cache;
    `poison` is a token after which the logits are not a number.
    """

    def __init__(
        self,
        vocabulary=12,
        context=40,
        poison=None,
        can_rewind=True,
        window=None,
        rereads_at=None,
        reusable_prefixes=True,
    ):
        self.config = SimpleNamespace(
            vocabulary=vocabulary,
            context=context,
            window=window,
            rereads_at=rereads_at,
            reusable_prefixes=reusable_prefixes,
        )
        self.poison, self.can_rewind = poison, can_rewind
        self.steps: list[list[tuple[int, int]]] = []
        self.interrupt = lambda: None
        self.layer = nn.Identity()

    def parameters(self):
        return iter([torch.zeros(1)])

    def get_submodule(self, name):
        assert name == "layer"
        return self.layer

    def new_paged_cache(self, rows, capacity, pages, page_size, bits):
        self.cache = FakeCache(rows, capacity, pages, page_size, self.can_rewind)
        return self.cache

    def __call__(self, tokens, positions, work):
        self.steps.append([(row, count) for row, count, _ in work])
        self.interrupt()
        tokens = self.layer(tokens[..., None])[..., 0]
        hidden, offset = [], 0
        for row, count, length in work:
            for place in range(offset, offset + count):
                assert positions[0, place] == self.cache.lengths[row]
                self.cache.write(row, self.read([int(tokens[0, place])], length))
                hidden.append(self.digest(self.cache.held(row)))
            offset += count
        assert tokens.shape == positions.shape == (1, offset)
        self.interrupt()
        return torch.tensor([hidden], dtype=torch.int64).unsqueeze(-1)

    def head(self, hidden):
        rows = [self.logits(int(digest)) for digest in hidden.flatten()]
        return torch.stack(rows)[None] if rows else torch.empty(1, 0, self.config.vocabulary)

    def digest(self, prefix):
        prefix = prefix[-self.config.window :] if self.config.window else prefix
        if self.poison in prefix:
            return -1
        assert len({token < LONG for token in prefix}) == 1, "read anew in part only"
        digest = hashlib.blake2b(bytes(prefix), digest_size=6).digest()
        return int.from_bytes(digest, "big")

    def logits(self, digest):
        if digest < 0:
            return torch.full((self.config.vocabulary,), torch.nan)
        generator = torch.Generator().manual_seed(digest)
        return torch.randn(self.config.vocabulary, generator=generator) * 2

    def next_logits(self, prefix, adapter=None):
        changed = [token + (adapter.shift if adapter else 0) for token in prefix]
        return self.logits(self.digest(self.read(changed, len(prefix))))

    def read(self, tokens, length):
        """What a text of that length makes of its tokens."""
        at = self.config.rereads_at
        return [token + LONG for token in tokens] if at is not None and length > at else tokens


class FakeAdapter:
    """Lets a `FakeNetwork` take tokens for others; never two that two adapters make of them."""

    packed, layers = True, ("layer",)

    def __init__(self, number):
        self.number, self.shift = number, 20 * number

    def add_to(self, layer, hidden):
        assert layer == "layer"
        return torch.full_like(hidden, self.shift)


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
