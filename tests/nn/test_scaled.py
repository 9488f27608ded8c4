"""Rows of 8 bits against the products that they stand for."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from limner.models.families import find_family
from limner.nn.packed import number_format, weight_bytes
from limner.nn.scaled import (
    FLOAT8,
    ScaledLinear,
    ScaledWeight,
    multiplies_float8,
    multiply_rounded,
    multiply_widened,
    round_rows,
    widened,
)
from tests.families import llama

BOTH = pytest.mark.parametrize("dtype", [FLOAT8, torch.int8], ids=str)


def matrix(rows=48, columns=64):
    generator = torch.Generator().manual_seed(0)
    sizes = torch.logspace(-4, 2, rows)[:, None]
    return torch.randn(rows, columns, generator=generator) * sizes


def hidden(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_the_largest_of_a_row_becomes_the_largest_number():
    given = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0], [7e-4, 7e-4, -7e-4]])
    floats, whole = round_rows(given), round_rows(given + 0.01, torch.int8)
    assert floats.scale[0].item() == pytest.approx(2 / 448)
    assert floats.codes.float().tolist() == [[224, -448, 112], [0, 0, 0], [448, 448, -448]]
    assert whole.scale[0].item() == pytest.approx(1.99 / 127)
    assert whole.codes.tolist() == [[64, -127, 33], [127, 127, 127], [127, 127, 110]]
    torch.testing.assert_close(floats.dequantize(), given)


def test_rounding_is_off_by_half_a_step_at_most():
    given = matrix()
    floats, whole = round_rows(given), round_rows(given, torch.int8)
    # Three bits of mantissa: a sixteenth. Below 2 ** -6, the smallest normal number: 2 ** -10.
    step = torch.maximum(given.abs() / 16, floats.scale * 2**-10)
    assert ((floats.dequantize() - given).abs() <= step * 1.0001).all()
    assert ((whole.dequantize() - given).abs() <= whole.scale * 0.5001).all()


def test_every_float_of_8_bits_is_widened_exactly():
    codes = torch.arange(256, dtype=torch.int32).to(torch.uint8)
    codes = codes[codes & 127 != 127].view(FLOAT8)  # but those that are no number
    for dtype in (torch.float32, torch.bfloat16):
        assert torch.equal(widened(codes, dtype).float(), codes.float())
    assert codes.float().abs().max() == 448


@BOTH
@pytest.mark.parametrize(
    ("floats", "close"), [(torch.float32, 1e-6), (torch.bfloat16, 8e-3), (torch.float16, 1e-3)]
)
def test_a_widened_matrix_is_multiplied_as_floats_are(dtype, floats, close):
    weight, inputs = round_rows(matrix(), dtype), hidden(2, 3, 64).to(floats)
    bias = nn.Parameter(hidden(48).to(floats))
    layer = ScaledLinear(weight, bias)
    found = layer(inputs)
    assert found.dtype == floats
    expected = functional.linear(inputs.float(), weight.dequantize())
    far = (found.float() - bias.float() - expected).norm(dim=(0, 1))
    assert (far / (expected.norm(dim=(0, 1)) + bias.float().abs()) < close).all()


def test_large_sums_stay_in_the_range_of_halves():
    weight, inputs = round_rows(torch.full((16, 4096), 0.01)), torch.full((1, 4096), 10.0).half()
    assert multiply_widened(inputs, weight).tolist()[0] == pytest.approx([409.6] * 16, rel=1e-3)


@pytest.mark.parametrize("floats", [torch.float32, torch.bfloat16])
def test_rounded_activations_meet_a_rounded_matrix(floats):
    weight, inputs = round_rows(matrix()), hidden(2, 3, 64).to(floats)
    found = multiply_rounded(inputs, weight)
    assert (found.dtype, found.shape) == (floats, (2, 3, 48))
    tokens = round_rows(inputs.flatten(0, 1)).dequantize()
    close = {"atol": 0, "rtol": 1e-2 if floats == torch.bfloat16 else 1e-4}
    expected = (tokens @ weight.dequantize().T).view(2, 3, 48)
    scale = expected.abs().amax((0, 1))
    torch.testing.assert_close(found.float() / scale + 2, expected / scale + 2, **close)
    # And so is near the product of activations that are not rounded: 2 ** -4 each, of 64.
    exact = multiply_widened(inputs, weight).float()
    assert (found.float() - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize("tokens", [1, 5])
def test_the_product_has_the_form_that_gpus_ask_for(tokens):
    # PyTorch holds tensors on the meta device to what CUDA asks for: strides and scales' shapes.
    codes = torch.empty(48, 64, dtype=FLOAT8, device="meta")
    weight = ScaledWeight(codes, torch.empty(48, 1, device="meta"))
    inputs = torch.empty(64, tokens, dtype=torch.bfloat16, device="meta").t().unsqueeze(0)
    found, wide = multiply_rounded(inputs, weight), multiply_widened(inputs, weight)
    for each in (found, wide):
        assert (each.shape, each.dtype) == ((1, tokens, 48), torch.bfloat16)


def test_one_scale_for_all_rows_is_laid_out_by_row():
    layer = ScaledLinear(ScaledWeight(round_rows(matrix()).codes, torch.tensor(0.5).expand(48, 1)))
    assert layer.scale.is_contiguous()
    assert torch.equal(layer(torch.eye(64)), layer.codes.float().t() * 0.5)


def test_a_tokens_answer_depends_on_no_other_token():
    weight, inputs = round_rows(matrix()), hidden(5, 64)
    large = torch.cat([inputs[:1], inputs[1:] * 1e4])
    assert torch.equal(multiply_rounded(large, weight)[0], multiply_rounded(inputs, weight)[0])


@pytest.mark.parametrize(
    ("capability", "able"), [((7, 5), False), ((8, 6), False), ((8, 9), True), ((12, 0), True)]
)
def test_gpus_multiply_floats_of_8_bits_by_their_capability(monkeypatch, capability, able):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert multiplies_float8(torch.device("cuda")) == able
    assert not multiplies_float8(torch.device("cpu"))


def test_activations_are_rounded_where_that_is_possible():
    weight, inputs = round_rows(matrix()), hidden(3, 64).bfloat16()
    layer = ScaledLinear(weight)
    assert torch.equal(layer(inputs), multiply_widened(inputs, weight))
    layer.rounds_activations = True
    assert torch.equal(layer(inputs), multiply_rounded(inputs, weight))
    assert torch.equal(layer(inputs.float()), multiply_widened(inputs.float(), weight))


def test_gradients_pass_through_to_the_activations():
    layer, inputs = ScaledLinear(round_rows(matrix())), hidden(3, 64).bfloat16()
    layer.rounds_activations = True
    inputs.requires_grad_()
    layer(inputs).float().sum().backward()
    assert inputs.grad is not None
    expected = layer.weight.dequantize().sum(0).expand(3, -1)
    assert (inputs.grad.float() - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("able", [True, False])
def test_a_layer_is_one_graph(able):
    layer, inputs = ScaledLinear(round_rows(matrix())), hidden(2, 3, 64).bfloat16()
    layer.rounds_activations = able
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert torch.equal(compiled(inputs), layer(inputs))


@BOTH
def test_rows_can_be_taken(dtype):
    weight, numbers = round_rows(matrix(), dtype), torch.tensor([5, 0, 5])
    taken = weight.rows(numbers)
    assert isinstance(taken, ScaledWeight)
    assert torch.equal(taken.dequantize(), weight.dequantize()[numbers])


def test_a_network_tells_what_its_rows_take():
    network = find_family("llama").read_config(llama()).build()
    before = weight_bytes(network)
    for name, module in list(network.named_modules()):
        if type(module) is nn.Linear and name.startswith("blocks."):
            rows = round_rows(module.weight)
            before += rows.nbytes - module.weight.nbytes
            network.set_submodule(name, ScaledLinear(rows, module.bias))
    assert weight_bytes(network) == before
    assert number_format(network) == "8-bit floats by rows"
