"""Kernels that treat each token, or each number, by itself."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from limner import kernels
from limner.kernels import activations, rows

some_examples = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
shapes = st.tuples(st.integers(1, 9), st.integers(1, 90))
EXTREMES = torch.tensor(
    [[0.0, -0.0, 1e-40, -1e-40, 1e-38, 87.0, -87.0, 88.5, -88.5, 100.0, -100.0, 3e4, -3e4, 1.0]]
)


@pytest.mark.parametrize("kind", activations.ACTIVATIONS)
@some_examples
@given(shape=shapes)
def test_activations_equal_the_reference(variant, kind, shape):
    torch.manual_seed(0)
    first, second = 4 * torch.randn(shape), torch.randn(shape)
    expected = activations.ACTIVATIONS[kind](first)
    assert_close(kernels.activate(first, kind), expected, rtol=1e-6, atol=2e-6)
    assert_close(kernels.gated(first, second, kind), expected * second, rtol=1e-6, atol=5e-6)


@pytest.mark.parametrize("kind", activations.ACTIVATIONS)
def test_activations_at_the_extremes(variant, kind):
    expected = activations.ACTIVATIONS[kind](EXTREMES)
    assert_close(kernels.activate(EXTREMES, kind), expected, rtol=1e-6, atol=1e-6)
    assert kernels.activate(torch.full((1, 20), float("nan")), kind).isnan().all()
    infinite = kernels.activate(torch.full((1, 20), float("inf")), kind)
    assert torch.equal(infinite, torch.full((1, 20), 1.0 if kind == "tanh" else float("inf")))


@some_examples
@given(shape=shapes)
def test_sums_and_products_are_exact_whatever_the_strides(variant, shape):
    torch.manual_seed(0)
    first, second = torch.randn(shape[0], 200), torch.randn(200, shape[0]).t()
    first, second = first[:, 3 : 3 + shape[1]], second[:, : shape[1]]
    assert torch.equal(kernels.add(first, second), first + second)
    assert torch.equal(kernels.multiply(first, second), first * second)


def test_scale_and_cap(variant):
    hidden = 100 * torch.randn(3, 50)
    assert torch.equal(kernels.scale(hidden, 0.125), hidden * 0.125)
    expected = 30 * torch.tanh(hidden / 60)
    assert_close(kernels.scale(hidden, 0.5, softcap=30.0), expected, rtol=1e-5, atol=1e-5)


@some_examples
@given(shape=shapes, has_weight=st.booleans())
def test_norms_equal_the_reference(variant, shape, has_weight):
    torch.manual_seed(0)
    hidden = torch.randn(shape) + 1
    weight, bias = (torch.randn(shape[1]), torch.randn(shape[1])) if has_weight else (None, None)
    expected = rows.normalise_reference(hidden, weight, None, 1e-5, False)
    assert_close(kernels.rms_norm(hidden, weight, 1e-5), expected, rtol=1e-5, atol=1e-5)
    expected = rows.normalise_reference(hidden, weight, bias, 1e-2, True)
    assert_close(kernels.layer_norm(hidden, weight, bias, 1e-2), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e15, 2.0])
def test_norms_of_equal_values(variant, value):
    hidden = torch.full((2, 33), value)
    expected = rows.normalise_reference(hidden, None, None, 1e-5, False)
    assert_close(kernels.rms_norm(hidden, None, 1e-5), expected)


@pytest.mark.parametrize("table", ["float", (8, False), (4, False), (4, True), "Q4_K", "Q6_K"])
def test_embedding_reads_the_rows(variant, table):
    matrix = torch.randn(50, 64)
    if table in ("Q4_K", "Q6_K"):
        blocks = torch.randint(0, 60, (50, 144 if table == "Q4_K" else 210), dtype=torch.uint8)
        kept: torch.Tensor | kernels.PackedWeight = kernels.from_gguf(blocks, table)
    else:
        kept = matrix if table == "float" else kernels.quantize(matrix, *table)
    whole = matrix if isinstance(kept, torch.Tensor) else kept.dequantize()
    tokens = torch.tensor([[0, 49, 17], [16, 15, 49]])
    assert torch.equal(kernels.embed(tokens, kept), whole[tokens])
    with kernels.using(None):
        assert torch.equal(kernels.embed(tokens, kept), whole[tokens])


def test_a_token_outside_the_table_is_refused(variant):
    for table in (torch.randn(50, 64), kernels.quantize(torch.randn(50, 64))):
        with pytest.raises(ValueError, match=r"tokens from -1 to 50 .* table of 50 rows"):
            kernels.embed(torch.tensor([-1, 50]), table)


@pytest.mark.parametrize("interleaved", [False, True])
@some_examples
@given(
    count=st.integers(1, 5),
    heads=st.integers(1, 4),
    pairs=st.integers(1, 40),
    rest=st.integers(0, 9),
)
def test_rotary_positions_equal_the_reference(variant, interleaved, count, heads, pairs, rest):
    torch.manual_seed(0)
    positions = torch.randint(0, 10_000, (2, count))
    frequency = 1 / 10_000 ** (torch.arange(pairs) / pairs)
    cosine, sine = kernels.rotary_angles(positions, frequency, 1.5)
    angles = rows.rotary_angles_reference(positions, frequency, 1.5)
    assert_close((cosine, sine), angles, rtol=1e-5, atol=1e-5)
    turned = torch.randn(2, count, heads, 2 * pairs + rest)
    expected = rows.rotate_reference(turned, cosine, sine, interleaved)
    assert_close(kernels.rotate(turned, cosine, sine, interleaved), expected)


def test_rotation_follows_strides(variant):
    query_key = torch.randn(3, 6, 32)
    cosine, sine = kernels.rotary_angles(torch.arange(3), torch.rand(16))
    key = query_key[:, 4:]
    expected = rows.rotate_reference(key, cosine, sine, False)
    assert_close(kernels.rotate(key, cosine, sine), expected)


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="differ: nothing is broadcast"):
        kernels.add(torch.zeros(2, 3), torch.zeros(3))


def test_an_unknown_activation_is_refused():
    with pytest.raises(ValueError, match="no activation 'swish': choose from relu"):
        kernels.activate(torch.zeros(1), "swish")  # type: ignore[arg-type]
