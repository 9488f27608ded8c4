"""The forward pass of one step.

N tokens laid end to end, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from limner.inference.captured import CapturedSteps
from limner.inference.graphs import CudaRecorder, RecordedSteps
from limner.inference.holdings import Cache
from limner.inference.sampler import PlainDraw
from limner.inference.scheduler import Work
from limner.inference.sequence import Sequence as Text
from limner.models.decoder import Decoder
from limner.nn.paged import PagedCache
from limner.peft import Adapter, Use, applied


class Limits(Protocol):
    """What the engine needs to know of a network's settings."""

    @property
    def context(self) -> int:
        """The longest text, in tokens."""
        ...

    @property
    def vocabulary(self) -> int:
        """How many tokens there are."""
        ...

    @property
    def window(self) -> int | None:
        """How many places back any layer looks; None if one has no limit."""
        ...

    @property
    def rereads_at(self) -> int | None:
        """The length past which what is kept of a text must be computed anew, if there is one."""
        ...

    @property
    def reusable_prefixes(self) -> bool:
        """Whether the beginning of a text is kept the same however the text goes on."""
        ...


class Network(Protocol):
    """A decoder (`limner.models.decoder.Decoder`): hidden vectors, then logits where wanted."""

    @property
    def config(self) -> Limits:
        """Its settings."""
        ...

    @property
    def head(self) -> Callable[..., Any]:
        """From hidden vectors (1, n, D) to logits (1, n, V)."""
        ...

    @property
    def __call__(self) -> Callable[..., Any]:
        """From tokens (1, N), positions (1, N) and a state to hidden vectors (1, N, D)."""
        ...

    def parameters(self) -> Iterator[Any]:
        """Its weights."""
        ...

    def get_submodule(self, target: str) -> nn.Module:
        """One of its layers, which adapters may change."""
        ...

    def new_paged_cache(
        self, rows: int, capacity: int, pages: int, page_size: int, bits: int | None
    ) -> Cache:
        """An empty cache of pages that `rows` texts of up to `capacity` tokens share."""
        ...


#: Told the sequences of a pass, how many of its tokens are theirs, and all hidden vectors (N, D).
Watch = Callable[[list[tuple[Text, int]], Tensor], None]


class Pass(NamedTuple):
    """What came of a pass."""

    logits: Tensor
    """(R, V)."""
    drawn: Tensor | None = None
    """(R,): tokens drawn from them."""


class Runner:
    """Computes a step's tokens, all sequences in one pass, and the logits of those that draw.

    Steps are replayed where they can be: by limner's kernels on a CPU (`captured`), as CUDA graphs
    on a GPU (`recorded`), there with the operators that torch.compile makes if `compiled`.
    """

    def __init__(
        self, network: Network, cache: Cache, watch: Watch | None = None, compiled: bool = False
    ) -> None:
        self.network, self.cache, self.watch = network, cache, watch
        self.captured: CapturedSteps | None = None
        self.recorded: RecordedSteps | None = None
        if isinstance(network, Decoder) and isinstance(cache, PagedCache) and watch is None:
            if cache.device.type == "cuda":
                recorder = CudaRecorder(cache.device, compiled)
                self.recorded = RecordedSteps(network, cache, recorder)
            else:
                self.captured = CapturedSteps(network, cache)

    @property
    def on_kernels(self) -> bool:
        """Whether kernels do nearly all of the work."""
        return self.captured is not None and self.captured.possible

    def run(
        self, work: Sequence[Work], plain: Callable[[], PlainDraw | None] | None = None
    ) -> Pass:
        """The logits after the last token of each work that draws, in their order.

        Of work with guesses, those after each of them too. Where that costs nothing, which is where
        a step is replayed, tokens are drawn along with them as `plain` says.
        """
        if not work:
            return Pass(torch.empty(0, self.network.config.vocabulary))
        if self.recorded is not None and self.recorded.takes(work):
            return Pass(*self.recorded.run(work, plain and plain()))
        replayed = self.captured is not None and self.captured.takes(work)
        if len(adapters_of(work)) > 1 and (replayed or not self.cache.can_rewind):
            return self._run_apart(work)
        if replayed and self.captured is not None:
            return Pass(*self.captured.run(work, plain and plain()))
        picked, offset = list[int](), 0
        for item in work:
            offset += item.count
            if item.draws:
                picked += range(offset - 1 - len(item.guesses), offset)
        hidden = self._forward(work)  # (1, N, D)
        if self.watch is not None:
            self.watch([(item.sequence, item.count) for item in work], hidden[0])
        with applied(self.network, uses(work, hidden.device, picked), within="head."):
            logits: Tensor = self.network.head(hidden[:, picked])  # (1, R, V)
        return Pass(logits[0])

    def _run_apart(self, work: Sequence[Work]) -> Pass:
        """A pass for each adapter.

        For recurrent layers, inside which tokens are not in the pass's order; and since replaying
        a plan for each adapter takes less than one pass operator by operator.
        """
        rows: dict[int, Tensor] = {}
        for adapter in adapters_of(work):
            items = [item for item in work if item.sequence.adapter is adapter]
            drawn = [1 + len(item.guesses) if item.draws else 0 for item in items]
            for item, logits in zip(items, self.run(items).logits.split(drawn), strict=True):
                rows[item.row] = logits
        return Pass(torch.cat([rows[item.row] for item in work]))

    def _forward(self, work: Sequence[Work]) -> Tensor:
        if self.captured is not None and self.captured.takes_prompts(work):
            return self.captured.hidden(work)[None]
        tokens: list[int] = []
        positions: list[int] = []
        for item in work:
            start = item.sequence.computed
            tokens += item.tokens
            positions += range(start, start + item.count)
        state = self.cache.step(
            [(item.row, item.count) for item in work], [len(item.sequence.tokens) for item in work]
        )
        device = next(self.network.parameters()).device
        with applied(self.network, uses(work, device)):
            hidden: Tensor = self.network(
                torch.tensor([tokens], device=device),
                torch.tensor([positions], device=device),
                state,
            )
        return hidden


def adapters_of(work: Sequence[Work]) -> list[Adapter | None]:
    """The adapters of a step, each once; None stands for those who have none."""
    return list(dict.fromkeys(item.sequence.adapter for item in work))


def uses(
    work: Sequence[Work], device: torch.device, picked: Sequence[int] | None = None
) -> list[Use]:
    """Which adapters change which tokens of a pass, or of the `picked` of its tokens."""
    adapters = adapters_of(work)
    if len(adapters) == 1:
        return [] if adapters[0] is None else [Use(adapters[0])]
    owners = [item.sequence.adapter for item in work for _ in range(item.count)]
    if picked is not None:
        owners = [owners[token] for token in picked]
    tokens = {
        adapter: [n for n, owner in enumerate(owners) if owner is adapter]
        for adapter in adapters
        if adapter is not None
    }
    return [Use(a, torch.tensor(found, device=device)) for a, found in tokens.items() if found]
