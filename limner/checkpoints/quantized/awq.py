"""AWQ folders in the "gemm" layout, as AutoAWQ writes them and transformers and vLLM read them.

`qweight` int32 (K, N / 8) holds codes of 4 bits along the outputs, `qzeros` int32 (G, N / 8) the
zeros, `scales` (G, N). The eight codes of a word are those of outputs 0, 2, 4, 6, 1, 3, 5, 7.

N outputs, K inputs, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from limner.checkpoints.quantized.gptq import bits_of
from limner.checkpoints.quantized.layout import Weight, grouped
from limner.checkpoints.quantized.weight import Grid, GroupedWeight
from limner.checkpoints.quantized.words import from_words, to_words

SUFFIXES = ("qweight", "qzeros", "scales")

#: Which of eight outputs each code of a word belongs to.
ORDER = torch.tensor([0, 2, 4, 6, 1, 3, 5, 7])


def read(parts: Mapping[str, Tensor], fields: Mapping[str, Any]) -> GroupedWeight:
    """The matrix kept in `parts`; ValueError for other than 4 bits in the "gemm" layout."""
    version = fields.get("version", "gemm")
    if version != "gemm" or bits_of(fields) != 4:
        raise ValueError(
            f"AWQ weights of {bits_of(fields)} bits in the '{version}' layout cannot be read: only "
            "4 bits in 'gemm' can"
        )
    codes = _in_order(from_words(parts["qweight"], 4)).t().contiguous()  # (N, K)
    zeros = _in_order(from_words(parts["qzeros"], 4)).t().contiguous()  # (N, G)
    return GroupedWeight(codes, parts["scales"].t().contiguous(), zeros, 4)


def shape(shapes: Mapping[str, tuple[int, ...]], fields: Mapping[str, Any]) -> tuple[int, int]:
    """Outputs and inputs of the matrix kept in parts of these `shapes`."""
    inputs, words = shapes["qweight"]
    return words * 8, inputs


def write(weight: Weight) -> dict[str, Tensor]:
    """The tensors that keep a matrix; ValueError if its outputs are no multiple of 8."""
    weight = grouped(weight, "AWQ")
    return {
        "qweight": _interleaved(weight.codes.t()),
        "qzeros": _interleaved(weight.zeros.t()),
        "scales": weight.scales.t().contiguous(),
    }


def write_fields(grid: Grid, kept: list[str]) -> dict[str, Any]:
    """The `quantization_config` of matrices on `grid`; ValueError if the layout has none such."""
    if grid.bits != 4 or grid.symmetric:
        raise ValueError(
            "AWQ folders hold 4 bits with zeros: leave bits=4 symmetric=false, or choose "
            "layout=gptq or layout=compressed-tensors"
        )
    return {
        "quant_method": "awq",
        "bits": grid.bits,
        "group_size": -1 if grid.group is None else grid.group,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": kept or None,
    }


def _in_order(codes: Tensor) -> Tensor:
    return codes.unflatten(-1, (-1, 8))[..., ORDER.argsort()].flatten(-2)


def _interleaved(codes: Tensor) -> Tensor:
    outputs = codes.shape[-1]
    if outputs % 8:
        raise ValueError(f"AWQ folders hold only multiples of 8 outputs, not {outputs}")
    return to_words(codes.unflatten(-1, (-1, 8))[..., ORDER].flatten(-2), 4)
