"""Finding the compiled kernels, calling them, and registering them as PyTorch operators."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from limner.kernels.plan import Plan

log = logging.getLogger(__name__)

_P, _I64, _I32, _F32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32, ctypes.c_float

#: Arguments of each C function after the plan, as in cpp/limner.h.
_KERNELS: dict[str, list[Any]] = {
    "linear_quantized": [_P, *3 * [_I64], _P, _P, _I32, _I32, _P, _P, _I64],
    "linear_float": [_P, *3 * [_I64], _P, _I32, _P, _P, _I64],
    "add": [_P, _I64, _P, _I64, _P, _I64, _I64],
    "multiply": [_P, _I64, _P, _I64, _P, _I64, _I64],
    "gated": [_I32, _P, _I64, _P, _I64, _P, _I64, _I64],
    "activation": [_I32, _P, _I64, _P, _I64, _I64],
    "scale": [_F32, _F32, _P, _I64, _P, _I64, _I64],
    "normalise": [_P, _I64, _P, _P, _F32, _I32, _P, _I64, _I64],
    "lookup": [_P, _P, _P, *3 * [_I64]],
    "lookup_packed": [_P, _P, _I32, _I32, _P, _P, *3 * [_I64]],
    "angles": [_P, _P, _F32, _P, _P, _I64, _I64],
    "rotate": [_P, _I64, _P, _P, _I32, _P, *4 * [_I64]],
    "with_remainder": [_P, _I64, _P, _I64, _I64],
    "argmax": [_P, _I64, _P, _I64, _I64],
    "draw": [_P, _I64, _P, _P, _P, _I64, _I64],
    "attend": [_P, _I64, *6 * [_P], _P, _I64, _I64, _P, _P, _F32, _F32, _I64, _P, *5 * [_I64]],
    "store": [_P, _I64, *3 * [_P], _P, _I64, _I64, _P, _P, *3 * [_I64]],
}

#: The operators limner adds to PyTorch, `torch.ops.limner.*`.
OPERATORS = torch.library.Library("limner", "DEF")


class Library:
    """One compiled variant of the kernels."""

    def __init__(self, path: Path) -> None:
        self.handle = ctypes.CDLL(str(path))
        self.handle.limner_instruction_set.restype = ctypes.c_char_p
        self.handle.limner_memory_new.restype = self.handle.limner_plan_new.restype = _P
        for name in (
            "memory_free", "plan_new", "plan_free", "plan_run", "plan_size", "plan_meetings",
        ):  # fmt: skip
            getattr(self.handle, f"limner_{name}").argtypes = [_P]
        self.handle.limner_plan_size.restype = _I64
        self.handle.limner_plan_meetings.restype = _I64
        for name, arguments in _KERNELS.items():
            function = getattr(self.handle, f"limner_{name}")
            function.argtypes, function.restype = [_P, *arguments], None
        self.name: str = self.handle.limner_instruction_set().decode()

    def supports(self, name: str) -> bool:
        """Whether this processor runs the variant `name`."""
        return bool(self.handle.limner_supports(name.encode()))


def _variants() -> list[str]:
    """Names of all variants, best first."""
    # Not at the top: `python -m limner.kernels.build` would then find itself imported already.
    from limner.kernels.build import VARIANTS

    return [variant.name for variant in VARIANTS]


class _Chosen(threading.local):
    """What this thread's operators run on; a test or a measurement may choose another."""

    library: Library | str | None = "best"
    plan: Plan | None = None


_chosen = _Chosen()


@cache
def load(name: str) -> Library | None:
    """The compiled variant `name`, or None if it was not built or this processor cannot run it."""
    from limner.kernels.build import is_current, library_path

    if not is_current("portable") or not is_current(name):
        return None
    if name != "portable":
        asked = load("portable")
        if asked is None or not asked.supports(name):
            return None
    return Library(library_path(name))


@cache
def best() -> Library | None:
    """The fastest variant that was built and that this processor runs; says which in the log."""
    found = next((lib for name in _variants() if (lib := load(name))), None)
    if found is None:
        log.warning(
            "limner's C++ kernels are not built, so plain PyTorch runs instead, slower: "
            "run `python -m limner.kernels.build` (needs a C++ compiler)"
        )
    else:
        log.info("limner's kernels run as %s on %d threads", found.name, get_threads())
        _say_what_is_better(found)
    return found


def _say_what_is_better(found: Library) -> None:
    """Say in the log if this processor runs a better variant, which was built for another."""
    better = next(name for name in _variants() if found.supports(name))
    if found.name == "portable" != better:
        log.warning(
            "limner's C++ kernels were not built for this processor and run slower than it can: "
            "run `python -m limner.kernels.build` to build them as %s", better,
        )  # fmt: skip


