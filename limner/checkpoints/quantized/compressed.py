"""Folders of compressed-tensors, as llm-compressor writes them and transformers and vLLM read them.

In groups ("pack-quantized"): `weight_packed` int32 (N, K * bits / 32) holds codes along the inputs,
`weight_scale` (N, G), `weight_shape` (2,), and if not symmetric `weight_zero_point` int32
(N * bits / 32, G) the zeros along the outputs, which vLLM reads and transformers does not (as of
5.23). Of 8 bits and whole rows ("int-quantized", "float-quantized"): `weight` (N, K), int8 or
float8, and `weight_scale` (N, 1), or (1,) for the whole matrix; float8 also one for each
block.

N outputs, K inputs, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from limner.checkpoints.quantized.float8_blocks import read_blocks
from limner.checkpoints.quantized.layout import Weight, grouped
from limner.checkpoints.quantized.weight import Grid, GroupedWeight
from limner.checkpoints.quantized.words import from_words, to_words
from limner.nn.scaled import FLOAT8, ScaledWeight

SUFFIXES = (
    "weight_scale",
    "weight",
    "weight_packed",
    "weight_shape",
    "weight_zero_point",
    "weight_g_idx",
    "input_scale",  # of activations, which are not rounded by a scale that is fixed
)
#: Of whole rows in 8 bits: each token's inputs are rounded to 8 bits too, by a scale of its own.
ACTIVATIONS = {
    "num_bits": 8,
    "symmetric": True,
    "strategy": "token",
    "group_size": None,
    "dynamic": True,
    "actorder": None,
    "block_structure": None,
    "observer": None,
    "observer_kwargs": {},
}
FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized")


def read(parts: Mapping[str, Tensor], fields: Mapping[str, Any]) -> GroupedWeight | ScaledWeight:
    """The matrix kept in `parts`; ValueError for a format that limner cannot read."""
    format = fields.get("format")
    if format not in FORMATS:
        raise ValueError(
            f"compressed-tensors of the format '{format}' cannot be read: "
            f"known are {', '.join(FORMATS)}"
        )
    scales = parts["weight_scale"]
    if "weight_packed" in parts:
        return _read_packed(parts, scales)
    if "weight" not in parts:
        raise ValueError("there are scales, but no numbers: neither 'weight' nor 'weight_packed'")
    dtype, outputs = parts["weight"].dtype, parts["weight"].shape[0]
    if dtype == FLOAT8:
        block = _weights(fields).get("block_structure")
        if block is not None:
            return read_blocks(parts["weight"], scales, block)
        rows = _by_row(scales, outputs)
        if rows.shape[1] != 1:
            raise ValueError(f"floats of 8 bits with {rows.shape[1]} scales a row cannot be read")
        return ScaledWeight(parts["weight"], rows)
    if dtype != torch.int8:
        raise ValueError(
            f"compressed-tensors of {dtype} cannot be read: only int8 and float8_e4m3fn can"
        )
    codes = _unsigned(parts["weight"])
    return GroupedWeight(codes, _by_row(scales, outputs), _zeros(parts, scales, outputs), 8)


def _read_packed(parts: Mapping[str, Tensor], scales: Tensor) -> GroupedWeight:
    outputs, inputs = parts["weight_shape"].tolist()
    bits = parts["weight_packed"].shape[1] * 32 // inputs
    if bits not in (4, 8):
        raise ValueError(f"compressed-tensors of {bits} bits cannot be read: only 4 and 8 can")
    codes = from_words(parts["weight_packed"], bits)[:, :inputs]
    group_of = parts.get("weight_g_idx")
    if "weight_zero_point" in parts:
        words = parts["weight_zero_point"].t()  # (G, N * bits / 32)
        zeros = from_words(words, bits)[:, :outputs].t().contiguous()
    else:
        zeros = torch.full(_by_row(scales, outputs).shape, 2 ** (bits - 1), dtype=torch.uint8)
    groups = None if group_of is None or (group_of < 0).any() else group_of.long()
    return GroupedWeight(codes, _by_row(scales, outputs), zeros, bits, groups)


def _by_row(scales: Tensor, outputs: int) -> Tensor:
    """Scales (N, G), of a tensor with one for all, or one a row, as well."""
    if scales.numel() == 1:
        return scales.reshape(1, 1).expand(outputs, 1)
    if scales.ndim == 0 or len(scales) != outputs:
        raise ValueError(f"scales of shape {tuple(scales.shape)} are not those of {outputs} rows")
    return scales.reshape(outputs, -1)


def _zeros(parts: Mapping[str, Tensor], scales: Tensor, outputs: int) -> Tensor:
    signed = parts.get("weight_zero_point", torch.zeros_like(scales, dtype=torch.int8))
    return _by_row(_unsigned(signed.to(torch.int8)), outputs)


def _unsigned(codes: Tensor) -> Tensor:
    return codes.view(torch.uint8) ^ 128


def shape(shapes: Mapping[str, tuple[int, ...]], fields: Mapping[str, Any]) -> tuple[int, int]:
    """Outputs and inputs of the matrix kept in parts of these `shapes`."""
    if "weight" in shapes:
        outputs, inputs = shapes["weight"]
        return outputs, inputs
    outputs, words = shapes["weight_packed"]
    return outputs, words * 32 // int(_weights(fields)["num_bits"])


def _weights(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What the settings say of weights."""
    weights: dict[str, Any] = next(iter(fields["config_groups"].values()))["weights"]
    return weights


def write(weight: Weight) -> dict[str, Tensor]:
    """The tensors that keep a matrix; ValueError if a size does not fill 32-bit words."""
    if isinstance(weight, ScaledWeight):
        return {"weight": weight.codes, "weight_scale": weight.scale.contiguous()}
    weight = grouped(weight, "compressed-tensors")
    scales = weight.scales.contiguous()
    if weight.bits == 8 and weight.scales.shape[1] == 1 and weight.symmetric:
        return {"weight": _unsigned(weight.codes).view(torch.int8), "weight_scale": scales}
    parts = {
        "weight_packed": to_words(weight.codes, weight.bits),
        "weight_scale": scales,
        "weight_shape": torch.tensor(weight.codes.shape),
    }
    if not weight.symmetric:
        zeros = to_words(weight.zeros.t(), weight.bits)
        parts["weight_zero_point"] = zeros.t().contiguous()
    return parts


def write_fields(grid: Grid, kept: list[str]) -> dict[str, Any]:
    """The `quantization_config` of matrices on `grid`; `kept` names modules left in float."""
    kind = "float" if grid.floating else "int"
    weights = {
        "num_bits": grid.bits,
        "type": kind,
        "symmetric": grid.symmetric,
        "strategy": "channel" if grid.group is None else "group",
        "group_size": grid.group,
        "dynamic": False,
        "actorder": None,
        "block_structure": None,
        "observer": "minmax",
        "observer_kwargs": {},
    }
    whole = grid.bits == 8 and grid.group is None and grid.symmetric
    scheme = {
        "targets": ["Linear"],
        "weights": weights,
        "input_activations": ACTIVATIONS | {"type": kind} if whole else None,
        "output_activations": None,
    }
    return {
        "quant_method": "compressed-tensors",
        "format": f"{kind}-quantized" if whole else "pack-quantized",
        "quantization_status": "compressed",
        "config_groups": {"group_0": scheme},
        "ignore": kept,
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }
