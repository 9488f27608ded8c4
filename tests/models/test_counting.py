import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from limner.models.counting import (
    abbreviate,
    cache_bytes,
    count_parameters,
    on_meta,
    operations_per_token,
    parameters_by_part,
)
from limner.models.decoder import Decoder
from limner.models.families import find_family

LLAMA = {
    "hidden_size": 576,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "num_hidden_layers": 30,
    "intermediate_size": 1536,
    "vocab_size": 49152,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 8192,
    "tie_word_embeddings": True,
}
GPT2 = {
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "vocab_size": 50257,
    "layer_norm_epsilon": 1e-5,
}
CONFIGS = {
    "llama": find_family("llama").read_config(LLAMA),
    "untied": find_family("llama").read_config(LLAMA | {"tie_word_embeddings": False}),
    "gpt2": find_family("gpt2").read_config(GPT2),
}


def decoder(name):
    network = on_meta(CONFIGS[name])
    assert isinstance(network, Decoder)
    return network


def test_known_models_have_their_known_sizes():
    assert count_parameters(on_meta(CONFIGS["llama"])) == 134_515_008
    assert count_parameters(on_meta(CONFIGS["gpt2"])) == 124_439_808


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_add_up_to_the_whole(name):
    network = on_meta(CONFIGS[name])
    assert sum(parameters_by_part(network).values()) == count_parameters(network)


def test_the_parts_of_a_llama():
    parts = parameters_by_part(on_meta(CONFIGS["untied"]))
    assert parts["embedding"] == parts["head"] == 49152 * 576
    assert parts["feed-forward"] == 30 * 3 * 576 * 1536
    assert parts["attention"] == 30 * 576 * 64 * (9 + 3 + 3 + 9)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("length", [1, 700])
def test_operations_are_those_that_pytorch_counts(name, length):
    network = decoder(name)
    cache = network.new_cache(rows=1, capacity=length)
    cache.lengths = [length - 1]
    token = torch.zeros(1, 1, dtype=torch.long, device="meta")
    with FlopCounterMode(display=False) as counter:
        network.head(network(token, state=cache))
    assert operations_per_token(network, length) == counter.get_total_flops()


def test_a_cache_keeps_keys_and_values_of_every_layer():
    assert cache_bytes(decoder("llama"), 8192, 2) == 8192 * 30 * 2 * 3 * 64 * 2


def test_large_numbers_are_abbreviated():
    numbers = [134_515_008, 1.5e12, 999, 1000, 7e9]
    assert list(map(abbreviate, numbers)) == ["134.5M", "1.5T", "999", "1k", "7B"]