def current() -> Library | None:
    """The variant that operators of this thread run on; None: the plain references."""
    library = _chosen.library
    return best() if isinstance(library, str) else library


@contextlib.contextmanager
def using(name: str | None) -> Iterator[None]:
    """Run operators of this thread on the variant `name`, or on the references if None.

    Raises ValueError if the variant was not built or cannot run here.
    """
    chosen = None if name is None else load(name)
    if name is not None and chosen is None:
        raise ValueError(f"kernels for {name!r} are not there: available are {available()}")
    before, _chosen.library = _chosen.library, chosen
    try:
        yield
    finally:
        _chosen.library = before


def available() -> list[str]:
    """Names of the variants that were built and that this processor runs, best first."""
    return [name for name in _variants() if load(name)]


def set_threads(threads: int = 0, pin: bool = True) -> None:
    """Run kernels on `threads` threads, the caller's among them.

    0 means one for each processor this process may use, or OMP_NUM_THREADS if that is fewer. `pin`
    ties the others to one processor each. Numbers do not depend on it. Not to be called while
    another thread runs kernels.
    """
    if threads < 0:
        raise ValueError(f"threads is {threads}: give a number from 1, or 0 for all processors")
    library = current()
    if library is not None:
        library.handle.limner_set_threads(threads, int(pin))


def get_threads() -> int:
    """How many threads kernels run on; PyTorch's number where nothing was built."""
    library = _chosen.library if isinstance(_chosen.library, Library) else None
    library = library or next((lib for name in _variants() if (lib := load(name))), None)
    return torch.get_num_threads() if library is None else library.handle.limner_threads()


@contextlib.contextmanager
def one_torch_thread() -> Iterator[None]:
    """Keep PyTorch's operators on the calling thread.

    After an operator PyTorch's other threads spin for milliseconds, in the way of the kernels' own:
    a captured step of SmolLM2 takes 5 ms without them and 12 with them.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def call(name: str, *arguments: Any) -> None:
    """Call the C function limner_`name`, with the address of each tensor.

    While a plan is captured the kernel is added to it, and the plan keeps the tensors.
    """
    library, plan = current(), _chosen.plan
    assert library is not None
    if plan is not None:
        plan.keep(argument for argument in arguments if isinstance(argument, Tensor))
    addresses = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    getattr(library.handle, f"limner_{name}")(None if plan is None else plan.handle, *addresses)


@contextlib.contextmanager
def adding_to(plan: Plan) -> Iterator[None]:
    """Let operators of this thread add themselves to `plan`."""
    before, _chosen.plan = _chosen.plan, plan
    try:
        yield
    finally:
        _chosen.plan = before


def compiled() -> bool:
    """Whether to call the operators, which themselves fall back on their references.

    A traced program always calls them: what it runs on is decided when it runs.
    """
    return torch.compiler.is_compiling() or current() is not None


def runs_on(*tensors: Tensor) -> bool:
    """Whether compiled kernels take these tensors: float32 on the CPU, no gradient wanted."""
    if not compiled():
        return False
    wanted = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    plain = all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)
    return plain and not wanted


def empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor for a result; of a plan's own memory while one is captured."""
    plan = _chosen.plan
    return like.new_empty(shape, dtype=dtype) if plan is None else plan.empty(shape, dtype)


def rows_of(tensor: Tensor) -> Tensor:
    """`tensor` (..., D) as rows (n, D) whose numbers follow one another; copied if they do not."""
    width = tensor.shape[-1]
    if tensor.dim() == 2 and tensor.stride(1) == 1:
        return tensor
    try:
        rows = tensor.view(-1, width)
    except RuntimeError:
        rows = _copied(tensor).view(-1, width)
    return rows if rows.stride(1) == 1 else _copied(rows)


def contiguous(tensor: Tensor) -> Tensor:
    """`tensor` with its numbers in row-major order; copied if they are not."""
    return tensor if tensor.is_contiguous() else _copied(tensor)


def _copied(tensor: Tensor) -> Tensor:
    # The copy is PyTorch's: a plan would replay what it held at capture.
    plan = _chosen.plan
    if plan is not None:
        plan.refuse("a copy to make a kernel's input contiguous")
    return tensor.contiguous()


def operator(
    schema: str, fake: Callable[..., Any], reference: Callable[..., Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as the CPU form of the operator `schema`, with `fake` for tracing.

    `reference` has the same signature and takes over where no compiled kernel is there.
    """

    def register(implementation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            return (reference if current() is None else implementation)(*arguments)

        name = schema.partition("(")[0]
        OPERATORS.define(schema)
        OPERATORS.impl(name, run, "CPU")
        torch.library.register_fake(f"limner::{name}", fake, lib=OPERATORS)
        return implementation

    return register
