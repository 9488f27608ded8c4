"""Linear layers over packed weights, with activations rounded to int8 on the way in.

M tokens, N outputs, K inputs, G = K / 32 groups.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from limner.kernels.library import call, empty, operator, rows_of, runs_on
from limner.kernels.packing import (
    GROUP,
    PackedFloats,
    PackedWeight,
    bits_of,
    scale_form,
    unpack,
    unpack_floats,
)

#: Groups whose largest magnitude is below this become zero: 127 divided by it still has room.
SMALLEST = 2.0**-119


def quantize_activations(input: Tensor) -> tuple[Tensor, Tensor]:
    """Round `input` (..., K) to int8 in groups of 32: codes (..., G, 32) and scales (..., G, 1).

    A group that holds an infinity or a NaN has scale NaN, so that the token's outputs show it.
    """
    groups = input.float().unflatten(-1, (-1, GROUP))
    peak = groups.abs().amax(-1, keepdim=True)  # amax passes NaN on
    finite, large = peak.isfinite(), peak >= SMALLEST
    # Of two tensors: a number by a tensor is rounded twice, and now and then a code differs.
    inverse = torch.where(finite & large, torch.full_like(peak, 127.0) / peak, 0.0)
    codes = torch.where(finite & large, groups * inverse, 0.0).round()
    scale = torch.where(finite, torch.where(large, peak / 127, 0.0), torch.nan)
    return codes.to(torch.int8), scale


def linear_quantized(input: Tensor, weight: PackedWeight, bias: Tensor | None = None) -> Tensor:
    """`input` (..., K) times the transpose of a packed weight (N, K), plus `bias` (N), to (..., N).

    Activations are rounded to int8 in groups of 32; sums are of integers within a group and of
    float32 across groups. A token's numbers are the same to the bit in any company.
    """
    _check_inputs(input, weight.inputs)
    if runs_on(input):
        result: Tensor = torch.ops.limner.linear_quantized(
            input, weight.codes, weight.scales, bias, weight.outputs
        )
        return result
    return linear_quantized_reference(input, weight.codes, weight.scales, bias, weight.outputs)


def linear_quantized_reference(
    input: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None, outputs: int
) -> Tensor:
    """The same in plain PyTorch, differentiable in `input` (straight through the rounding)."""
    rounded, scale = quantize_activations(input.detach())
    # Infinite and NaN codes are zero under a NaN scale, which then reaches every output.
    values = (rounded * scale).flatten(-2).to(input.dtype)
    if input.requires_grad:
        values = input + (values - input).detach()
    return functional.linear(values, unpack(codes, scales, outputs).to(input.dtype), bias)


def _linear_quantized_fake(
    input: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None, outputs: int
) -> Tensor:
    return input.new_empty((*input.shape[:-1], outputs))


@operator(
    "linear_quantized(Tensor input, Tensor codes, Tensor scales, Tensor? bias, SymInt outputs)"
    " -> Tensor",
    _linear_quantized_fake,
    linear_quantized_reference,
)
def _linear_quantized(
    input: Tensor, codes: Tensor, scales: Tensor, bias: Tensor | None, outputs: int
) -> Tensor:
    rows = rows_of(input)  # (M, K)
    output = empty((*input.shape[:-1], outputs), input)
    form = bits_of(codes, scales), scale_form(scales)
    call(
        "linear_quantized", rows, *rows.shape, rows.stride(0), codes, scales, *form, bias, output,
        outputs,
    )  # fmt: skip
    return output


def with_remainder(input: Tensor) -> Tensor:
    """`input` (M, K), and below it what rounding it to int8 leaves over: (2M, K).

    The products of both halves, added, are those of activations of 16 bits.
    """
    if runs_on(input):
        result: Tensor = torch.ops.limner.with_remainder(input)
        return result
    return with_remainder_reference(input)


def with_remainder_reference(input: Tensor) -> Tensor:
    """The same in plain PyTorch."""
    codes, scale = quantize_activations(input)
    groups = input.unflatten(-1, (-1, GROUP))
    # Nothing is left over of a group that is zero to the product, or not a number.
    left = torch.where(scale > 0, groups - codes * scale, 0.0)
    return torch.cat((input, left.flatten(-2)))


@operator(
    "with_remainder(Tensor input) -> Tensor",
    lambda input: input.new_empty((2 * input.shape[0], input.shape[1])),
    with_remainder_reference,
)
def _with_remainder(input: Tensor) -> Tensor:
    rows = rows_of(input)
    output = empty((2 * rows.shape[0], rows.shape[1]), input)
    call("with_remainder", rows, rows.stride(0), output, *rows.shape)
    return output


def linear_float(input: Tensor, weight: PackedFloats, bias: Tensor | None = None) -> Tensor:
    """`input` (..., K) times the transpose of a float weight (N, K), plus `bias` (N), to (..., N).

    A token's numbers are the same to the bit in any company, which PyTorch's own product does not
    promise.
    """
    _check_inputs(input, weight.inputs)
    if runs_on(input):
        result: Tensor = torch.ops.limner.linear_float(input, weight.values, bias, weight.outputs)
        return result
    return linear_float_reference(input, weight.values, bias, weight.outputs)


def linear_float_reference(
    input: Tensor, values: Tensor, bias: Tensor | None, outputs: int
) -> Tensor:
    """The same in plain PyTorch."""
    return functional.linear(input, unpack_floats(values, outputs).to(input.dtype), bias)


def _linear_float_fake(input: Tensor, values: Tensor, bias: Tensor | None, outputs: int) -> Tensor:
    return input.new_empty((*input.shape[:-1], outputs))


@operator(
    "linear_float(Tensor input, Tensor values, Tensor? bias, SymInt outputs) -> Tensor",
    _linear_float_fake,
    linear_float_reference,
)
def _linear_float(input: Tensor, values: Tensor, bias: Tensor | None, outputs: int) -> Tensor:
    rows = rows_of(input)  # (M, K)
    output = empty((*input.shape[:-1], outputs), input)
    is_bfloat = int(values.dtype == torch.bfloat16)
    call(
        "linear_float", rows, *rows.shape, rows.stride(0), values, is_bfloat, bias, output, outputs
    )
    return output


def _check_inputs(input: Tensor, inputs: int) -> None:
    if input.shape[-1] != inputs:
        raise ValueError(
            f"the weight takes {inputs} inputs but the tensor's last size is {input.shape[-1]}"
        )
