"""Folders of matrices in 8 bits with some columns in float; a layout of limner's own.

The folders of LLM.int8() that others write round those columns too. `qweight` int8 (N, K),
`scales` (N, G), `outlier_columns` int64 (C,), `outlier_values` (N, C).

N outputs, K inputs, G groups, C columns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from limner.checkpoints.quantized.layout import Weight
from limner.checkpoints.quantized.weight import Grid, GroupedWeight, OutlierWeight

SUFFIXES = ("outlier_columns", "outlier_values", "qweight", "scales")


def read(parts: Mapping[str, Tensor], fields: Mapping[str, Any]) -> OutlierWeight:
    """The matrix kept in `parts`."""
    codes = parts["qweight"].view(torch.uint8) ^ 128
    zeros = torch.full(parts["scales"].shape, 128, dtype=torch.uint8)
    rest = GroupedWeight(codes, parts["scales"], zeros, 8)
    return OutlierWeight(rest, parts["outlier_columns"], parts["outlier_values"])


def shape(shapes: Mapping[str, tuple[int, ...]], fields: Mapping[str, Any]) -> tuple[int, int]:
    """Outputs and inputs of the matrix kept in parts of these `shapes`."""
    outputs, inputs = shapes["qweight"]
    return outputs, inputs


def write(weight: Weight) -> dict[str, Tensor]:
    """The tensors that keep a matrix."""
    assert isinstance(weight, OutlierWeight)
    return {
        "qweight": (weight.rest.codes ^ 128).view(torch.int8),
        "scales": weight.rest.scales,
        "outlier_columns": weight.columns,
        "outlier_values": weight.values,
    }


def write_fields(grid: Grid, kept: list[str]) -> dict[str, Any]:
    """The `quantization_config`."""
    return {"quant_method": "limner_outliers", "bits": 8, "group_size": grid.group}
