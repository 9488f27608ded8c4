import pytest
import torch
from torch import nn

from limner.training import float8
from limner.training.float8 import fitting, in_float8, rounded, rounded_linear
from tests.families import llama
from tests.objectives.batches import network
from tests.training.runs import events, losses, trainer, weights

WIDE = llama(num_hidden_layers=2, hidden_size=32, intermediate_size=48, num_attention_heads=4)
WIDE |= {"num_key_value_heads": 2, "head_dim": 8}


def away(one, other):
    return ((one.float() - other).norm() / other.norm()).item()


@pytest.mark.parametrize("bias", [True, False])
def test_products_and_gradients_are_near(bias):
    """e4m3 has a relative error of up to 1/16, e5m2 of up to 1/8; on average much less."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 48, bias=bias)
    hidden, upstream = torch.randn(2, 16, 64, requires_grad=True), torch.randn(2, 16, 48)
    inputs = [hidden, *layer.parameters()]
    product = rounded_linear(layer, hidden)
    found = torch.autograd.grad(product, inputs, upstream.bfloat16())
    exact = layer(hidden)
    wanted = torch.autograd.grad(exact, inputs, upstream)
    assert product.dtype == torch.bfloat16
    assert 0.01 < away(product, exact) < 0.05
    assert all(away(one, other) < 0.09 for one, other in zip(found, wanted, strict=True))
    assert [g.dtype for g in found] == [torch.float32] * len(found)


def test_numbers_of_the_format_are_multiplied_without_loss():
    layer = nn.Linear(16, 16, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(16) * 2)
    hidden = torch.randint(-7, 8, (16, 16)).float().clamp(-7, 7)
    hidden[0, 0] = 7.0
    assert torch.equal(rounded_linear(layer, hidden).float(), hidden * 2)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e30])
def test_any_size_has_a_scale(dtype, size):
    matrix = torch.linspace(-1, 1, 64).view(8, 8) * size
    codes, scale = rounded(matrix, dtype)
    torch.testing.assert_close(codes.float() * scale, matrix, rtol=0.13, atol=0.01 * size)


def test_what_is_not_finite_stays_so():
    matrix = torch.ones(16, 16)
    matrix[3, 4] = torch.inf
    assert not rounded_linear(nn.Linear(16, 16), matrix).isfinite().all()


def test_rows_that_do_not_fit_are_left_to_the_layer():
    layer, hidden = nn.Linear(16, 16), torch.randn(5, 16)
    assert torch.equal(rounded_linear(layer, hidden), layer(hidden))


def test_layers_of_blocks_that_fit_are_taken_and_given_back():
    model = network(WIDE)
    taken = list(fitting(model))
    assert len(taken) == 2 * 7
    assert model.head not in taken
    odd = network(WIDE | {"intermediate_size": 50})
    assert len(list(fitting(odd))) == 2 * 4
    with in_float8(model):
        assert all("forward" in vars(layer) for layer in taken)
    assert not any("forward" in vars(layer) for layer in taken)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_run_learns_as_it_does_in_bfloat16(tmp_path, monkeypatch, recompute):
    monkeypatch.setattr(float8, "multiplies_float8", lambda device: True)
    options = {"fields": WIDE, "steps": 25, "rows": 4, "recompute": recompute}
    narrow = trainer(tmp_path / "8", precision="float8", **options)
    wide = trainer(tmp_path / "16", precision="bfloat16", **options)
    for each in (narrow, wide):
        each.fit()
    (_, first), *_, (_, last) = losses(tmp_path / "8")
    *_, (_, other) = losses(tmp_path / "16")
    assert first == pytest.approx(4.57, abs=0.1)
    assert last < first - 1
    assert last == pytest.approx(other, abs=0.2)
    assert any(not torch.equal(weights(narrow)[n], w) for n, w in weights(wide).items())
    assert events(tmp_path / "8", "start")[0]["precision"] == "float8"


def test_a_device_without_it_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"capability 8\.9 or later, not cpu"):
        trainer(tmp_path, precision="float8")


def test_parts_of_matrices_are_refused():
    with pytest.raises(ValueError, match=r"parallel\.kind=tensor"):
        float8.require_float8(torch.device("cpu"), "tensor")
