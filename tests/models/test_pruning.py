"""A network without some heads answers as the whole one with these heads silenced."""

import copy
import json
from typing import Any

import pytest
import torch

from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.models.counting import count_parameters
from limner.models.families import find_family
from limner.models.pruning import prune_heads
from tests.families import VOCABULARY, Fields, bert, gpt2, llama

#: Models, what is taken out, and which heads are left in the first layer.
CASES: dict[str, tuple[Fields, dict[int, list[int]], tuple[int, int]]] = {
    "bert": (bert(architectures=["BertForMaskedLM"]), {0: [1], 2: [0, 2]}, (2, 2)),
    "gpt2": (gpt2(), {0: [0, 2], 1: [1]}, (1, 1)),
    "llama-multi-query": (llama(), {0: [0, 3], 1: [4]}, (3, 1)),
    "llama-groups": (
        llama(num_attention_heads=6, num_key_value_heads=3, head_dim=8, attention_bias=True),
        {0: [2, 3], 1: [0, 2, 5]},
        (4, 2),
    ),
}


@pytest.fixture(params=CASES)
def case(request) -> tuple[Any, dict[int, list[int]], tuple[int, int]]:
    """A network with random weights, and what is taken out."""
    fields, heads, left = CASES[request.param]
    torch.manual_seed(0)
    network = find_family(fields["model_type"]).read_config(fields).build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2)
    return network.eval(), heads, left


def answer(network: Any) -> torch.Tensor:
    """Hidden vectors of some tokens."""
    tokens = torch.randint(VOCABULARY, (2, 11), generator=torch.Generator().manual_seed(1))
    hidden: torch.Tensor = network(tokens)
    return hidden


@torch.no_grad()
def silenced(network: Any, heads: dict[int, list[int]]) -> Any:
    """The network, with nothing read from these heads."""
    network = copy.deepcopy(network)
    for layer, chosen in heads.items():
        mixer = network.blocks[layer].mixer
        columns = mixer.output.weight.unflatten(1, (-1, mixer.config.head_width))
        columns[:, chosen] = 0
    return network


@torch.no_grad()
def test_pruning_equals_silencing(case):
    network, heads, (left, keys) = case
    want, before = answer(silenced(network, heads)), count_parameters(network)
    prune_heads(network, heads)
    torch.testing.assert_close(answer(network), want, atol=1e-5, rtol=1e-5)
    mixer = network.config.blocks[0].mixer
    assert (mixer.heads, mixer.key_value_heads) == (left, keys)
    assert network.blocks[0].mixer.key.out_features == keys * mixer.head_width
    assert count_parameters(network) < before


@torch.no_grad()
def test_what_is_left_is_saved_and_loaded(case, tmp_path):
    network, heads, _ = case
    prune_heads(network, heads)
    save_folder(network, tmp_path)
    again = open_checkpoint(tmp_path)
    assert again.config == network.config
    torch.testing.assert_close(answer(again.network()), answer(network), atol=0, rtol=0)
    listed = json.loads((tmp_path / "config.json").read_text())["pruned_heads"]
    assert listed == {str(layer): chosen for layer, chosen in heads.items()}


@torch.no_grad()
def test_pruning_twice_is_pruning_once(case):
    network, heads, _ = case
    once, twice = copy.deepcopy(network), copy.deepcopy(network)
    prune_heads(once, heads)
    prune_heads(twice, {layer: chosen for layer, chosen in heads.items() if layer == 0})
    prune_heads(twice, {layer: chosen for layer, chosen in heads.items() if layer != 0})
    assert once.config == twice.config
    torch.testing.assert_close(answer(twice), answer(once), atol=0, rtol=0)


def test_heads_keep_their_first_numbers():
    network: Any = find_family("bert").read_config(bert()).build()
    prune_heads(network, {0: [0]})
    prune_heads(network, {0: [1]})  # which was head 2
    assert network.config.blocks[0].mixer.removed.heads == (0, 2)


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ({3: [0]}, "there is no layer 3: layers run from 0 to 2"),
        ({0: [6]}, "there is no head 6: heads run from 0 to 5"),
        ({0: [0]}, r"removing heads \[0\] leaves groups of \[1, 2, 2\] heads"),
        ({0: [0, 1, 2, 3, 4, 5]}, "leaves none"),
    ],
)
def test_what_cannot_be_removed_is_named(heads, message):
    fields = llama(num_attention_heads=6, num_key_value_heads=3, head_dim=8)
    network: Any = find_family("llama").read_config(fields).build()
    with pytest.raises(ValueError, match=message):
        prune_heads(network, heads)
