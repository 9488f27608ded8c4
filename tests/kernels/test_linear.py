"""Products with packed weights: right, defined at extremes, equal to the bit in any company."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from limner import kernels
from limner.kernels import library
from limner.kernels.linear import linear_float_reference, linear_quantized_reference

FORMATS = [(8, False), (4, False), (4, True), (4, "super"), (6, "super")]
some_examples = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def quantized(outputs, inputs, bits, minimum, seed=0):
    torch.manual_seed(seed)
    if minimum == "super":
        return super_blocks(outputs, inputs, "Q4_K" if bits == 4 else "Q6_K")
    return kernels.quantize(torch.randn(outputs, inputs), bits, minimum)


def super_blocks(outputs, inputs, kind):
    """A weight of GGUF's super-blocks, whose inputs are made a multiple of 256."""
    count, size = -(-inputs // 256), {"Q4_K": 144, "Q6_K": 210}[kind]
    blocks = torch.randint(0, 256, (outputs, count, size), dtype=torch.uint8)
    for start in (0, 2) if kind == "Q4_K" else (208,):
        # Q6_K multiplies by a scale of up to 127 as well.
        halves = (torch.randn(outputs, count, 1) / (256 if kind == "Q4_K" else 4096)).half()
        blocks[..., start : start + 2] = halves.view(torch.uint8)
    return kernels.from_gguf(blocks.flatten(1), kind)


def reference(input, weight, bias=None):
    return linear_quantized_reference(input, weight.codes, weight.scales, bias, weight.outputs)


@pytest.mark.parametrize(("bits", "minimum"), FORMATS)
@some_examples
@given(
    tokens=st.integers(1, 40),
    outputs=st.integers(1, 100),
    groups=st.integers(1, 50),
    has_bias=st.booleans(),
)
def test_it_equals_the_reference(variant, bits, minimum, tokens, outputs, groups, has_bias):
    weight = quantized(outputs, groups * 32, bits, minimum)
    input = torch.randn(tokens, weight.inputs)
    bias = torch.randn(outputs) if has_bias else None
    result = kernels.linear_quantized(input, weight, bias)
    assert_close(result, reference(input, weight, bias), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("bits", "minimum"), FORMATS)
@pytest.mark.parametrize("inputs", [32, 576, 1536])
def test_a_token_is_equal_to_the_bit_in_any_company(variant, bits, minimum, inputs):
    weight = quantized(50, inputs, bits, minimum)
    input = torch.randn(70, weight.inputs)
    together = kernels.linear_quantized(input, weight)
    for count in [1, 2, 3, 4, 5, 6, 7, 11, 18, 19, 37, 69]:
        assert torch.equal(kernels.linear_quantized(input[:count], weight), together[:count])


@pytest.mark.parametrize("threads", [1, 3])
def test_results_do_not_depend_on_threads(variant, threads):
    weight, floats = quantized(200, 64, 8, False), kernels.pack_floats(torch.randn(200, 64))
    input = torch.randn(33, 64)
    before = kernels.linear_quantized(input, weight), kernels.linear_float(input, floats)
    kernels.set_threads(threads, pin=False)
    after = kernels.linear_quantized(input, weight), kernels.linear_float(input, floats)
    assert torch.equal(before[0], after[0])
    assert torch.equal(before[1], after[1])


@pytest.mark.parametrize(("bits", "minimum"), FORMATS)
def test_strides_are_followed(variant, bits, minimum):
    weight = quantized(20, 64, bits, minimum)
    width = weight.inputs
    wide = torch.randn(6, 3, width + 36)
    for input in (wide[:, 1, :width], wide[:, :, 20:-16], torch.randn(width, 5).t()):
        assert torch.equal(
            kernels.linear_quantized(input, weight),
            kernels.linear_quantized(input.contiguous(), weight),
        )


@pytest.mark.parametrize("value", [0.0, 1e-40, 1e-37, 2.0**-119, 1e30, -3.0])
def test_extreme_and_equal_values(variant, value):
    weight = quantized(40, 64, 8, False)
    input = torch.full((3, 64), value)
    assert_close(
        kernels.linear_quantized(input, weight), reference(input, weight), rtol=1e-5, atol=1e-30
    )


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize(("bits", "minimum"), FORMATS)
def test_a_value_that_is_not_finite_shows_in_its_token_alone(variant, value, bits, minimum):
    weight = quantized(40, 96, bits, minimum)
    input = torch.randn(9, weight.inputs)
    clean = kernels.linear_quantized(input, weight)
    input[4, 50] = value
    result = kernels.linear_quantized(input, weight)
    assert result[4].isnan().all()
    others = torch.arange(9) != 4
    assert torch.equal(result[others], clean[others])


def test_activations_round_to_nearest_even_as_the_reference_does(variant):
    # With weights that pick one input each, outputs are the rounded activations themselves.
    weight = kernels.quantize(torch.eye(32))
    input = torch.cat((torch.tensor([127.0]), torch.arange(31) - 15.5))[None]
    codes, scale = kernels.quantize_activations(input)
    picked = kernels.linear_quantized(input, weight)
    assert_close(picked[0], (codes * scale).flatten() * 127 * weight.scales[0, 0, 0].float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@some_examples
@given(tokens=st.integers(1, 40), outputs=st.integers(1, 100), inputs=st.integers(1, 500))
def test_float_weights_equal_the_reference(variant, dtype, tokens, outputs, inputs):
    torch.manual_seed(0)
    weight = kernels.pack_floats(torch.randn(outputs, inputs).to(dtype))
    input, bias = torch.randn(tokens, inputs), torch.randn(outputs)
    result = kernels.linear_float(input, weight, bias)
    expected = linear_float_reference(input, weight.values, bias, outputs)
    assert_close(result, expected, rtol=1e-5, atol=1e-4)
    assert torch.equal(kernels.linear_float(input[:1], weight, bias), result[:1])


def test_the_reference_stands_in_where_nothing_is_built():
    weight, input = quantized(40, 64, 8, False), torch.randn(2, 64)
    with library.using(None):
        assert torch.equal(kernels.linear_quantized(input, weight), reference(input, weight))


def test_gradients_reach_the_input():
    weight, input = quantized(16, 32, 8, False), torch.randn(2, 32, requires_grad=True)
    kernels.linear_quantized(input, weight).sum().backward()
    assert_close(input.grad, weight.dequantize().sum(0).expand(2, 32))


def test_a_wrong_width_is_refused():
    with pytest.raises(ValueError, match="takes 64 inputs but the tensor's last size is 32"):
        kernels.linear_quantized(torch.randn(1, 32), quantized(16, 64, 8, False))


def test_the_remainder_is_what_rounding_leaves_over(variant):
    torch.manual_seed(0)
    input = torch.randn(5, 96) * torch.logspace(-40, 3, 5)[:, None]
    input[1, :32] = 0
    both = kernels.with_remainder(input)
    torch.testing.assert_close(both[:5], input, atol=0, rtol=0)
    codes, scale = kernels.quantize_activations(input)
    left = input - (codes * scale).flatten(-2)
    left[0] = 0  # too small for the product to see
    assert_close(both[5:], left, rtol=1e-5, atol=float(scale.max()) * 1e-6)
