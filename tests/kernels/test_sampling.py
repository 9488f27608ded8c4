"""Choosing a token: the largest, or one drawn as the sampler draws it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limner import kernels
from limner.kernels import sampling

some_examples = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@some_examples
@given(rows_=st.integers(1, 6), vocabulary=st.integers(1, 500), levels=st.integers(1, 5))
def test_argmax_is_the_first_of_the_largest(variant, rows_, vocabulary, levels):
    torch.manual_seed(0)
    logits = torch.randint(0, levels, (rows_, vocabulary)).float()
    expected = [row.index(max(row)) for row in logits.tolist()]
    assert kernels.argmax(logits).tolist() == expected
    with kernels.using(None):
        assert kernels.argmax(logits).tolist() == expected


def test_argmax_of_values_that_are_not_finite(variant):
    logits = torch.zeros(3, 100)
    logits[0, 77] = logits[0, 90] = float("nan")
    logits[1] = float("-inf")
    logits[2, 50] = float("inf")
    assert kernels.argmax(logits).tolist() == [77, 0, 50]


@pytest.mark.parametrize("vocabulary", [1, 3, 70, 1000, 20_000])
@pytest.mark.parametrize("spread", [0.0, 3.0, 100.0])
def test_draws_are_the_references(variant, vocabulary, spread):
    torch.manual_seed(0)
    logits = (spread * torch.randn(400, vocabulary + 5))[:, 2:-3]
    numbers, temperatures = torch.rand(400, dtype=torch.float64), 0.2 + torch.rand(400)
    # The kernel takes weights below e^-87 of the largest as 0; only a number of 0 would show it.
    numbers[0], numbers[1] = 2.0**-53, 1 - 2.0**-53
    tokens = kernels.draw(logits, numbers, temperatures)
    assert torch.equal(tokens, sampling.draw_reference(logits, numbers, temperatures))


def test_a_token_of_probability_zero_is_never_drawn(variant):
    logits = torch.full((64, 300), float("-inf"))
    allowed = torch.arange(64) * 3 + 70
    logits[torch.arange(64), allowed] = torch.randn(64)
    for number in (0.0, 0.5, 1 - 2.0**-53):
        numbers = torch.full((64,), number, dtype=torch.float64)
        assert torch.equal(kernels.draw(logits, numbers, torch.ones(64)), allowed)


def test_at_temperature_zero_the_largest_and_a_broken_row_says_so(variant):
    logits = torch.randn(5, 100)
    logits[1, 60], logits[2, 3], logits[3] = float("nan"), float("inf"), float("-inf")
    temperatures = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.0])
    tokens = kernels.draw(logits, torch.rand(5, dtype=torch.float64), temperatures)
    assert tokens.tolist() == [int(logits[0].argmax()), -1, -1, -1, int(logits[4].argmax())]
    with kernels.using(None):
        again = kernels.draw(logits, torch.rand(5, dtype=torch.float64), temperatures)
    assert torch.equal(again, tokens)


def test_a_captured_draw_follows_its_numbers(variant):
    logits, temperatures = torch.randn(3, 200), torch.ones(3)
    numbers = torch.zeros(3, dtype=torch.float64)
    with kernels.capture() as plan:
        tokens = kernels.draw(logits, numbers, temperatures)
    numbers.fill_(0.7)
    plan.replay()
    assert torch.equal(tokens, sampling.draw_reference(logits, numbers, temperatures))
