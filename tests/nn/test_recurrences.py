"""What every recurrent mixer must do with long texts, packed rows and reused rows of a cache."""

from typing import Any

import pytest
import torch

from limner.models.decoder import Decoder
from limner.models.families import find_family
from limner.nn.state import Documents
from tests.families import VOCABULARY
from tests.recurrent_families import OURS, PUBLISHED

CLOSE: dict[str, Any] = {"atol": 2e-5, "rtol": 2e-5}
MODELS = PUBLISHED | OURS
#: One of a kind: what follows depends on the mixer only.
NAMES = ["lstm", "gru", "mamba", "mamba2", "rwkv", "performer-rotary", "fixed-window"]


def tiny(name: str, dtype: torch.dtype = torch.float32) -> Decoder:
    """A tiny network of a family with random weights."""
    fields = MODELS[name]
    network = find_family(fields["model_type"]).read_config(fields).build()
    assert isinstance(network, Decoder)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2, generator=generator)
    return network.eval().to(dtype)


def some_tokens(rows: int, time: int) -> torch.Tensor:
    """Random tokens."""
    return torch.randint(VOCABULARY, (rows, time), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_long_text_in_parts_equals_the_whole(name):
    network, tokens = tiny(name), some_tokens(2, 170)
    cache = network.new_cache(rows=2, capacity=200)
    parts = [network.logits(part, cache) for part in tokens.split([70, 1, 1, 64, 34], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), network.logits(tokens), **CLOSE)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_texts_packed_anyhow_equal_texts_alone(name):
    network, tokens = tiny(name), some_tokens(2, 150)
    lengths = [[1, 2, 61, 1, 85], [130, 20]]
    documents = torch.stack(
        [torch.arange(len(row)).repeat_interleave(torch.tensor(row)) for row in lengths]
    )
    packed = network(tokens, state=Documents(documents))
    for row, sizes in enumerate(lengths):
        texts = zip(tokens[row].split(sizes), packed[row].split(sizes), strict=True)
        for text, got in texts:
            torch.testing.assert_close(got, network(text[None])[0], **CLOSE)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_packed_texts_add_up(name):
    network, tokens = tiny(name, torch.float64), some_tokens(1, 90)
    network(
        tokens, state=Documents(torch.arange(2).repeat_interleave(45)[None])
    ).square().sum().backward()
    packed = {
        name: parameter.grad.clone()
        for name, parameter in network.named_parameters()
        if parameter.grad is not None
    }
    network.zero_grad()
    for text in tokens.split(45, dim=1):
        network(text).square().sum().backward()
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(packed[name], parameter.grad, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_a_freed_row_knows_nothing_of_its_last_text(name):
    network, tokens = tiny(name), some_tokens(2, 12)
    cache = network.new_cache(rows=2, capacity=32)
    network(tokens, state=cache)
    cache.free(0)
    hidden = network(tokens[1:, :5], state=cache.step([(0, 5)]))
    torch.testing.assert_close(hidden, network(tokens[1:, :5]), **CLOSE)
    untouched = network(tokens[1:, :3], state=cache.step([(1, 3)]))
    expected = network(torch.cat((tokens[1:], tokens[1:, :3]), 1))[:, -3:]
    torch.testing.assert_close(untouched, expected, **CLOSE)


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_half_precision_stays_near(name):
    network, tokens = tiny(name), some_tokens(1, 100)
    expected = network.logits(tokens)
    half = tiny(name, torch.bfloat16)
    cache = half.new_cache(rows=1, capacity=128)
    got = torch.cat([half.logits(part, cache) for part in tokens.split(50, dim=1)], 1)
    assert got.dtype == torch.bfloat16
    assert (got.float() - expected).norm() < 0.1 * expected.norm()


def test_a_recurrent_cache_says_that_it_cannot_rewind():
    network = tiny("lstm")
    cache = network.new_cache(rows=1, capacity=8)
    assert not cache.can_rewind
    assert not cache.begin(1, 2).can_rewind
