"""Steps that a GPU records once and then replays, which spares it waiting for Python.

N rows, V vocabulary.
"""

from __future__ import annotations

import importlib.util
import logging
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from limner import kernels
from limner.inference.captured import decodes, filled_up, token_rows
from limner.inference.sampler import PlainDraw
from limner.inference.scheduler import Work
from limner.models.decoder import Decoder
from limner.nn.paged import PagedCache

log = logging.getLogger(__name__)

#: So many recorded steps are kept; the one not used for longest goes first.
MOST = 32
#: Up to so many rows each number of them has a step of its own; more are filled up to a multiple.
EXACT = 4
#: A step reads at least so many pages of each text, so that short ones do not record many.
FEWEST_PAGES = 8
#: Triton makes no programs for older GPUs.
COMPILED_FROM = (7, 0)

#: Logits (N, V) and tokens (N) drawn from them.
Result = tuple[Tensor, Tensor]


class Recorder(Protocol):
    """Records what a device is told to do."""

    def record(self, step: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """How to do `step` again, and where its result then stands; it may be done meanwhile.

        Raises RuntimeError if it cannot be recorded.
        """
        ...


class RecordedSteps:
    """Passes over one token of each text, and those guessed after it, by replaying a record.

    There is one for each number of rows and of pages that are read of each text, both filled up,
    the rows by doing the last one again. It is made when a step first has this size. A network
    that asks the device for numbers on the way cannot be recorded; it runs operator by operator,
    and the log says why. So do answers with an adapter.
    """

    def __init__(
        self, network: Decoder, cache: PagedCache, recorder: Recorder, most: int = MOST
    ) -> None:
        self.network, self.cache, self.recorder, self.most = network, cache, recorder, most
        self.possible = True
        self._steps: dict[tuple[int, int], _Step] = {}  # the one used last comes last

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """The numbers of rows and of pages for which there is a record, the one used last last."""
        return list(self._steps)

    def takes(self, work: Sequence[Work]) -> bool:
        """Whether this is the way to do `work`."""
        plain = all(item.sequence.adapter is None for item in work)
        return self.possible and plain and decodes(work)

    def run(self, work: Sequence[Work], draw: PlainDraw | None) -> tuple[Tensor, Tensor | None]:
        """Logits (N, V) after each token of each work; their memory is the next step's too.

        And tokens (N) drawn from them, if it is said how.
        """
        size = self._size(work)
        step = self._steps.pop(size, None) or _Step(self.network, self.cache, *size)
        step.write(work, draw)
        logits, drawn = step.replay() if step.recorded else self._record(step)
        if step.recorded:
            self._steps[size] = step
        while len(self._steps) > self.most:
            del self._steps[next(iter(self._steps))]
        self.cache.advance([(item.row, item.count) for item in work])
        tokens = sum(item.count for item in work)
        return logits[:tokens], None if draw is None else drawn[:tokens]

    def _size(self, work: Sequence[Work]) -> tuple[int, int]:
        """The numbers of rows and pages that `work` is filled up to."""
        longest = max(item.sequence.computed + item.count for item in work)
        pages = filled_up(max(-(-longest // self.cache.page_size), FEWEST_PAGES), 1)
        rows = filled_up(sum(item.count for item in work), EXACT)
        return rows, min(pages, self.cache.tables.shape[1])

    def _record(self, step: _Step) -> Result:
        """Record a step and do it; only do it if that cannot be, and record no other."""
        # Doing a step again writes the same keys, but would carry recurrent layers on twice.
        carried = [tensor for kept in self.cache.carried.values() for tensor in kept]
        before = [tensor.clone() for tensor in carried]
        try:
            step.record(self.recorder)
        except RuntimeError as error:
            self.possible = False
            self._steps.clear()
            log.info("steps run operator by operator, not recorded: %s", _first_line(error))
        for tensor, old in zip(carried, before, strict=True):
            tensor.copy_(old)
        return step.replay() if step.recorded else step.compute()


class _Step:
    """A step for N rows, with the tensor that it reads and the results that it writes."""

    def __init__(self, network: Decoder, cache: PagedCache, rows: int, pages: int) -> None:
        self.network, self.cache, self.rows, self.pages = network, cache, rows, pages
        # Text, position, token, temperature and random number of each row: together, since each
        # tensor that goes to a GPU takes as long as a small kernel.
        self.inputs = torch.zeros(5, rows, dtype=torch.float64, device=cache.device)
        self._again: Callable[[], None] | None = None
        self._result: Result | None = None

    @property
    def recorded(self) -> bool:
        """Whether it can be replayed."""
        return self._again is not None

    def write(self, work: Sequence[Work], draw: PlainDraw | None) -> None:
        """Say which tokens, and how they draw."""
        inputs = torch.zeros(5, self.rows, dtype=torch.float64)
        inputs[:3] = torch.tensor(token_rows(work, self.rows)).T
        if draw is not None:
            inputs[3, : len(draw.temperatures)] = torch.tensor(draw.temperatures)
            inputs[4, : len(draw.numbers)] = torch.tensor(draw.numbers, dtype=torch.float64)
        self.inputs.copy_(inputs)

    def compute(self) -> Result:
        """Do the step."""
        texts, positions, tokens = self.inputs[:3].long()
        state = self.cache.decode_step(texts, positions, self.pages)
        hidden = self.network(tokens[None], positions[None], state)  # (1, N, D)
        logits = self.network.head(hidden)[0]
        logits = logits if logits.dtype == torch.float64 else logits.float()
        return logits, kernels.draw(logits, self.inputs[4], self.inputs[3].float())

    def record(self, recorder: Recorder) -> None:
        """Have it recorded."""
        self._again, self._result = recorder.record(self.compute)

    def replay(self) -> Result:
        """Do the step again, as it was recorded."""
        assert self._again is not None
        assert self._result is not None
        self._again()
        return self._result


class CudaRecorder:
    """Records CUDA graphs, all in one pool of memory.

    With `compiled`, torch.compile makes a step's operators into fewer first, where it can. That
    takes from seconds to minutes for each size.
    """

    def __init__(self, device: torch.device, compiled: bool = False) -> None:
        self.device = device
        self.compiled = compiled and can_compile(torch.cuda.get_device_capability(device))
        how = "after torch.compile" if self.compiled else "without torch.compile"
        log.info("steps are recorded as CUDA graphs, %s", how)
        self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def record(self, step: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """How to do `step` again, and where its result then stands.

        Raises RuntimeError if it asks the device for numbers, or CUDA refuses to record it.
        """
        with torch.cuda.device(self.device):
            step = self._warmed_up(step)
            graph = torch.cuda.CUDAGraph()
            # What other threads do with the GPU meanwhile is no part of it, and no error.
            with torch.cuda.graph(
                graph, self._pool, self._stream, capture_error_mode="thread_local"
            ):
                result = step()
        return graph.replay, result

    def _warmed_up(self, step: Callable[[], Result]) -> Callable[[], Result]:
        """What is to be recorded of `step`, done before, so that nothing is made meanwhile."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            step()  # what is made once may be brought from the host
            refuse_questions(step)
            if self.compiled:
                step = self._compile(step)
        current.wait_stream(self._stream)
        return step

    def _compile(self, step: Callable[[], Result]) -> Callable[[], Result]:
        """`step` in fewer operators; as it is, and all others too, if it cannot be compiled."""
        compiled = torch.compile(step, dynamic=False)
        try:
            with torch._dynamo.config.patch(cache_size_limit=MOST):  # a program for each size
                compiled()
        except RuntimeError as error:
            self.compiled = False
            log.info("torch.compile is left out: %s", _first_line(error))
            return step
        return compiled


def can_compile(capability: tuple[int, int]) -> bool:
    """Whether torch.compile makes programs for a GPU of this capability here; the log says if not.

    It needs Triton, which makes none for older GPUs.
    """
    missing = None
    if capability < COMPILED_FROM:
        missing = f"the GPU's capability is {capability[0]}.{capability[1]}, less than 7.0"
    elif importlib.util.find_spec("triton") is None:
        missing = "Triton is not installed"
    if missing is not None:
        log.info("torch.compile is left out: %s", missing)
    return missing is None


def refuse_questions(step: Callable[[], Any]) -> None:
    """Do `step`; RuntimeError naming where it asks the device for numbers, or brings it some.

    Such a step cannot be replayed: what was asked would stay as it was. CUDA would notice too, but
    only after it began to record.
    """
    with _Questions() as questions:
        step()
    if questions.found:
        raise RuntimeError(f"numbers go to or from the device in {', '.join(questions.found)}")


class _Questions(TorchDispatchMode):
    """Sees operators whose result or its size the host must know, and copies to and from it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        #: Where they were called, each once.
        self.found: list[str] = []

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as in `limner.kernels.plan`

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if _asks(func, args, result):
            found = f"{func.overloadpacket.__name__} ({_caller()})"
            if found not in self.found:
                self.found.append(found)
        return result


_aten = torch.ops.aten
#: Their results have a size known before, unless a mask says what is wanted.
_INDEXING = (_aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default)
#: These bring even a single number over, which others take as it is.
_COPIES = (_aten._to_copy.default, _aten.copy_.default, _aten.lift_fresh.default, *_INDEXING)
_TOLD = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def _asks(func: Any, args: tuple[Any, ...], result: Any) -> bool:
    """Whether the host must know numbers of the device for this operator, or the other way."""
    tensors = [leaf for leaf in tree_leaves((args, result)) if isinstance(leaf, Tensor)]
    if func in _INDEXING:
        if any(index is not None and index.dtype == torch.bool for index in args[1]):
            return True
    elif not _TOLD.isdisjoint(func.tags):
        return True
    if func is _aten.lift_fresh.default:
        return any(tensor.device.type != "cpu" for tensor in tensors)
    return len({t.device for t in tensors if t.dim() or func in _COPIES}) > 1


def _caller() -> str:
    """The line of limner's that is being run, beside those of this file."""
    here = Path(__file__)
    for frame, line in traceback.walk_stack(None):
        path = Path(frame.f_code.co_filename)
        if here.parents[1] in path.parents and path != here:
            return f"{path.name}, line {line}"
    return "outside of limner"


def _first_line(error: RuntimeError) -> str:
    return str(error).partition("\n")[0]
