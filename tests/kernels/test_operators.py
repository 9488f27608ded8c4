"""Kernels are PyTorch operators: they trace, compile, and have fake versions."""

from __future__ import annotations

import pytest
import torch

from limner import kernels

PLACES = torch.zeros(3, dtype=torch.int64), torch.arange(3)
WEIGHT, TABLE = (kernels.quantize(torch.randn(40, 64), bits) for bits in (4, 8))
CACHE = torch.randn(2, 2, 8, 16)
PAGES = torch.tensor([[1, 0]], dtype=torch.int32)
INT8 = torch.zeros(2, 2, 1, 16, 16, dtype=torch.int8), torch.ones(2, 2, 16)
INT8_VALUES = torch.zeros(2, 2, 16, 16, dtype=torch.int8), torch.ones(2, 2, 16)

CALLS = {
    "linear_quantized": (torch.randn(3, 64), WEIGHT.codes, WEIGHT.scales, torch.randn(40), 40),
    "linear_float": (torch.randn(3, 64), torch.randn(4, 64, 16), None, 50),
    "add": (torch.randn(3, 5), torch.randn(3, 5)),
    "multiply": (torch.randn(3, 5), torch.randn(3, 5)),
    "activate": (torch.randn(3, 5), 5),
    "gated": (torch.randn(3, 5), torch.randn(3, 5), 5),
    "scale": (torch.randn(3, 5), 0.5, 30.0),
    "normalise": (torch.randn(3, 5), torch.randn(5), None, 1e-5, True),
    "embed": (torch.tensor([1, 4]), torch.randn(5, 3)),
    "embed_packed": (torch.tensor([1, 4]), TABLE.codes, TABLE.scales, 40),
    "rotary_angles": (torch.arange(3), torch.rand(4), 1.0),
    "rotate": (torch.randn(3, 2, 8), torch.rand(3, 4), torch.rand(3, 4), False),
    "with_remainder": (torch.randn(3, 64),),
    "argmax": (torch.randn(3, 5),),
    "draw": (torch.randn(3, 5), torch.rand(3, dtype=torch.float64), torch.rand(3)),
    "attend": (torch.randn(3, 4, 16), CACHE, CACHE.clone(), PAGES, *PLACES, 0.5, 2, 0.0),
    "attend_int8": (torch.randn(3, 4, 16), *INT8, *INT8_VALUES, PAGES, *PLACES, 0.5, 2, 0.0),
    "store_int8": (torch.randn(3, 2, 16), *INT8, PAGES, *PLACES),
    "store": (torch.randn(3, 2, 16), CACHE.clone(), PAGES, *PLACES),
}


@pytest.mark.parametrize("name", CALLS)
def test_operators_are_well_formed(name):
    torch.library.opcheck(getattr(torch.ops.limner, name), CALLS[name])


def test_every_operator_is_checked():
    registered = {name.split("::")[1] for name in torch._C._dispatch_get_all_op_names()
                  if name.startswith("limner::")}  # fmt: skip
    assert registered == set(CALLS)


def test_they_compile():
    weight = kernels.quantize(torch.randn(40, 64))

    @torch.compile(backend="eager", fullgraph=True)
    def layer(hidden):
        return kernels.gated(kernels.linear_quantized(hidden, weight), torch.ones(3, 40))

    hidden = torch.randn(3, 64)
    expected = kernels.gated(kernels.linear_quantized(hidden, weight), torch.ones(3, 40))
    assert torch.equal(layer(hidden), expected)
