"""Mixed precision: matrix products in bfloat16, all else in float32 (Micikevicius et al. 2018).

With float8 (`limner.training.float8`), those outside of blocks are in bfloat16 too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn

Precision = Literal["auto", "float32", "bfloat16", "float8"]
#: What a CPU that multiplies bfloat16 says it has, as `torch.cpu.get_capabilities` names it.
HALF_PRODUCTS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
#: Numbers in the matrices of a network from which a CPU's faster products pay for the casts.
WORTHWHILE = 4_000_000


def in_half(precision: Precision, network: nn.Module) -> bool:
    """Whether the matrix products of training `network`, on its device, are in bfloat16."""
    if precision != "auto":
        return precision != "float32"
    device = next(network.parameters()).device
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    matrices = sum(p.numel() for p in network.parameters() if p.ndim > 1)
    return device.type == "cpu" and matrices >= WORTHWHILE and multiplies_half()


def multiplies_half() -> bool:
    """Whether this CPU multiplies bfloat16; False too where PyTorch is too old to say."""
    able: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(able.get(name) for name in HALF_PRODUCTS)
