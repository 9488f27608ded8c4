"""The captured step: run a forward pass once, then replay its kernels in one parallel region.

    tokens, positions = torch.zeros(1, 1, dtype=torch.int64), ...
    with capture() as plan:
        logits = model.logits(tokens, state)
    if plan.complete:
        tokens.fill_(7)
        plan.replay()  # `logits` now holds the new numbers

The CPU's counterpart of a CUDA graph: while the forward pass runs, each kernel adds itself with its
addresses and sizes. A replay reads the same addresses, so inputs change by writing to the same
tensors, and threads meet only where one kernel needs what another thread wrote.
"""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from limner.kernels import activations
from limner.kernels.library import Library, adding_to, current
from limner.kernels.rows import embed

_ALIGNMENT = 64


class Memory:
    """Pieces of memory for the results of plans that never run at once, nor are read after another.

    Each plan begins with the first piece again. Pieces are large, so that those made for one plan
    serve another; the system gives what is written of them.
    """

    def __init__(self, piece_bytes: int = 16 << 20) -> None:
        self.pieces: list[Tensor] = []
        self._piece_bytes = piece_bytes
        self._handles: dict[Library, int] = {}

    def handle(self, library: Library) -> int:
        """Where kernels of `library` leave what they hand to one another.

        Made for its first plan: the memory itself may be made where no kernels are chosen yet.
        """
        if library not in self._handles:
            self._handles[library] = handle = library.handle.limner_memory_new()
            weakref.finalize(self, library.handle.limner_memory_free, handle).atexit = False
        return self._handles[library]

    def piece(self, start: int, size: int) -> int:
        """Number of the first from `start` on that holds `size` bytes, made if there is none."""
        for number in range(start, len(self.pieces)):
            if self.pieces[number].nbytes >= size:
                return number
        self.pieces.append(torch.empty(max(size, self._piece_bytes), dtype=torch.uint8))
        return len(self.pieces) - 1


