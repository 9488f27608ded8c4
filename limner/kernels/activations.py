"""Number by number: sums, products, activations, gates.

All take tensors (..., D) of one shape and give a new one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from limner.kernels.library import call, empty, operator, rows_of, runs_on

Activation = Literal["relu", "relu_squared", "gelu", "gelu_tanh", "quick_gelu", "silu", "tanh"]

#: In the order of `Activation` in cpp/vector_math.h, which knows them by number.
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "relu_squared": lambda hidden: functional.relu(hidden).square(),
    "gelu": functional.gelu,
    "gelu_tanh": lambda hidden: functional.gelu(hidden, approximate="tanh"),
    "quick_gelu": lambda hidden: hidden * torch.sigmoid(1.702 * hidden),
    "silu": functional.silu,
    "tanh": torch.tanh,
}
_NAMES = list(ACTIVATIONS)


def _number(kind: Activation) -> int:
    if kind not in ACTIVATIONS:
        raise ValueError(f"no activation {kind!r}: choose from {', '.join(_NAMES)}")
    return _NAMES.index(kind)


def _same_shape(first: Tensor, second: Tensor) -> None:
    if first.shape != second.shape:
        raise ValueError(
            f"shapes {tuple(first.shape)} and {tuple(second.shape)} differ: nothing is broadcast"
        )


def add(first: Tensor, second: Tensor) -> Tensor:
    """`first` + `second`, as a residual step needs it."""
    _same_shape(first, second)
    result: Tensor = (
        torch.ops.limner.add(first, second) if runs_on(first, second) else first + second
    )
    return result


def multiply(first: Tensor, second: Tensor) -> Tensor:
    """`first` x `second`."""
    _same_shape(first, second)
    result: Tensor = (
        torch.ops.limner.multiply(first, second) if runs_on(first, second) else first * second
    )
    return result


def activate(hidden: Tensor, kind: Activation) -> Tensor:
    """The activation `kind` of `hidden`."""
    number = _number(kind)
    result: Tensor = (
        torch.ops.limner.activate(hidden, number)
        if runs_on(hidden)
        else activate_reference(hidden, number)
    )
    return result


def gated(gate: Tensor, up: Tensor, kind: Activation = "silu") -> Tensor:
    """The activation `kind` of `gate`, times `up`: SwiGLU, GEGLU (Shazeer 2020)."""
    _same_shape(gate, up)
    number = _number(kind)
    result: Tensor = (
        torch.ops.limner.gated(gate, up, number)
        if runs_on(gate, up)
        else gated_reference(gate, up, number)
    )
    return result


def scale(hidden: Tensor, factor: float = 1.0, softcap: float | None = None) -> Tensor:
    """`factor` x `hidden`, bounded by softcap x tanh(. / softcap) where there is one (Gemma 2)."""
    cap = 0.0 if softcap is None else softcap
    result: Tensor = (
        torch.ops.limner.scale(hidden, factor, cap)
        if runs_on(hidden)
        else scale_reference(hidden, factor, cap)
    )
    return result


def activate_reference(hidden: Tensor, kind: int) -> Tensor:
    """`activate` in plain PyTorch, by number."""
    return ACTIVATIONS[_NAMES[kind]](hidden)


def gated_reference(gate: Tensor, up: Tensor, kind: int) -> Tensor:
    """`gated` in plain PyTorch, by number."""
    return activate_reference(gate, kind) * up


def scale_reference(hidden: Tensor, factor: float, softcap: float) -> Tensor:
    """`scale` in plain PyTorch; a cap of 0 is none."""
    scaled = hidden * factor
    return softcap * torch.tanh(scaled / softcap) if softcap else scaled


def _like(first: Tensor, *_: Tensor | int | float) -> Tensor:
    return first.new_empty(first.shape)


def _elementwise(name: str, numbers: tuple[float, ...], *inputs: Tensor) -> Tensor:
    """Call a C function of some numbers, then inputs with their strides, then the output."""
    rows = [rows_of(tensor) for tensor in inputs]
    output = empty(tuple(inputs[0].shape), inputs[0])
    strided = [part for row in rows for part in (row, row.stride(0))]
    call(name, *numbers, *strided, output, *rows[0].shape)
    return output


@operator("add(Tensor first, Tensor second) -> Tensor", _like, torch.add)
def _add(first: Tensor, second: Tensor) -> Tensor:
    return _elementwise("add", (), first, second)


@operator("multiply(Tensor first, Tensor second) -> Tensor", _like, torch.mul)
def _multiply(first: Tensor, second: Tensor) -> Tensor:
    return _elementwise("multiply", (), first, second)


@operator("activate(Tensor hidden, int kind) -> Tensor", _like, activate_reference)
def _activate(hidden: Tensor, kind: int) -> Tensor:
    return _elementwise("activation", (kind,), hidden)


@operator("gated(Tensor gate, Tensor up, int kind) -> Tensor", _like, gated_reference)
def _gated(gate: Tensor, up: Tensor, kind: int) -> Tensor:
    return _elementwise("gated", (kind,), gate, up)


@operator("scale(Tensor hidden, float factor, float softcap) -> Tensor", _like, scale_reference)
def _scale(hidden: Tensor, factor: float, softcap: float) -> Tensor:
    return _elementwise("scale", (factor, softcap), hidden)
