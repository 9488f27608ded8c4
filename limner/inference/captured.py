"""Decode steps that are captured once and then replayed (see `limner.kernels.capture`).

N rows, D width, V vocabulary.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from limner import kernels
from limner.inference.scheduler import Work
from limner.models.decoder import Decoder
from limner.nn.packed import packed_weights
from limner.nn.paged import PagedCache
from limner.peft import Adapter, Use, applied

log = logging.getLogger(__name__)

#: No plan with guesses is made for more tokens: each keeps its logits, and Python matters less.
LARGEST = 64
#: Up to so many rows each number of them has a plan of its own; more are filled up to a multiple.
EXACT = 8


class CapturedSteps:
    """One token for each of some rows, and those guessed after it, computed by replaying a plan.

    A plan is captured during the first step with so many rows. A network that does something which
    is no kernel cannot be captured; it runs operator by operator, and the log says why. A plan is
    for rows that all have one adapter, or none.
    """

    def __init__(self, network: Decoder, cache: PagedCache) -> None:
        self.network, self.cache = network, cache
        packed = next(packed_weights(network), None) is not None
        self.possible = packed and kernels.current() is not None
        self._steps: dict[int, _Step] = {}
        # By adapter, and gone with it: one that nobody refers to answers nobody any more.
        self._adapted: WeakKeyDictionary[Adapter, dict[int, _Step]] = WeakKeyDictionary()

    @property
    def sizes(self) -> list[int]:
        """The numbers of rows for which there is a plan without an adapter."""
        return sorted(self._steps)

    def takes(self, work: Sequence[Work]) -> bool:
        """Whether this is the way to do `work`."""
        decoding = all(item.draws and item.count == 1 + len(item.guesses) for item in work)
        tokens = sum(item.count for item in work)
        return self.possible and decoding and tokens <= max(len(work), LARGEST)

    def run(self, work: Sequence[Work]) -> Tensor:
        """Logits (N, V) after each token of each work; their memory is the next step's too.

        All of `work` has the same adapter.
        """
        size, adapter = filled_up(sum(item.count for item in work)), work[0].sequence.adapter
        steps = self._steps if adapter is None else self._adapted.setdefault(adapter, {})
        if size not in steps:
            step = _Step(self.network, self.cache, size)
            with applied(self.network, [] if adapter is None else [Use(adapter)]):
                logits = step.capture(work)
            if step.plan.complete:
                steps[size] = step
            else:
                self.possible = False
                log.info("steps run operator by operator: %s cannot be captured", step.obstacles)
        else:
            logits = steps[size].replay(work)
        self.cache.advance([(item.row, item.count) for item in work])
        return logits


def filled_up(rows: int) -> int:
    """The number of rows that `rows` are filled up to, so that few plans serve many numbers."""
    step = 1
    while rows > EXACT * step:
        step *= 2
    return -(-rows // step) * step


class _Step:
    """A plan for N rows, with the tensors that it reads and the logits that it writes."""

    plan: kernels.Plan
    logits: Tensor

    def __init__(self, network: Decoder, cache: PagedCache, rows: int) -> None:
        self.network, self.rows = network, rows
        self.texts = torch.zeros(rows, dtype=torch.int64)
        self.positions = torch.zeros(rows, dtype=torch.int64)
        self.tokens = torch.zeros(1, rows, dtype=torch.int64)
        self.vectors = network.embedding.vectors(self.tokens).clone()  # (1, N, E)
        self.state = cache.decode_step(self.texts, self.positions)

    @property
    def obstacles(self) -> str:
        """What kept the plan from being complete."""
        return ", ".join(self.plan.foreign)

    def capture(self, work: Sequence[Work]) -> Tensor:
        """Do the step, and remember how."""
        self._write(work)
        with kernels.capture() as self.plan:
            hidden = self.network(self.tokens, self.positions[None], self.state, self.vectors)
            self.logits = self.network.head(hidden)[0]  # (N, V)
        return self.logits[: sum(item.count for item in work)]

    def replay(self, work: Sequence[Work]) -> Tensor:
        """Do the step again with other tokens."""
        self._write(work)
        self.plan.replay()
        return self.logits[: sum(item.count for item in work)]

    def _write(self, work: Sequence[Work]) -> None:
        """Say which tokens; the last one stands for rows that are only there to fill up."""
        rows = [
            (item.row, item.sequence.computed + place, token)
            for item in work
            for place, token in enumerate(item.tokens)
        ]
        rows += rows[-1:] * (self.rows - len(rows))
        texts, positions, tokens = torch.tensor(rows).unbind(1)
        self.texts.copy_(texts)
        self.positions.copy_(positions)
        self.tokens[0] = tokens
        self.vectors.copy_(self.network.embedding.vectors(self.tokens))
