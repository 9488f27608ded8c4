"""Searching for a text instead of drawing one: beams, diverse beams, contrastive search.

Branches of a text share the pages of what they begin with, by reference count, so that a search
costs the cache little more than one text.

R branches, N tokens laid end to end, D width, V vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from limner.inference.beams import Beam, BeamSettings, Search, forbid
from limner.inference.pages import PagePool
from limner.models.decoder import Decoder
from limner.nn.paged import PAGE_SIZE

#: Tokens of a prompt computed at once.
CHUNK = 512


class Branches:
    """Up to `most` texts of equal length, of up to `capacity` tokens, that go on from one another.

    Raises ValueError if what the network keeps of a text cannot be shared.
    """

    def __init__(self, network: Decoder, most: int, capacity: int) -> None:
        each = -(-capacity // PAGE_SIZE)
        self.network, self.pool = network, PagePool((most + 1) * each + most)
        self.cache = network.new_paged_cache(most, capacity, self.pool.pages, PAGE_SIZE)
        if not self.cache.can_rewind:
            raise ValueError(
                "this model is recurrent: what it carries of a text cannot be shared by the "
                "branches of a search; draw instead"
            )
        self.pages, self.length = [list[int]()], 0

    def read(self, tokens: Sequence[int]) -> Tensor:
        """Let the one branch there is go on with a text; its hidden vectors (N, D)."""
        parts = [tokens[at : at + CHUNK] for at in range(0, len(tokens), CHUNK)]
        return torch.cat([self._advance([part]) for part in parts])

    def extend(self, tokens: Sequence[int]) -> Tensor:
        """Let each branch go on with a token; the hidden vectors (R, D) of these."""
        return self._advance([[token] for token in tokens])

    def choose(self, sources: Sequence[int]) -> None:
        """Go on with copies of these branches, of which one may be there several times."""
        before, own = self.pages, set[int]()
        self.pages = [self._copy(before[source], own) for source in sources]
        for pages in before:
            for page in pages:
                self.pool.release(page)
        for row, pages in enumerate(self.pages):
            self.cache.resume(row, pages, self.length)

    def _copy(self, pages: list[int], taken: set[int]) -> list[int]:
        """The same full pages; the one that is written to is the first copy's own."""
        whole = self.length // PAGE_SIZE
        for page in pages[:whole]:
            self.pool.share(page)
        if whole == len(pages):
            return list(pages)
        last = pages[whole]
        if last in taken:
            fresh = self.pool.take()
            self.cache.copy_page(last, fresh)
            return [*pages[:whole], fresh]
        taken.add(last)
        self.pool.share(last)
        return list(pages)

    def _advance(self, texts: Sequence[Sequence[int]]) -> Tensor:
        count = len(texts[0])
        for row, pages in enumerate(self.pages):
            while len(pages) * PAGE_SIZE < self.length + count:
                pages.append(self.pool.take())
            self.cache.give(row, pages)
        device = self.network.device
        positions = [place for _ in texts for place in range(self.length, self.length + count)]
        hidden: Tensor = self.network(
            torch.tensor([[token for text in texts for token in text]], device=device),
            torch.tensor([positions], device=device),
            self.cache.step([(row, count) for row in range(len(texts))]),
        )  # (1, N, D)
        self.length += count
        return hidden[0]


@dataclass(frozen=True, kw_only=True)
class DiverseSettings(BeamSettings):
    """Beams in `groups`, each a search of its own with its share of `num_beams`.

    In every step a group's tokens count `diversity_penalty` less for each beam of the groups before
    that went on with them just now (Vijayakumar et al. 2018, https://arxiv.org/abs/1610.02424,
    Hamming diversity). The penalty only decides what is followed: scores are the model's own.
    """

    groups: int = 1
    diversity_penalty: float = 0.5

    def __post_init__(self) -> None:
        BeamSettings.__post_init__(self)
        if self.groups < 1 or self.num_beams % self.groups:
            raise ValueError(f"groups must divide num_beams ({self.num_beams}), not {self.groups}")
        if self.diversity_penalty < 0:
            raise ValueError(f"diversity_penalty must be 0 or more, not {self.diversity_penalty}")


