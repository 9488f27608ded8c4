"""Folders of floats of 8 bits with a scale for each block of rows and inputs, as DeepSeek-V3's.

`weight` float8 (N, K), `weight_scale_inv` (N / n, K / k) for blocks of n rows and k inputs, the
last of which may be smaller (DeepSeek-V3 Technical Report, 2024). They are read and not written.

N outputs, K inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from limner.checkpoints.quantized.layout import Weight
from limner.checkpoints.quantized.weight import Grid
from limner.nn.scaled import FLOAT8, ScaledWeight

SUFFIXES = ("weight_scale_inv", "weight", "activation_scale")
NOT_WRITTEN = "limner writes no folders of floats of 8 bits in blocks: use compressed-tensors"


def read(parts: Mapping[str, Tensor], fields: Mapping[str, Any]) -> ScaledWeight:
    """The matrix kept in `parts`; ValueError if they do not belong together."""
    if "weight" not in parts or parts["weight"].dtype != FLOAT8:
        raise ValueError("there are scales, but no 'weight' of float8_e4m3fn")
    return read_blocks(parts["weight"], parts["weight_scale_inv"], fields.get("weight_block_size"))


def read_blocks(codes: Tensor, scales: Tensor, block: Sequence[int] | None) -> ScaledWeight:
    """The matrix of `codes` (N, K) and `scales` (N / n, K / k) for blocks of n rows and k inputs.

    Raises ValueError if these are not its blocks.
    """
    outputs, inputs = codes.shape
    rows, group = block or (0, 0)
    if min(rows, group) < 1 or scales.shape != (-(-outputs // rows), -(-inputs // group)):
        raise ValueError(
            f"scales of shape {tuple(scales.shape)} are not those of blocks of {rows} x {group} "
            f"in a matrix of {outputs} x {inputs}"
        )
    return ScaledWeight(codes, scales.repeat_interleave(rows, 0)[:outputs], group)


def shape(shapes: Mapping[str, tuple[int, ...]], fields: Mapping[str, Any]) -> tuple[int, int]:
    """Outputs and inputs of the matrix kept in parts of these `shapes`."""
    outputs, inputs = shapes["weight"]
    return outputs, inputs


def write(weight: Weight) -> dict[str, Tensor]:
    """ValueError."""
    raise ValueError(NOT_WRITTEN)


def write_fields(grid: Grid, kept: list[str]) -> dict[str, Any]:
    """ValueError."""
    raise ValueError(NOT_WRITTEN)
