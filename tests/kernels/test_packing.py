"""Packed weights hold the numbers they were made of."""

from __future__ import annotations

import gguf
import numpy
import pytest
import torch
from gguf.quants import dequantize, quantize
from torch.testing import assert_close

from limner import kernels

KINDS = ["Q8_0", "Q4_0", "Q4_1"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("outputs", [1, 16, 33])
def test_gguf_blocks_are_packed_with_no_second_rounding(kind, outputs):
    numbers = numpy.random.default_rng(0).standard_normal((outputs, 96), dtype=numpy.float32)
    blocks = quantize(numbers, gguf.GGMLQuantizationType[kind])
    expected = torch.from_numpy(dequantize(blocks, gguf.GGMLQuantizationType[kind]))
    packed = kernels.from_gguf(torch.from_numpy(blocks), kind)
    assert torch.equal(packed.dequantize(), expected)
    assert (packed.outputs, packed.inputs) == (outputs, 96)
    assert (packed.bits, packed.has_minimum) == (8 if kind == "Q8_0" else 4, kind == "Q4_1")


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_matrix_is_packed_slab_by_slab(kind, monkeypatch):
    numbers = numpy.random.default_rng(0).standard_normal((150, 64), dtype=numpy.float32)
    blocks = torch.from_numpy(quantize(numbers, gguf.GGMLQuantizationType[kind]))
    whole = kernels.from_gguf(blocks, kind)
    monkeypatch.setattr("limner.kernels.packing._SLAB", 70 * blocks.shape[1])  # 64 rows at a time
    slabs = kernels.from_gguf(blocks, kind)
    assert torch.equal(slabs.codes, whole.codes)
    assert torch.equal(slabs.scales, whole.scales)
    assert slabs.outputs == 150


def random_super_blocks(kind, outputs, inputs):
    """Raw blocks of any bytes but the halves, which are small numbers."""
    random = numpy.random.default_rng(1)
    size = {"Q4_K": 144, "Q6_K": 210}[kind]
    blocks = random.integers(0, 256, (outputs, inputs // 256, size), dtype=numpy.uint8)
    for start in (0, 2) if kind == "Q4_K" else (208,):
        halves = random.standard_normal((outputs, inputs // 256, 1)).astype(numpy.float16) / 64
        blocks[..., start : start + 2] = halves.view(numpy.uint8)
    return blocks.reshape(outputs, -1)


@pytest.mark.parametrize(("kind", "bits"), [("Q4_K", 4), ("Q6_K", 6)])
@pytest.mark.parametrize("outputs", [1, 16, 33])
def test_super_blocks_are_packed_with_no_second_rounding(kind, bits, outputs):
    blocks = random_super_blocks(kind, outputs, 512)
    expected = torch.from_numpy(dequantize(blocks, gguf.GGMLQuantizationType[kind]))
    packed = kernels.from_gguf(torch.from_numpy(blocks), kind)
    assert torch.equal(packed.dequantize(), expected)
    assert (packed.bits, packed.has_minimum) == (bits, kind == "Q4_K")
    assert (packed.outputs, packed.inputs) == (outputs, 512)
    rows = torch.randint(0, outputs, (40,))
    assert torch.equal(packed.take(rows).dequantize(), expected[rows])
    rows, places = torch.randperm(outputs), [packed.codes.data_ptr(), packed.scales.data_ptr()]
    ordered = packed.reorder(rows)
    assert torch.equal(ordered.dequantize(), expected[rows])
    assert [ordered.codes.data_ptr(), ordered.scales.data_ptr()] == places


@pytest.mark.parametrize(
    ("kind", "bits", "minimum"), [("Q8_0", 8, False), ("Q4_0", 4, False), ("Q4_1", 4, True)]
)
def test_rounding_is_ggufs(kind, bits, minimum):
    numbers = torch.randn(20, 64)
    blocks = quantize(numbers.numpy(), gguf.GGMLQuantizationType[kind])
    expected = torch.from_numpy(dequantize(blocks, gguf.GGMLQuantizationType[kind]))
    rounded = kernels.quantize(numbers, bits, minimum).dequantize()
    # GGUF breaks ties away from zero and shifts before it truncates: a step apart here and there.
    assert (rounded != expected).float().mean() < 0.01
    assert (rounded - numbers).square().mean() < 1.01 * (expected - numbers).square().mean()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("value", [0.0, 1.0, -2.0, 1e-40])
def test_equal_values_survive(bits, value):
    weight = torch.full((3, 32), value)
    for minimum in (False, True) if bits == 4 else (False,):
        assert_close(
            kernels.quantize(weight, bits, minimum).dequantize(), weight, rtol=2e-3, atol=1e-7
        )


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_weights_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="infinities or NaN"):
        kernels.quantize(torch.full((1, 32), value))


def test_a_width_that_is_no_multiple_of_32_is_refused():
    with pytest.raises(ValueError, match=r"shape \(4, 33\).*multiple of 32"):
        kernels.quantize(torch.zeros(4, 33))
    with pytest.raises(ValueError, match="blocks of 34 bytes"):
        kernels.from_gguf(torch.zeros(4, 33, dtype=torch.uint8), "Q8_0")


def test_memory_is_what_the_format_takes():
    weight = torch.randn(64, 320)
    assert kernels.quantize(weight, 8).nbytes == 64 * 320 * 34 // 32
    assert kernels.quantize(weight, 4).nbytes == 64 * 320 * 18 // 32
    assert kernels.quantize(weight, 4, minimum=True).nbytes == 64 * 320 * 20 // 32
    for kind, size in (("Q4_K", 148), ("Q6_K", 210)):
        blocks = torch.from_numpy(random_super_blocks(kind, 64, 512))
        assert kernels.from_gguf(blocks, kind).nbytes == 64 * 2 * size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_float_weights_are_kept_as_they_are(dtype):
    weight = torch.randn(20, 7).to(dtype)
    assert torch.equal(kernels.pack_floats(weight).dequantize(), weight.float())


def test_float_weights_of_other_types_are_refused():
    with pytest.raises(ValueError, match=r"torch.float16: use float32 or bfloat16"):
        kernels.pack_floats(torch.zeros(2, 2, dtype=torch.float16))
