"""Paged caches: pages may lie anywhere and hold anything, and texts take them as they grow."""

import pytest
import torch

from limner import kernels
from limner.models.families import find_family
from limner.nn.cache import CacheShape
from limner.nn.paged import PagedCache
from limner.nn.paged_int8 import Int8PagedCache
from limner.nn.scoring import Scoring
from tests.decoder_families import DECODERS
from tests.families import VOCABULARY

#: Plain, with latents for keys, with a bias by distance, sliding windows, a recurrence.
NAMES = ["llama-grouped", "deepseek-v2", "bloom", "gemma2", "mistral"]


def tiny(name, dtype):
    torch.manual_seed(0)
    fields = DECODERS[name]
    network = find_family(fields["model_type"]).read_config(fields).build()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(std=0.2)
    return network.eval().to(dtype)


def texts(rows, time):
    return torch.randint(VOCABULARY, (rows, time), generator=torch.Generator().manual_seed(1))


def dirty(cache):
    """Fill all pages that may be given with what must never show."""
    for kept in (*cache.keys, *cache.values):
        kept[1:] = torch.nan


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_a_decode_step_reads_only_what_it_is_given(name, dtype):
    network, tokens = tiny(name, dtype), texts(4, 40)
    cache = network.new_paged_cache(rows=4, capacity=64, pages=20, page_size=16)
    dirty(cache)
    held = {0: 37, 1: 16, 3: 9}  # row 2 only fills the batch
    for row, pages in ((0, [7, 3, 1]), (1, [2, 9, 4]), (3, [5, 6, 20])):
        cache.give(row, pages)
        network(tokens[row, : held[row]][None], state=cache.step([(row, held[row])]))
    rows = [3, 0, 1] if cache.takes_kernels(0, torch.zeros(1)) else [3, 0, 2, 1]
    places = torch.tensor([held.get(row, -1) for row in rows])
    step = cache.decode_step(torch.tensor(rows), places)
    hidden = network(tokens[rows, places][None], places[None], step)[0]
    assert cache.lengths == [37, 16, 0, 9]
    close = {"atol": 0.15, "rtol": 0.1} if dtype == torch.bfloat16 else {"atol": 3e-5, "rtol": 1e-5}
    for row, place, got in zip(rows, places.tolist(), hidden, strict=True):
        if place >= 0:
            whole = network(tokens[row, : place + 1][None])[0, -1]
            torch.testing.assert_close(got, whole, **close)


@pytest.mark.parametrize("kind", [PagedCache, Int8PagedCache])
@torch.inference_mode()
def test_numbers_do_not_depend_on_chunks_or_company_where_the_kernels_attend(kind):
    cache = kind([CacheShape(2, 8, 8)], rows=2, capacity=48, page_size=16)
    if not cache.takes_kernels(0, torch.zeros(1)):
        pytest.skip("the kernels are not built")
    query, key, scoring = torch.randn(1, 40, 4, 8), torch.randn(1, 40, 2, 8), Scoring(0.3)
    expected = cache.step([(0, 40)]).attend(0, query, key, key, scoring)
    parts = []
    for start, end in ((0, 7), (7, 39), (39, 40)):
        step = cache.step([(0, 3), (1, end - start)])
        chosen = [torch.cat((heads[:, :3], heads[:, start:end]), 1) for heads in (query, key, key)]
        parts.append(step.attend(0, chosen[0], chosen[1], chosen[2], scoring)[:, 3:])
        cache.advance([(1, end - start)])
    assert torch.equal(torch.cat(parts, 1), expected)


def test_a_copied_page_goes_its_own_way():
    cache = PagedCache([CacheShape(2, 4, 4)], rows=2, capacity=32, pages=3, page_size=16)
    cache.keys[0][1], cache.values[0][1] = 1, 2
    cache.copy_page(1, 3)
    cache.keys[0][1] = 5
    assert cache.keys[0][3].unique().tolist() == [1]
    assert cache.values[0][3].unique().tolist() == [2]


def test_a_page_of_an_odd_size_is_refused():
    with pytest.raises(ValueError, match="page_size must be a multiple of 16, not 20"):
        PagedCache([CacheShape(2, 4, 4)], rows=1, capacity=32, page_size=20)


def test_a_text_longer_than_its_row_is_refused():
    cache = PagedCache([CacheShape(2, 4, 4)], rows=1, capacity=20)
    with pytest.raises(
        ValueError, match="row 0 would hold 21 tokens but the cache has room for 20"
    ):
        cache.step([(0, 21)])


#: How many tokens four rows hold, and their pages of sixteen.
HELD = {0: 61, 1: 16, 2: 1, 3: 40}


def filled(network, seed, capacity=160):
    """A cache whose rows hold texts in pages that lie at random."""
    cache = network.new_paged_cache(rows=4, capacity=capacity, pages=30, page_size=16)
    dirty(cache)
    pages = (torch.randperm(30, generator=torch.Generator().manual_seed(seed)) + 1).tolist()
    for row, held in HELD.items():
        cache.give(row, pages[4 * row : 4 * row + 4])
        network(texts(4, 80)[row, :held][None], state=cache.step([(row, held)]))
    return cache


@pytest.mark.parametrize("pages", [4, 8, None])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [*NAMES, "gpt2", "gemma2-types", "qwen2-window"])
@torch.inference_mode()
def test_a_decode_step_over_some_pages_gives_what_an_ordinary_step_gives(name, dtype, pages):
    with kernels.using(None):
        network, order = tiny(name, dtype), [2, 0, 3, 1]
        tokens = texts(4, 80)[order, [HELD[row] for row in order]][None]
        positions = torch.tensor([HELD[row] for row in order])
        ordinary = filled(network, 1)
        expected = network(tokens, positions[None], ordinary.step([(row, 1) for row in order]))
        cache = filled(network, 2)
        step = cache.decode_step(torch.tensor(order), positions, pages)
        got = network(tokens, positions[None], step)
    close = {"atol": 0.1, "rtol": 0.1} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(got, expected, **close)


@torch.inference_mode()
def test_a_window_reads_only_the_pages_in_its_sight():
    network = tiny("mistral", torch.float64)  # sees 5 places
    cache = filled(network, 1, capacity=64)  # the longest text is in its last page
    state = [(row, held) for row, held in HELD.items() if held > 16]
    expected = network(torch.tensor([[7, 8]]), None, cache.step([(row, 1) for row, _ in state]))
    for row, held in state:
        cache.lengths[row] = held
        for place in range((held - 4) // 16):
            for kept in (*cache.keys, *cache.values):
                kept[cache.tables[row, place]] = torch.nan
    positions = torch.tensor([held for _, held in state])
    step = cache.decode_step(torch.tensor([row for row, _ in state]), positions)
    got = network(torch.tensor([[7, 8]]), positions[None], step)
    torch.testing.assert_close(got, expected)
