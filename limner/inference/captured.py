"""Passes that are captured once and then replayed (see `limner.kernels.capture`).

N rows, D width, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from limner import kernels
from limner.inference.sampler import PlainDraw
from limner.inference.scheduler import Work
from limner.models.decoder import Decoder
from limner.nn.packed import packed_weights
from limner.nn.paged import PagedCache
from limner.peft import Adapter, Use, applied

log = logging.getLogger(__name__)

#: No plan with guesses is made for more tokens: each keeps its logits.
LARGEST = 64
#: Nor for prompts of fewer, which say too little to pay for a capture.
SMALLEST = 8
#: Up to so many rows each number of them has a plan of its own; more are filled up to a multiple.
EXACT = 8
#: The same for prompts, where what is filled up costs more than a plan.
EXACT_PROMPTS = 16


class CapturedSteps:
    """Passes over one token of each text, and those guessed after it, by replaying a plan.

    A plan is captured during the first step with so many tokens. A network that does something
    which is no kernel cannot be captured; it runs operator by operator, and the log says why. A
    plan is for texts that all have one adapter, or none.

    Passes over prompts too, where there is no adapter: they then take three quarters of the time.
    Capturing one takes a little longer than to do it, so it waits for the second of a size.
    """

    def __init__(self, network: Decoder, cache: PagedCache) -> None:
        self.network, self.cache = network, cache
        packed = next(packed_weights(network), None) is not None
        self.possible = packed and kernels.current() is not None
        self._steps: dict[int, _Step] = {}
        # By adapter, and gone with it: one that nobody refers to answers nobody any more.
        self._adapted: WeakKeyDictionary[Adapter, dict[int, _Step]] = WeakKeyDictionary()
        self._prompts: dict[int, _Step | None] = {}  # None: one of this size has been
        self._memory = kernels.Memory()

    @property
    def sizes(self) -> list[int]:
        """The numbers of rows for which there is a plan without an adapter."""
        return sorted(self._steps)

    @property
    def prompt_sizes(self) -> list[int]:
        """The numbers of tokens of prompts for which there is a plan."""
        return sorted(size for size, step in self._prompts.items() if step is not None)

    def takes(self, work: Sequence[Work]) -> bool:
        """Whether this is the way to do `work`."""
        return self.possible and decodes(work)

    def run(self, work: Sequence[Work], draw: PlainDraw | None) -> tuple[Tensor, Tensor | None]:
        """Logits (N, V) after each token of each work; their memory is the next step's too.

        And tokens (N) drawn from them, if it is said how. All of `work` has the same adapter.
        """
        size, adapter = filled_up(sum(item.count for item in work)), work[0].sequence.adapter
        steps = self._steps if adapter is None else self._adapted.setdefault(adapter, {})
        if size not in steps:
            step = _Step(self.network, self.cache, size)
            step.write(work, draw)
            with applied(self.network, [] if adapter is None else [Use(adapter)]):
                step.capture()
            if self._can_replay(step):
                steps[size] = step
        else:
            step = steps[size]
            step.replay(work, draw)
        logits = self._done(step, work)
        return logits, None if draw is None else step.drawn[: len(logits)]

    def takes_prompts(self, work: Sequence[Work]) -> bool:
        """Whether `hidden` is the way to do `work`; notes that there was work of its size."""
        tokens = sum(item.count for item in work)
        size = filled_up(tokens, EXACT_PROMPTS)
        plain = all(item.sequence.adapter is None for item in work)
        able = self.possible and self.cache.can_rewind
        if not (able and plain and tokens >= SMALLEST):
            return False
        if size not in self._prompts:
            self._prompts[size] = None
            return False
        return bool(self._steps) or self._try(work[0])

    def hidden(self, work: Sequence[Work]) -> Tensor:
        """Hidden vectors (N, D) of the tokens of prompts; their memory is the next pass's too."""
        size = filled_up(sum(item.count for item in work), EXACT_PROMPTS)
        step = self._prompts[size]
        if step is None:
            step = _Step(self.network, self.cache, size)
            step.write(work)
            step.capture(self._memory)
            if self._can_replay(step):
                self._prompts[size] = step
        else:
            step.replay(work)
        return self._done(step, work)

    def _try(self, item: Work) -> bool:
        """Whether passes can be captured, found out on a token that will be computed again."""
        step = _Step(self.network, self.cache, 1)
        step.write([replace(item, count=1, guesses=())])
        step.capture()
        if self._can_replay(step):
            self._steps[1] = step
        return self.possible

    def _can_replay(self, step: _Step) -> bool:
        """Whether a step can be replayed; if not, no other is captured, and the log says why."""
        if not step.plan.complete:
            self.possible = False
            what = ", ".join(step.plan.foreign)
            log.info("steps run operator by operator: %s cannot be captured", what)
        return self.possible

    def _done(self, step: _Step, work: Sequence[Work]) -> Tensor:
        self.cache.advance([(item.row, item.count) for item in work])
        return step.result[: sum(item.count for item in work)]


