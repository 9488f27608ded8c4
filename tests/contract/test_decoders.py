"""What every decoder must do, whatever it is made of."""

from typing import Any

import pytest
import torch

from limner.models.decoder import Decoder
from limner.models.families import find_family
from limner.nn.cache import DenseCache
from limner.nn.mixture import Router
from limner.nn.paged import PagedCache
from limner.nn.state import Documents
from tests.decoder_families import DECODERS
from tests.families import VOCABULARY
from tests.recurrent_families import OURS, PUBLISHED

CLOSE: dict[str, Any] = {"atol": 3e-5, "rtol": 1e-5}
MODELS = DECODERS | PUBLISHED | OURS
CACHED = [name for name in MODELS if "dynamic" not in name]  # its keys depend on the text's length


def tiny(name: str) -> Decoder:
    """A tiny network of a family with random weights."""
    torch.manual_seed(0)
    fields = MODELS[name]
    network = find_family(fields["model_type"]).read_config(fields).build()
    assert isinstance(network, Decoder)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2)
    return network.eval()


def some_tokens(rows: int = 2, time: int = 15) -> torch.Tensor:
    """Random tokens."""
    return torch.randint(VOCABULARY, (rows, time), generator=torch.Generator().manual_seed(1))


def a_cache(network: Decoder, kind: str, rows: int, capacity: int) -> DenseCache | PagedCache:
    """An empty cache; paged in small pages, and in the order that makes most trouble."""
    if kind == "dense":
        return network.new_cache(rows, capacity)
    cache = network.new_paged_cache(rows, capacity, page_size=16)
    for row in range(rows):
        cache.give(row, [1 + row + rows * page for page in range(cache.tables.shape[1])][::-1])
    return cache


@pytest.mark.parametrize("kind", ["dense", "paged"])
@pytest.mark.parametrize("name", CACHED)
@torch.no_grad()
def test_a_cached_step_equals_the_full_pass(name, kind):
    network, tokens = tiny(name), some_tokens(time=20)
    cache = a_cache(network, kind, rows=2, capacity=20)
    stepped = torch.cat([network.logits(step, cache) for step in tokens.split(1, dim=1)], dim=1)
    torch.testing.assert_close(stepped, network.logits(tokens), **CLOSE)


@pytest.mark.parametrize("kind", ["dense", "paged"])
@pytest.mark.parametrize("name", CACHED)
@torch.no_grad()
def test_ragged_rows_equal_rows_alone(name, kind):
    network, tokens = tiny(name), some_tokens(rows=3)
    cache = a_cache(network, kind, rows=4, capacity=16)
    places = {3: 0, 1: 0, 0: 0}  # row of the cache: tokens it holds; row 3 takes tokens[0] ...
    works = ([(3, 4), (1, 7)], [(0, 4), (3, 1), (1, 1)], [(1, 2), (0, 1), (3, 5)], [(0, 2), (1, 2)])
    for work in works:
        parts = [tokens[_text(row)][places[row] : places[row] + count] for row, count in work]
        hidden = network(torch.cat(parts)[None], state=cache.step(work))[0]
        for (row, count), got in zip(work, hidden.split([count for _, count in work]), strict=True):
            places[row] += count
            alone = network(tokens[_text(row)][None, : places[row]])[0, -count:]
            torch.testing.assert_close(got, alone, **CLOSE)
    assert cache.lengths == [7, 12, 0, 10]


def _text(row: int) -> int:
    return {3: 0, 1: 1, 0: 2}[row]


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_future_does_not_reach_the_past(name):
    network, tokens = tiny(name), some_tokens()
    changed = tokens.clone()
    changed[:, 9:] = (changed[:, 9:] + 1) % VOCABULARY
    before, after = network.logits(tokens), network.logits(changed)
    # An expert's matrix product rounds by how many tokens it got, so bits may differ in a mixture.
    close = (
        CLOSE if any(isinstance(m, Router) for m in network.modules()) else {"atol": 0, "rtol": 0}
    )
    torch.testing.assert_close(after[:, :9], before[:, :9], **close)
    assert not torch.allclose(before[:, 9:], after[:, 9:])


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_packed_documents_do_not_see_each_other(name):
    network, (first, second) = tiny(name), some_tokens(time=20)
    second = second[:6]
    documents = torch.tensor([[0] * 20 + [1] * 6])
    packed = network(torch.cat((first, second))[None], state=Documents(documents))[0]
    torch.testing.assert_close(packed[:20], network(first[None])[0], **CLOSE)
    torch.testing.assert_close(packed[20:], network(second[None])[0], **CLOSE)


@pytest.mark.parametrize("name", CACHED)
@torch.no_grad()
def test_a_rewound_state_forgets(name):
    network, tokens = tiny(name), some_tokens(rows=1)
    cache = network.new_cache(rows=1, capacity=32)
    if not cache.can_rewind:
        pytest.skip("its state cannot go back")
    network(tokens, state=cache)
    cache.rewind(0, 6)
    again = network(tokens[:, 6:], state=cache)
    torch.testing.assert_close(again, network(tokens)[:, 6:], **CLOSE)


@pytest.mark.parametrize("name", MODELS)
def test_gradient_flows_to_every_parameter(name):
    network = tiny(name).train()
    network.logits(some_tokens()).logsumexp(-1).sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # A shift of all keys alike moves every score alike, and softmax does not notice.
    assert [name for name in still if not name.endswith("mixer.key.bias")] == []


@pytest.mark.parametrize("name", MODELS)
@torch.no_grad()
def test_the_loss_before_training_is_that_of_guessing(name):
    network, tokens = tiny(name), some_tokens(rows=8)
    network.initialise(generator=torch.Generator().manual_seed(0))
    logits = network.logits(tokens)[:, :-1].flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(torch.tensor(VOCABULARY).log().item(), abs=0.1)
