"""Adapters are trained alone: the network under them stays as it was."""

import torch

from limner.models.families import find_family
from limner.peft import LoraConfig, Use, applied, new_adapter
from tests.families import gpt2

TOKENS = torch.tensor([[5, 17, 3, 88, 41, 2, 60]])


def loss_of(network):
    logits = network.logits(TOKENS[:, :-1])
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), TOKENS[0, 1:])


def test_a_step_changes_the_adapter_and_nothing_else():
    torch.manual_seed(0)
    network = find_family("gpt2").read_config(gpt2()).build().train()
    network.initialise(0.2)
    network.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    adapter = new_adapter(network, LoraConfig("all-linear", rank=4, dropout=0.1))
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.5)
    losses = []
    for _ in range(20):
        with applied(network, [Use(adapter)]):
            loss = loss_of(network)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] - 0.5
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert all(parameter.grad is not None for parameter in adapter.parameters())


def test_dropout_is_for_training_only():
    torch.manual_seed(0)
    network = find_family("gpt2").read_config(gpt2()).build().eval()
    network.initialise(0.2)
    adapter = new_adapter(network, LoraConfig("all-linear", dropout=0.5))
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    with torch.no_grad(), applied(network, [Use(adapter)]):
        assert adapter.training
        assert not torch.equal(network.logits(TOKENS), network.logits(TOKENS))
        adapter.eval()
        assert torch.equal(network.logits(TOKENS), network.logits(TOKENS))
