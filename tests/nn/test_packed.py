"""Packed layers stand for the layers that they replace."""

import pytest
import torch

from limner import kernels
from limner.models.families import find_family
from limner.nn.packed import (
    PackedEmbedding,
    PackedLinear,
    number_format,
    pack_layers,
    packed_weights,
    set_activation_bits,
    weight_bytes,
)
from tests.decoder_families import DECODERS
from tests.families import llama


def tiny(**changes):
    torch.manual_seed(0)
    return find_family("llama").read_config(llama(**changes)).build().eval()


TOKENS = torch.tensor([[5, 3, 9, 9, 1, 60]])


@torch.no_grad()
@pytest.mark.parametrize("name", sorted(DECODERS))
def test_floats_give_the_same_logits(name):
    torch.manual_seed(0)
    fields = DECODERS[name]
    network = find_family(fields["model_type"]).read_config(fields).build().eval()
    network.initialise(0.2)
    plain = network.logits(TOKENS)
    pack_layers(network, "float")
    torch.testing.assert_close(network.logits(TOKENS), plain, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize(("weights", "error"), [("int8", 0.02), ("int4", 0.2)])
def test_few_bits_are_rounded_to_nearest(weights, error):
    layer = torch.nn.Sequential(torch.nn.Linear(64, 50))
    plain, hidden = layer[0], torch.randn(3, 64)
    assert isinstance(plain, torch.nn.Linear)
    pack_layers(layer, weights)
    weight = layer[0].weight
    assert isinstance(weight, kernels.PackedWeight)
    assert weight.bits == {"int8": 8, "int4": 4}[weights]
    exact = kernels.quantize(plain.weight, weight.bits, minimum=weights == "int4").dequantize()
    torch.testing.assert_close(weight.dequantize(), exact, atol=0, rtol=0)
    far = (layer(hidden) - plain(hidden)).abs().max() / plain(hidden).abs().max()
    assert far < error


def test_tied_layers_share_the_packed_matrix():
    network = tiny(tie_word_embeddings=True)
    matrix = network.embedding.tokens.weight
    others = weight_bytes(network) - matrix.nbytes
    pack_layers(network, "float")
    assert network.head.output.weight is network.embedding.tokens.weight
    padded = network.head.output.weight.nbytes - matrix.nbytes
    assert 0 <= padded < 32 * matrix.shape[1] * 4
    assert weight_bytes(network) >= others + matrix.nbytes


def test_the_vocabulary_gets_8_bits_where_the_rest_gets_4():
    network = tiny(
        hidden_size=64, intermediate_size=96, num_attention_heads=2, num_key_value_heads=2
    )
    pack_layers(network, "int4")
    bits = {
        name: weight.bits
        for name, weight in packed_weights(network)
        if isinstance(weight, kernels.PackedWeight)
    }
    assert bits.pop("embedding.tokens.weight") == 8
    assert bits.pop("head.output.weight") == 8
    assert set(bits.values()) == {4}
    assert number_format(network) == "4 bits and a minimum"


def test_a_width_that_is_no_multiple_of_32_stays_float():
    layer = torch.nn.Sequential(torch.nn.Linear(50, 64))
    pack_layers(layer, "int8")
    assert isinstance(layer[0].weight, kernels.PackedFloats)


def test_a_network_says_what_its_layers_hold():
    network = tiny()
    pack_layers(network, "float")
    shown = repr(network)
    assert "float32" in shown
    assert isinstance(network.embedding.tokens, PackedEmbedding)
    assert isinstance(network.blocks[0].mixer.query, PackedLinear)


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_activations_of_16_bits_count_as_floats(weights, bias):
    layer = torch.nn.Sequential(torch.nn.Linear(96, 50, bias))
    hidden = torch.randn(2, 3, 96) * torch.logspace(-6, 6, 3)[:, None]
    pack_layers(layer, weights)
    packed = layer[0].weight
    assert isinstance(packed, kernels.PackedWeight)
    shift = layer[0].bias if bias else torch.zeros(50)
    assert isinstance(shift, torch.Tensor)
    exact = torch.nn.functional.linear(hidden, packed.dequantize(), shift)
    coarse = (layer(hidden) - exact).abs()
    set_activation_bits(layer, 16)
    fine = (layer(hidden) - exact).abs()
    size = hidden.norm(dim=-1, keepdim=True) * packed.dequantize().norm(dim=1)
    size = size + shift.abs()
    assert (fine / size).max() < 2e-5
    assert (fine / size).max() < (coarse / size).max() / 20
    set_activation_bits(layer, 8)
    torch.testing.assert_close((layer(hidden) - exact).abs(), coarse, atol=0, rtol=0)


@torch.no_grad()
def test_what_is_not_finite_shows_in_its_own_token_only():
    layer = torch.nn.Sequential(torch.nn.Linear(64, 40))
    pack_layers(layer, "int8")
    set_activation_bits(layer, 16)
    hidden = torch.randn(3, 64)
    whole = layer(hidden)
    hidden[1, 5] = torch.inf
    broken = layer(hidden)
    assert broken[1].isnan().all()
    torch.testing.assert_close(broken[[0, 2]], whole[[0, 2]], atol=0, rtol=0)
