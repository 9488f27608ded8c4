"""Operators for the CPU in C++, each beside a plain PyTorch reference with the same signature.

They are PyTorch operators (`torch.ops.limner.*`), so they trace and compile; where nothing was
built the references run. `capture` turns a forward pass made of them into a plan that replays it in
one parallel region.
"""

from limner.kernels.activations import Activation, activate, add, gated, multiply, scale
from limner.kernels.attention import Places, attend, store
from limner.kernels.attention_int8 import attend_int8, round_heads, store_int8
from limner.kernels.gguf_packing import GGUFKind, from_gguf
from limner.kernels.library import available, current, get_threads, set_threads, using
from limner.kernels.linear import (
    linear_float,
    linear_quantized,
    quantize_activations,
    with_remainder,
)
from limner.kernels.packing import (
    GROUP,
    PackedFloats,
    PackedWeight,
    pack,
    pack_floats,
    quantize,
)
from limner.kernels.plan import Memory, Plan, capture
from limner.kernels.rows import embed, layer_norm, rms_norm, rotary_angles, rotate
from limner.kernels.sampling import argmax, draw

__all__ = [
    "GROUP",
    "Activation",
    "GGUFKind",
    "Memory",
    "PackedFloats",
    "PackedWeight",
    "Places",
    "Plan",
    "activate",
    "add",
    "argmax",
    "attend",
    "attend_int8",
    "available",
    "capture",
    "current",
    "draw",
    "embed",
    "from_gguf",
    "gated",
    "get_threads",
    "layer_norm",
    "linear_float",
    "linear_quantized",
    "multiply",
    "pack",
    "pack_floats",
    "quantize",
    "quantize_activations",
    "rms_norm",
    "rotary_angles",
    "rotate",
    "round_heads",
    "scale",
    "set_threads",
    "store",
    "store_int8",
    "using",
    "with_remainder",
]