def decodes(work: Sequence[Work]) -> bool:
    """Whether all draw after one token each and those guessed after it, not too many in all."""
    decoding = all(item.draws and item.count == 1 + len(item.guesses) for item in work)
    return decoding and sum(item.count for item in work) <= max(len(work), LARGEST)


def token_rows(work: Sequence[Work], rows: int) -> list[tuple[int, int, int]]:
    """Text, position and token of each of `work`; the last stands for rows that only fill up."""
    found = [
        (item.row, item.sequence.computed + place, token)
        for item in work
        for place, token in enumerate(item.tokens)
    ]
    return found + found[-1:] * (rows - len(found))


def filled_up(rows: int, exact: int = EXACT) -> int:
    """The number of rows that `rows` are filled up to, so that few plans serve many numbers."""
    step = 1
    while rows > exact * step:
        step *= 2
    return -(-rows // step) * step


class _Step:
    """A plan for N rows, with the tensors that it reads and the result that it writes."""

    plan: kernels.Plan
    result: Tensor
    drawn: Tensor

    def __init__(self, network: Decoder, cache: PagedCache, rows: int) -> None:
        self.network, self.rows = network, rows
        self.inputs = torch.zeros(3, rows, dtype=torch.int64)
        self.texts, self.positions, tokens = self.inputs
        self.tokens = tokens[None]  # (1, N)
        self.state = cache.decode_step(self.texts, self.positions)
        self.temperatures = torch.zeros(rows)
        self.numbers = torch.zeros(rows, dtype=torch.float64)
        # Token vectors are looked up in the plan too, if they are looked up by a kernel.
        with kernels.capture() as lookup:
            vectors = network.embedding.vectors(self.tokens)  # (1, N, E)
        self.vectors = None if lookup.complete else vectors.clone()

    def capture(self, memory: kernels.Memory | None = None) -> None:
        """Do the step, and remember how, to logits (N, V), or with `memory` hidden vectors."""
        with kernels.capture(memory) as self.plan:
            hidden = self.network(self.tokens, self.positions[None], self.state, self.vectors)
            self.result = (self.network.head(hidden) if memory is None else hidden)[0]  # (N, ...)
            if memory is None:
                self.drawn = kernels.draw(self.result, self.numbers, self.temperatures)

    def replay(self, work: Sequence[Work], draw: PlainDraw | None = None) -> None:
        """Do the step again with other tokens."""
        self.write(work, draw)
        self.plan.replay()

    def write(self, work: Sequence[Work], draw: PlainDraw | None = None) -> None:
        """Say which tokens."""
        self.inputs.numpy().T[:] = token_rows(work, self.rows)
        if draw is None:
            self.temperatures.zero_()  # which costs least
        else:
            self.temperatures.numpy()[: len(draw.temperatures)] = draw.temperatures
            self.numbers.numpy()[: len(draw.numbers)] = draw.numbers
        if self.vectors is not None:
            self.vectors.copy_(self.network.embedding.vectors(self.tokens))
