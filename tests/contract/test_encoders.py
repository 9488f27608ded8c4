"""What every encoder and encoder-decoder must do, whatever it is made of."""

from typing import Any

import pytest
import torch

from limner.models.encoder import Encoder
from limner.models.encoder_decoder import EncoderDecoder
from limner.models.families import find_family
from limner.models.network import Network
from limner.nn.state import Documents
from tests.families import ENCODER_DECODERS, ENCODERS, VOCABULARY, Fields

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def tiny(fields: Fields) -> Network:
    """A tiny network with random weights."""
    torch.manual_seed(0)
    network = find_family(fields["model_type"]).read_config(fields).build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2)
    return network.eval()


def some_tokens(rows: int, time: int) -> torch.Tensor:
    """Random tokens."""
    return torch.randint(3, VOCABULARY, (rows, time), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_packed_texts_do_not_see_each_other(name):
    network, tokens = tiny(ENCODERS[name]), some_tokens(2, 11)
    assert isinstance(network, Encoder)
    documents = torch.tensor([[0] * 11 + [1] * 11])
    packed = network(tokens.view(1, 22), state=Documents(documents)).view(2, 11, -1)
    torch.testing.assert_close(packed, network(tokens), **CLOSE)


@pytest.mark.parametrize("name", ENCODERS)
@torch.no_grad()
def test_every_token_sees_the_whole_text(name):
    network, tokens = tiny(ENCODERS[name]), some_tokens(1, 9)
    changed = tokens.clone()
    changed[0, 8] = (changed[0, 8] + 1) % VOCABULARY
    moved = (network(tokens) - network(changed)).abs().amax(-1)
    assert (moved > 0).all()


@pytest.mark.parametrize("name", ENCODERS)
def test_gradient_flows_to_every_parameter_of_an_encoder(name):
    network, tokens = tiny(ENCODERS[name]).train(), some_tokens(3, 9)
    assert isinstance(network, Encoder)
    types = (torch.arange(9) > 4).long().expand(3, -1)
    hidden = network(tokens, types=types)
    results = [head(hidden) for head in network.heads.values()] or [hidden]
    sum((result * torch.randn_like(result)).sum() for result in results).backward()  # type: ignore[union-attr]
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in still if not name.endswith("mixer.key.bias")] == []


@pytest.mark.parametrize("name", ENCODER_DECODERS)
@torch.no_grad()
def test_the_future_of_a_target_does_not_reach_its_past(name):
    network = tiny(ENCODER_DECODERS[name])
    assert isinstance(network, EncoderDecoder)
    source, target = some_tokens(2, 13), some_tokens(2, 9)
    changed = target.clone()
    changed[:, 6:] = (changed[:, 6:] + 1) % VOCABULARY
    before = network.logits(target, network.read(source))
    after = network.logits(changed, network.read(source))
    assert torch.equal(before[:, :6], after[:, :6])
    assert not torch.allclose(before[:, 6:], after[:, 6:])


@pytest.mark.parametrize("name", ENCODER_DECODERS)
def test_gradient_flows_to_every_parameter_of_a_pair(name):
    network = tiny(ENCODER_DECODERS[name]).train()
    assert isinstance(network, EncoderDecoder)
    logits = network.logits(some_tokens(2, 9), network.read(some_tokens(2, 13)))
    (logits * torch.randn_like(logits)).sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    ends = ("mixer.key.bias", "cross.key.bias")  # a shift of all keys alike moves all scores alike
    assert [name for name in still if not name.endswith(ends)] == []
