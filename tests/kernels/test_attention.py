"""Attention over a paged cache: right, blind to the future, equal to the bit however it is cut."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torch.testing import assert_close

from limner import kernels
from limner.kernels.attention import attend_reference

some_examples = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@dataclass
class Cached:
    """A text of `length` tokens, kept in scattered pages among another text's."""

    length: int
    key_heads: int = 2
    group: int = 3
    width: int = 16
    value_width: int = 16
    page_size: int = 7
    interleaved: bool = False

    def __post_init__(self):
        torch.manual_seed(0)
        each = -(-self.length // self.page_size)
        heads, size = self.key_heads, self.page_size
        # Places nothing was written to are not-a-number: none may leak into a result.
        slots = (size // 16, self.width, 16) if self.interleaved else (size, self.width)
        self.keys = torch.full((2 * each, heads, *slots), float("nan"))
        self.values = torch.full((2 * each, heads, size, self.value_width), float("nan"))
        self.pages = torch.randperm(2 * each).view(2, each).to(torch.int32)
        self.query = torch.randn(self.length, heads * self.group, self.width)
        for text in (0, 1):
            kernels.store(torch.randn(self.length, heads, self.width), self.keys, self.places(text))
            value = torch.randn(self.length, heads, self.value_width)
            kernels.store(value, self.values, self.places(text))

    def places(self, text=1, part=slice(None)):
        positions = torch.arange(self.length)[part]
        return kernels.Places(torch.full_like(positions, text), positions, self.pages)

    def attend(self, part=slice(None), **options):
        scale = self.width**-0.5
        return kernels.attend(
            self.query[part], self.keys, self.values, self.places(part=part), scale, **options
        )

    def expected(self, window=None, softcap=None):
        places = self.places()
        return attend_reference(
            self.query, self.keys, self.values, places.pages, places.texts, places.positions,
            self.width**-0.5, window or 0, softcap or 0.0,
        )  # fmt: skip


@some_examples
@given(
    length=st.integers(1, 150),
    key_heads=st.integers(1, 3),
    group=st.integers(1, 9),
    width=st.integers(1, 70),
    value_width=st.integers(1, 70),
    page_size=st.integers(1, 200),
    window=st.none() | st.integers(1, 100),
    softcap=st.none() | st.just(2.0),
)
def test_it_equals_the_reference(
    variant, length, key_heads, group, width, value_width, page_size, window, softcap
):
    cached = Cached(length, key_heads, group, width, value_width, page_size)
    result = cached.attend(window=window, softcap=softcap)
    assert_close(result, cached.expected(window, softcap), rtol=1e-5, atol=1e-5)


def test_the_reference_equals_pytorchs_own():
    cached = Cached(40, page_size=40)
    key, value = (cache[cached.pages[1].long()][0] for cache in (cached.keys, cached.values))
    query = cached.query.transpose(0, 1)
    expected = functional.scaled_dot_product_attention(
        query[None], key[None], value[None], is_causal=True, enable_gqa=True
    )
    assert_close(cached.expected(), expected[0].transpose(0, 1))


@some_examples
@given(
    length=st.integers(1, 150),
    width=st.integers(1, 70),
    page_size=st.integers(1, 5),
    window=st.none() | st.integers(1, 100),
)
def test_interleaved_keys_change_nothing(variant, length, width, page_size, window):
    plain, interleaved = (
        Cached(length, width=width, page_size=16 * page_size, interleaved=interleaved)
        for interleaved in (False, True)
    )
    result = plain.attend(window=window)
    assert torch.equal(interleaved.attend(window=window), result)
    assert_close(interleaved.expected(window), result, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"window": 50}, {"softcap": 5.0}])
@pytest.mark.parametrize("chunk", [1, 2, 5, 16, 64, 100])
def test_chunks_do_not_change_a_bit(variant, options, chunk):
    cached = Cached(170, width=64, value_width=32)
    whole = cached.attend(**options)
    parts = [cached.attend(slice(i, i + chunk), **options) for i in range(0, 170, chunk)]
    assert torch.equal(torch.cat(parts), whole)


def test_texts_side_by_side_do_not_change_a_bit(variant):
    cached = Cached(90)
    alone = [kernels.attend(cached.query, cached.keys, cached.values, cached.places(text), 0.25)
             for text in (0, 1)]  # fmt: skip
    order = torch.randperm(180)
    places = kernels.Places(
        torch.arange(2).repeat_interleave(90)[order],
        torch.arange(90).repeat(2)[order],
        cached.pages,
    )
    query = cached.query.repeat(2, 1, 1)[order]
    mixed = kernels.attend(query, cached.keys, cached.values, places, 0.25)
    assert torch.equal(mixed, torch.cat(alone)[order])


@pytest.mark.parametrize("threads", [1, 3])
def test_results_do_not_depend_on_threads(variant, threads):
    cached = Cached(150)
    parts = [slice(None), slice(149, 150)]
    before = [cached.attend(part) for part in parts]
    kernels.set_threads(threads, pin=False)
    for part, expected in zip(parts, before, strict=True):
        assert torch.equal(cached.attend(part), expected)


def test_a_contiguous_cache_needs_no_table_and_may_have_any_strides(variant):
    # (texts, slots, heads, width) in memory, as some caches have it.
    keys, values = torch.randn(2, 80, 2, 16), torch.randn(2, 80, 2, 16)
    keys, values = keys.transpose(1, 2), values.transpose(1, 2)
    query, new = torch.randn(4, 6, 16), torch.randn(4, 2, 16)
    places = kernels.Places(torch.tensor([0, 1, 1, 0]), torch.tensor([79, 3, 4, 0]))
    kernels.store(new, keys, places)
    assert torch.equal(keys[1, :, 4], new[2])
    table = torch.arange(2, dtype=torch.int32)[:, None]
    expected = attend_reference(
        query, keys, values, table, places.texts, places.positions, 0.5, 0, 0.0
    )
    assert_close(kernels.attend(query, keys, values, places, 0.5), expected, rtol=1e-5, atol=1e-5)


def test_extreme_scores(variant):
    cached = Cached(70)
    cached.query *= 1e6  # one key takes all
    assert_close(cached.attend(), cached.expected(), rtol=1e-4, atol=1e-4)
    cached.query.zero_()  # all keys alike
    assert_close(cached.attend(), cached.expected(), rtol=1e-5, atol=1e-5)
    cached.query[33] = float("nan")
    result = cached.attend()
    assert result[33].isnan().all()
    assert result[torch.arange(70) != 33].isfinite().all()


def test_positions_outside_the_cache_are_refused(variant):
    cache, places = torch.zeros(1, 2, 8, 4), kernels.Places(torch.tensor([0]), torch.tensor([8]))
    with pytest.raises(ValueError, match=r"positions from 8 to 8 do not fit .* 8 tokens"):
        kernels.store(torch.zeros(1, 2, 4), cache, places)