@torch.inference_mode()
def search_beams(
    network: Decoder,
    prompt: Sequence[int],
    settings: DiverseSettings,
    *,
    end_tokens: Collection[int],
    max_tokens: int,
) -> list[Beam]:
    """The finished texts, best first; each begins with the prompt, which lengths do not count.

    With one group this is plain beam search, with the outcome of transformers.

    Raises ValueError if the network is recurrent.
    """
    given, longest = len(prompt), len(prompt) + max_tokens
    each = replace(settings, num_beams=settings.num_beams // settings.groups, groups=1)
    branches = Branches(network, settings.num_beams, longest)
    hidden = branches.read(prompt)[-1:]
    searches = [
        Search(each, end_tokens, given, longest, [Beam([*prompt], 0.0)])
        for _ in range(settings.groups)
    ]
    active, starts = list(searches), [0] * len(searches)
    while active:
        logprobs = network.head(hidden[None])[0].float().log_softmax(-1)  # (R, V)
        sources = _grow(active, starts, logprobs, settings)
        active = [search for search in active if not search.done]
        if active:
            branches.choose(sources)
            hidden = branches.extend([b.tokens[-1] for search in active for b in search.running])
            sizes = [len(search.running) for search in active]
            starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return sorted((b for search in searches for b in search.finished), key=lambda b: -b.score)


def _grow(
    searches: Sequence[Search], starts: Sequence[int], logprobs: Tensor, settings: DiverseSettings
) -> list[int]:
    """Let each search take its next step; the branches that those not done go on from."""
    sources: list[int] = []
    taken: Counter[int] = Counter()
    for search, start in zip(searches, starts, strict=True):
        rows = logprobs[start : start + len(search.running)].clone()
        rows = forbid(rows, [beam.tokens for beam in search.running], settings)
        for token, count in taken.items():
            rows[:, token] -= settings.diversity_penalty * count
        candidates = [
            c._replace(score=c.score + settings.diversity_penalty * taken[c.token])
            for c in search.candidates(rows)
        ]
        came_from = search.advance(candidates)
        taken.update(beam.tokens[-1] for beam in search.running)
        if not search.done:
            sources += [start + beam for beam in came_from]
    return sources


class Contrast(NamedTuple):
    """What contrastive search weighs: of the `top_k` best tokens, how new what they say is."""

    weight: float = 0.6
    """From 0 (the most probable token) to 1 (the one least like any before)."""
    top_k: int = 4

    def check(self) -> None:
        """Raise ValueError for a weight or number out of range."""
        if not 0 <= self.weight <= 1:
            raise ValueError(f"contrast must be from 0 to 1, not {self.weight}")
        if self.top_k < 1:
            raise ValueError(f"top_k must be 1 or more in contrastive search, not {self.top_k}")


@torch.inference_mode()
def search_contrast(
    network: Decoder,
    prompt: Sequence[int],
    settings: Contrast,
    *,
    end_tokens: Collection[int],
    max_tokens: int,
) -> list[int]:
    """The prompt and what follows by contrastive search (Su et al. 2022, arXiv 2202.06417).

    Each token is that of the `top_k` with the best (1 - weight) p - weight s, where p is its
    probability and s the largest cosine of its hidden vector and one before it.

    Raises ValueError if the network is recurrent, or a setting is out of range.
    """
    settings.check()
    count = min(settings.top_k, network.config.vocabulary)
    branches = Branches(network, count, len(prompt) + max_tokens)
    text, hidden = [*prompt], branches.read(prompt)  # (N, D)
    before, last = torch.nn.functional.normalize(hidden.float(), dim=-1), hidden[-1:]
    while len(text) < len(prompt) + max_tokens and not (
        len(text) > len(prompt) and text[-1] in end_tokens
    ):
        probabilities = network.head(last[None])[0, 0].float().softmax(-1)  # (V,)
        best = probabilities.topk(count)
        branches.choose([0] * count)
        tokens = best.indices.tolist()
        hidden = branches.extend(tokens)  # (k, D)
        directions = torch.nn.functional.normalize(hidden.float(), dim=-1)
        alike = (directions @ before.T).amax(-1)  # (k,)
        scores = (1 - settings.weight) * best.values - settings.weight * alike
        chosen = int(scores.argmax())
        branches.choose([chosen])
        text.append(tokens[chosen])
        last, before = hidden[chosen, None], torch.cat((before, directions[chosen, None]))
    return text
