"""Writing a target for a source that was read: translation, summaries, transcripts.

R rows still being written, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from limner.inference.constraints import Constraint
from limner.inference.sampler import draw
from limner.inference.sampling import Sampling
from limner.nn.cache import DenseCache
from limner.nn.memory import Remembering


class Writer(Protocol):
    """An encoder-decoder (`limner.models.encoder_decoder.EncoderDecoder`)."""

    @property
    def logits(self) -> Callable[..., Any]:
        """From target tokens (R, T) and a state to logits (R, T, V)."""
        ...

    def new_cache(self, rows: int, capacity: int) -> DenseCache:
        """An empty cache for `rows` targets of up to `capacity` tokens."""
        ...


@dataclass
class Target:
    """A target while it is written; the sampler's `Row`.

    `tokens` begin with `prompt_length` tokens that were given. `finish_reason` is "stop" at an end
    token, which is the last of `tokens` then, "length" at the limit, None before.
    """

    tokens: list[int]
    prompt_length: int
    sampling: Sampling
    seed: int
    sample: int = 0
    allowed: Tensor | None = None
    constraint: Constraint | None = None
    finish_reason: str | None = None
    logprobs: list[float] = field(default_factory=list)

    @property
    def generated(self) -> list[int]:
        """The tokens that were not given."""
        return self.tokens[self.prompt_length :]


@torch.inference_mode()
def write(
    network: Writer,
    memory: Remembering,
    prompt: Sequence[int],
    sampling: Sampling,
    *,
    end_tokens: Collection[int],
    max_tokens: int,
    not_first: Collection[int] = (),
) -> list[Target]:
    """A target for each source in `memory`, which the network's `read` made.

    Each begins with `prompt` and gets at most `max_tokens` tokens more (`sampling.max_tokens` may
    ask for fewer). Tokens that may not come right after the prompt are `not_first`. A target is the
    same whatever is written beside it.

    Raises ValueError if the logits of a target are not finite or allow no token.
    """
    limit = min(max_tokens, sampling.max_tokens or max_tokens)
    ends = {*end_tokens, *sampling.stop_tokens} if not sampling.ignore_eos else set()
    seed = torch.seed() % 2**63 if sampling.seed is None else sampling.seed
    rows = range(len(memory.memory))
    targets = [Target([*prompt], len(prompt), sampling, seed, sample=row) for row in rows]
    cache = network.new_cache(len(targets), len(prompt) + limit)
    active = list(rows)
    while active:
        logits = next_logits(
            network, memory, cache, active, [targets[row].tokens for row in active]
        )
        if not_first and not targets[active[0]].generated:
            logits[:, list(not_first)] = -torch.inf
        for row, chosen in zip(active, draw(logits, [targets[r] for r in active]), strict=True):
            if chosen.token is None:
                raise ValueError(f"target {row + 1} broke off: {chosen.error}")
            take(targets[row], chosen.token, ends, limit)
        going_on = [place for place, row in enumerate(active) if not targets[row].finish_reason]
        if len(going_on) < len(active):
            memory, active = memory.choose(going_on), [active[place] for place in going_on]
    return targets


def take(target: Target, token: int, ends: Collection[int], limit: int) -> None:
    """Write one token."""
    target.tokens.append(token)
    if token in ends:
        target.finish_reason = "stop"
    elif len(target.generated) == limit:
        target.finish_reason = "length"


def next_logits(
    network: Writer,
    memory: Remembering,
    cache: DenseCache,
    rows: Sequence[int],
    texts: Sequence[Sequence[int]],
) -> Tensor:
    """Logits (R, V) of what follows `texts`, which all have the same length.

    Text i stands in row `rows[i]` of the cache and looks at row i of the memory; only what the
    cache does not yet hold of it is computed.
    """
    held = cache.lengths[rows[0]]
    count = len(texts[0]) - held
    new = torch.tensor([text[held:] for text in texts], device=memory.memory.device)
    state = memory.over(cache.step([(row, count) for row in rows]))
    logits: Tensor = network.logits(new, state)
    return logits[:, -1]
