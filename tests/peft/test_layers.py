"""Adapters on layers of every form: W x + scale B (A x), whatever W is kept as."""

import pytest
import torch

from limner.checkpoints.quantized import Grid
from limner.models.families import find_family
from limner.nn.packed import pack_layers, set_activation_bits
from limner.peft import LoraConfig, Use, applied
from limner.quantization.outliers import OutlierLinear, split_outliers
from tests.families import llama
from tests.peft.adapters import random_adapter

FIELDS = llama(hidden_size=64, intermediate_size=96, num_attention_heads=4, head_dim=16)


def built():
    torch.manual_seed(0)
    network = find_family("llama").read_config(FIELDS).build().eval()
    network.initialise(0.2)
    return network


def split(network):
    """Keep a layer as LLM.int8() does."""
    matrix = network.blocks[0].feedforward.up.weight
    weight = split_outliers(matrix, torch.full((64,), 7.0), Grid(bits=8, group=32, symmetric=True))
    network.set_submodule("blocks.0.feedforward.up", OutlierLinear(weight))


FORMS = {
    "parameters": lambda network: None,
    "float": lambda network: pack_layers(network, "float"),
    "int8": lambda network: pack_layers(network, "int8"),
    "int4": lambda network: pack_layers(network, "int4"),
    "outliers": split,
}


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_a_layers_output_is_its_own_and_the_change(form):
    network = built()
    FORMS[form](network)
    set_activation_bits(network, 16)
    adapter = random_adapter(network, LoraConfig("all-linear", rank=5, alpha=3)).pack()
    layer, hidden = network.blocks[0].feedforward.up, torch.randn(2, 3, 64)
    plain = layer(hidden)
    change = hidden @ adapter.product("blocks.0.feedforward.up").T
    with applied(network, [Use(adapter)]):
        torch.testing.assert_close(layer(hidden), plain + change, atol=1e-4, rtol=0)
    with applied(network, [Use(adapter, torch.tensor([4, 1]))]):
        mixed = layer(hidden).flatten(0, 1)
    expected = plain.flatten(0, 1).clone()
    assert torch.equal(mixed[[0, 2, 3, 5]], expected[[0, 2, 3, 5]])
    expected[[1, 4]] += change.flatten(0, 1)[[1, 4]]
    torch.testing.assert_close(mixed, expected, atol=1e-4, rtol=0)
    assert torch.equal(layer(hidden), plain)


@torch.no_grad()
def test_two_adapters_at_once_add_up():
    network, hidden = built(), torch.randn(1, 3, 64)
    one = random_adapter(network, LoraConfig(("up_proj",)), seed=1)
    two = random_adapter(network, LoraConfig(("up_proj",)), seed=2)
    layer = network.blocks[0].feedforward.up
    product = one.product("blocks.0.feedforward.up") + two.product("blocks.0.feedforward.up")
    expected = layer(hidden) + hidden @ product.T
    with applied(network, [Use(one), Use(two)]):
        torch.testing.assert_close(layer(hidden), expected, atol=1e-5, rtol=0)
