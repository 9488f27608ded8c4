"""Attention over a cache in 8 bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from limner import kernels
from limner.kernels.attention_int8 import attend_int8_reference, round_heads

some_examples = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Cached:
    """Two texts of `length` tokens in scattered pages; what nothing was written to is NaN."""

    def __init__(self, length, key_heads=2, group=3, width=16, value_width=16, page_size=16):
        torch.manual_seed(0)
        each = -(-length // page_size)
        self.length, self.width = length, width
        size = (2 * each, key_heads, page_size // 16, width, 16)
        self.keys = torch.full(size, 77, dtype=torch.int8)
        self.values = torch.full(
            (2 * each, key_heads, page_size, value_width), 77, dtype=torch.int8
        )
        self.scales = [torch.full((2 * each, key_heads, page_size), float("nan")) for _ in "kv"]
        self.pages = torch.randperm(2 * each).view(2, each).to(torch.int32)
        self.query = torch.randn(length, key_heads * group, width)
        self.key, self.value = (torch.randn(length, key_heads, w) for w in (width, value_width))
        for text in (0, 1):
            kernels.store_int8(self.key, self.keys, self.scales[0], self.places(text))
            kernels.store_int8(self.value, self.values, self.scales[1], self.places(text))

    def places(self, text=1, part=slice(None)):
        positions = torch.arange(self.length)[part]
        return kernels.Places(torch.full_like(positions, text), positions, self.pages)

    def arguments(self):
        return self.keys, self.scales[0], self.values, self.scales[1]

    def attend(self, part=slice(None), **options):
        places = self.places(part=part)
        keys, key_scales, values, value_scales = self.arguments()
        return kernels.attend_int8(
            self.query[part], keys, key_scales, values, value_scales, places, 0.25, **options
        )


@some_examples
@given(
    length=st.integers(1, 150),
    key_heads=st.integers(1, 3),
    group=st.integers(1, 5),
    width=st.integers(1, 70),
    value_width=st.integers(1, 70),
    pages=st.integers(1, 5),
    window=st.none() | st.integers(1, 100),
    softcap=st.none() | st.just(2.0),
)
def test_it_equals_the_reference(
    variant, length, key_heads, group, width, value_width, pages, window, softcap
):
    cached = Cached(length, key_heads, group, width, value_width, 16 * pages)
    places = cached.places()
    keys, key_scales, values, value_scales = cached.arguments()
    expected = attend_int8_reference(
        cached.query, keys, key_scales, values, value_scales, places.pages, places.texts,
        places.positions, 0.25, window or 0, softcap or 0.0,
    )  # fmt: skip
    result = cached.attend(window=window, softcap=softcap)
    assert_close(result, expected, rtol=1e-5, atol=1e-5)


def test_what_is_stored_is_the_references(variant):
    cached = Cached(40, width=33, value_width=20, page_size=48)
    codes, scale = round_heads(cached.key)
    page = cached.pages[1, 0].item()
    kept = cached.keys[page].transpose(-1, -2).flatten(1, 2)[:, :40]  # (K, 40, W)
    assert torch.equal(kept, codes.transpose(0, 1))
    assert torch.equal(cached.scales[0][page][:, :40], scale.t())
    assert torch.equal(cached.values[page][:, :40], round_heads(cached.value)[0].transpose(0, 1))


def test_it_is_near_attention_in_full(variant):
    cached = Cached(60, width=64, value_width=64, page_size=64)
    keys, values = (torch.zeros(2, 2, 64, 64) for _ in "kv")
    for cache, new in ((keys, cached.key), (values, cached.value)):
        kernels.store(new, cache, cached.places())
    full = kernels.attend(cached.query, keys, values, cached.places(), 0.125)
    keys, key_scales, values, value_scales = cached.arguments()
    rounded = kernels.attend_int8(
        cached.query, keys, key_scales, values, value_scales, cached.places(), 0.125
    )
    assert (rounded - full).norm() < 0.01 * full.norm()


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_chunks_do_not_change_a_bit(variant, chunk):
    cached = Cached(130, width=64, value_width=32, page_size=32)
    parts = [cached.attend(slice(i, i + chunk)) for i in range(0, 130, chunk)]
    assert torch.equal(torch.cat(parts), cached.attend())


def test_a_head_that_is_not_finite_shows_in_those_that_see_it(variant):
    cached = Cached(20)
    bad = torch.randn(1, 2, 16)
    bad[0, 0, 3] = float("inf")
    kernels.store_int8(bad, cached.values, cached.scales[1], cached.places(part=slice(10, 11)))
    result = cached.attend()
    assert result[10:, :3].isnan().all()
    assert result[:10].isfinite().all()
    assert result[:, 3:].isfinite().all()


@pytest.mark.parametrize("value", [0.0, 1e-40, -3.0])
def test_equal_and_tiny_values(variant, value):
    cached = Cached(5)
    kernels.store_int8(
        torch.full((5, 2, 16), value), cached.values, cached.scales[1], cached.places()
    )
    assert_close(cached.attend(), torch.full((5, 6, 16), value), rtol=1e-5, atol=1e-30)