class Arena:
    """Memory for the results of one plan. What is freed during capture is used again.

    A tensor's memory is free when no tensor or view of it is left, as it is for ordinary tensors;
    the replay, running the same kernels in the same order, then overwrites it at the same moment.
    """

    #: So many freed pieces of a size are left alone: threads that still read what was just freed
    #: would have to meet before it is overwritten.
    _COOLING = 4

    def __init__(self, memory: Memory | None = None) -> None:
        self.memory = memory or Memory(1 << 20)
        self._begun = 0  # how many of its pieces are used
        self._next = self._end = 0
        self._free: dict[int, deque[int]] = {}

    def tensor(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """An uninitialised tensor in this memory."""
        count = prod(shape)
        if count == 0:
            return torch.empty(shape, dtype=dtype)
        size = -(-count * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
        address = self._take(size)
        memory = (ctypes.c_char * size).from_address(address)
        # The finalizer holds the arena, so its memory outlives the last tensor in it.
        weakref.finalize(memory, self._give, size, address).atexit = False
        return torch.frombuffer(memory, dtype=dtype, count=count).view(shape)

    @property
    def nbytes(self) -> int:
        """Bytes reserved."""
        return sum(piece.nbytes for piece in self.memory.pieces)

    def owns(self, tensor: Tensor) -> bool:
        """Whether a tensor lies in this memory."""
        address = tensor.data_ptr()
        return any(p.data_ptr() <= address < p.data_ptr() + p.nbytes for p in self.memory.pieces)

    def _take(self, size: int) -> int:
        free = self._free.get(size)
        if free is not None and len(free) > self._COOLING:
            return free.popleft()
        if self._next + size > self._end:
            number = self.memory.piece(self._begun, size + _ALIGNMENT)
            piece, self._begun = self.memory.pieces[number], number + 1
            self._next = -(-piece.data_ptr() // _ALIGNMENT) * _ALIGNMENT
            self._end = piece.data_ptr() + piece.nbytes
        self._next += size
        return self._next - size

    def _give(self, size: int, address: int) -> None:
        self._free.setdefault(size, deque()).append(address)


class Plan:
    """Kernels in order, with their addresses. Made by `capture`."""

    def __init__(self, memory: Memory | None = None) -> None:
        library = current()
        self._library = library
        self._arena = Arena(memory)
        self._kept: dict[int, Tensor] = {}
        #: What the forward pass did that is no kernel of limner's, each once.
        self.foreign: list[str] = []
        if library is None:
            self.handle = None
            self.refuse("no compiled kernels")
        else:
            self.handle = library.handle.limner_plan_new(self._arena.memory.handle(library))
            weakref.finalize(self, library.handle.limner_plan_free, self.handle).atexit = False

    @property
    def complete(self) -> bool:
        """Whether a replay does all that the forward pass did."""
        return not self.foreign

    def __len__(self) -> int:
        return self._library.handle.limner_plan_size(self.handle) if self._library else 0

    @property
    def meetings(self) -> int:
        """How often threads wait for one another in a replay."""
        return self._library.handle.limner_plan_meetings(self.handle) if self._library else 0

    @property
    def nbytes(self) -> int:
        """Bytes of memory for results, its own or shared."""
        return self._arena.nbytes

    def replay(self) -> None:
        """Run all kernels again, on what their inputs hold now.

        Raises ValueError if the plan is not complete.
        """
        if self._library is None or not self.complete:
            raise ValueError(
                f"the plan cannot be replayed, it lacks {', '.join(self.foreign)}: "
                "run the forward pass itself"
            )
        self._library.handle.limner_plan_run(self.handle)

    def refuse(self, what: str) -> None:
        """Note something that a replay could not do."""
        if what not in self.foreign:
            self.foreign.append(what)

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory for a result."""
        return self._arena.tensor(shape, dtype)

    def keep(self, tensors: Iterable[Tensor]) -> None:
        """Hold what kernels read and write and is not the plan's own."""
        for tensor in tensors:
            if not self._arena.owns(tensor):
                self._kept.setdefault(tensor.data_ptr(), tensor)


@contextlib.contextmanager
def capture(memory: Memory | None = None) -> Iterator[Plan]:
    """Add every kernel that runs in this block to a plan; it runs as well.

    Results go to `memory`, which other plans may use when nobody needs them any more; without it
    the plan has its own.

    Operators of PyTorch that only look at a tensor in another way are let through, sums, products
    and activations become kernels, and any other is noted in `plan.foreign`. Values read into
    Python (`.tolist()`) cannot be noticed: what depends on them stays as it was at capture.
    """
    plan = Plan(memory)
    with torch.no_grad(), _Watch(plan):
        yield plan


class _Watch(TorchDispatchMode):
    """Sees every operator that runs."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.plan = plan

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # To keep its compiler out of here PyTorch would import it: a second and 60 MB for nothing.
        return False

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "limner":
            with adding_to(self.plan):
                return func(*args, **kwargs)
        kernel = _kernel(func, args, kwargs)
        if kernel is not None:
            with adding_to(self.plan):
                return kernel(*args)
        if not _only_looks(func) and not _of_weights(args):
            self.plan.refuse(str(func))
        return func(*args, **kwargs)


_aten = torch.ops.aten

#: Operators between tensors of one shape that have a kernel which gives the same numbers.
_ELEMENTWISE: dict[Any, Callable[..., Tensor]] = {
    _aten.add.Tensor: activations.add,
    _aten.mul.Tensor: activations.multiply,
}


def _kernel(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Callable[..., Tensor] | None:
    """The kernel that does what PyTorch's operator would with these arguments."""
    if kwargs or not args or not isinstance(args[0], Tensor) or _of_weights(args):
        return None
    if func in _ELEMENTWISE and _plain(args):
        return _ELEMENTWISE[func]
    if func is _aten.mul.Tensor and _plain(args[:1]) and isinstance(args[1], float):
        return activations.scale
    if func is _aten.embedding.default and len(args) == 2 and _plain(args[:1]):
        return lambda table, tokens: embed(tokens, table)
    return None


def _of_weights(args: tuple[Any, ...]) -> bool:
    """Whether weights alone go in, which do not change: the result is the same in every replay."""
    tensors = [argument for argument in args if isinstance(argument, Tensor)]
    return bool(tensors) and all(isinstance(tensor, nn.Parameter) for tensor in tensors)


_ALLOCATIONS = ("aten::empty", "aten::empty_like", "aten::new_empty", "aten::empty_strided")


def _plain(args: tuple[Any, ...]) -> bool:
    """Whether the kernels take these arguments: float32 tensors of one shape."""
    tensors = all(isinstance(a, Tensor) and a.dtype == torch.float32 for a in args)
    return tensors and len({a.shape for a in args}) == 1


def _only_looks(func: Any) -> bool:
    """Whether an operator computes nothing: it makes a view, or memory without contents."""
    schema = func._schema
    views = any(a.alias_info is not None and not a.alias_info.is_write for a in schema.arguments)
    return views or schema.name in _ALLOCATIONS
