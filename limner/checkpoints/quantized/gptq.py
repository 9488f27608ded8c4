"""GPTQ folders, as AutoGPTQ and GPTQModel write them and transformers and vLLM read them.

`qweight` int32 (K * bits / 32, N) holds codes along the inputs, `qzeros` int32 (G, N * bits / 32)
the zeros along the outputs, `scales` (G, N), and `g_idx` int32 (K,) the group of each input. The
zeros are one too small; in the second version of the format ("gptq_v2") they are not.

N outputs, K inputs, G groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from limner.checkpoints.quantized.layout import Weight, grouped
from limner.checkpoints.quantized.weight import Grid, GroupedWeight
from limner.checkpoints.quantized.words import from_words, to_words

SUFFIXES = ("qweight", "qzeros", "scales", "g_idx")


def read(parts: Mapping[str, Tensor], fields: Mapping[str, Any]) -> GroupedWeight:
    """The matrix kept in `parts`; ValueError for other than 4 or 8 bits."""
    bits = bits_of(fields)
    codes = from_words(parts["qweight"].t(), bits)  # (N, K)
    shift = 0 if fields.get("checkpoint_format") == "gptq_v2" else 1
    zeros = from_words(parts["qzeros"], bits).t() + shift  # (N, G)
    if bits == 4:
        zeros = zeros & (15 if shift == 0 else 31)
    return GroupedWeight(
        codes, parts["scales"].t().contiguous(), zeros.contiguous(), bits, _groups(parts, codes)
    )


def _groups(parts: Mapping[str, Tensor], codes: Tensor) -> Tensor | None:
    """The group of each input, unless they are one behind another."""
    named = parts.get("g_idx")
    if named is None:
        return None
    group = codes.shape[1] // parts["scales"].shape[0]
    in_order = torch.arange(codes.shape[1]) // group
    return None if torch.equal(named.long(), in_order) else named.long()


def shape(shapes: Mapping[str, tuple[int, ...]], fields: Mapping[str, Any]) -> tuple[int, int]:
    """Outputs and inputs of the matrix kept in parts of these `shapes`."""
    words, outputs = shapes["qweight"]
    return outputs, words * 32 // bits_of(fields)


def write(weight: Weight) -> dict[str, Tensor]:
    """The tensors that keep a matrix; ValueError if a size does not fill 32-bit words."""
    weight = grouped(weight, "GPTQ")
    group_of = weight.group_of
    if group_of is None:
        group_of = torch.arange(weight.codes.shape[1]) // weight.group
    # Readers add the one to whole words, so a zero of 0 would carry into its neighbour.
    assert bool((weight.zeros > 0).all())
    return {
        "qweight": to_words(weight.codes, weight.bits).t().contiguous(),
        "qzeros": to_words((weight.zeros - 1).t(), weight.bits),
        "scales": weight.scales.t().contiguous(),
        "g_idx": group_of.int(),
    }


def write_fields(grid: Grid, kept: list[str]) -> dict[str, Any]:
    """The `quantization_config` of matrices on `grid`."""
    return {
        "quant_method": "gptq",
        "bits": grid.bits,
        "group_size": -1 if grid.group is None else grid.group,
        "sym": grid.symmetric,
        "desc_act": False,
        "static_groups": True,
        "true_sequential": False,
        "lm_head": False,
        "checkpoint_format": "gptq",
    }


def bits_of(fields: Mapping[str, Any]) -> int:
    """The bits that `quantization_config` speaks of; ValueError unless 4 or 8."""
    bits = fields.get("bits", fields.get("w_bit"))
    if bits not in (4, 8):
        raise ValueError(f"weights quantised to {bits} bits cannot be read: only 4 and 8 can")
    return int(bits)
