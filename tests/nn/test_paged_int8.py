"""A cache in 8 bits: small, close, and the same however a text is computed."""

import pytest
import torch

from limner.kernels import round_heads
from limner.nn.cache import CacheShape
from limner.nn.paged import PagedCache
from limner.nn.paged_int8 import Int8PagedCache
from tests.nn.test_paged import texts, tiny


def test_rounding_is_within_half_a_step_and_keeps_what_is_not_finite_visible():
    heads = torch.randn(5, 3, 64) * torch.logspace(-6, 6, 5)[:, None, None]
    codes, scales = round_heads(heads)
    error = (codes * scales[..., None] - heads).abs()
    assert (error <= 0.5001 * heads.abs().amax(-1, keepdim=True) / 127).all()
    assert round_heads(torch.zeros(1, 4))[0].tolist() == [[0, 0, 0, 0]]
    codes, scales = round_heads(torch.tensor([[1.0, torch.nan], [1.0, torch.inf]]))
    assert (codes * scales[..., None]).isnan().all(-1).tolist() == [True, True]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["llama-grouped", "deepseek-v2", "bloom", "gemma2"])
@torch.inference_mode()
def test_the_next_token_is_nearly_as_likely(name, dtype):
    network, (tokens,) = tiny(name, dtype), texts(1, 60)
    caches = [network.new_paged_cache(2, 64, 9, 16, bits=bits) for bits in (8, None)]
    logprobs = []
    for cache in caches:
        for kept in cache.kept:
            kept[1:] = torch.nan if kept.is_floating_point() else 77
        cache.give(1, [4, 8, 2, 5])
        for part in tokens.split(17):
            hidden = network(part[None], state=cache.step([(1, len(part))]))
        logprobs.append(network.head(hidden)[0].float().log_softmax(-1))
    divergence = (logprobs[1].exp() * (logprobs[1] - logprobs[0])).sum(-1)
    assert 0 < divergence.max() < 2e-3


def test_a_page_takes_little_more_than_a_quarter():
    shapes = [CacheShape(3, 64, 64)] * 2
    small, large = (kind(shapes, rows=1, capacity=32) for kind in (Int8PagedCache, PagedCache))
    assert small.page_bytes == large.page_bytes * (64 + 4) / 256


def test_a_copied_page_goes_its_own_way():
    cache = Int8PagedCache([CacheShape(2, 4, 4)], rows=1, capacity=32, pages=3)
    places = cache.step([(0, 1)]).places
    cache.give(0, [1])
    cache.store(0, torch.ones(1, 2, 4), torch.ones(1, 2, 4), places)
    cache.copy_page(1, 3)
    cache.store(0, torch.zeros(1, 2, 4), torch.zeros(1, 2, 4), places)
    keys, _ = cache.read(0, torch.tensor([[3]]), 4)
    assert keys[0, :, 0].tolist() == [[1] * 4] * 2


def test_other_numbers_of_bits_are_refused():
    with pytest.raises(ValueError, match="kept in 8 bits or as it is computed, not in 4 bits"):
        tiny("llama-grouped", torch.float32).new_paged_cache(bits=4)
