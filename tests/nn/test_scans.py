"""Scans over all tokens at once equal the recurrence, one token at a time."""

import pytest
import torch

from limner.nn.linear_attention import decayed_attention
from limner.nn.scans import linear_scan, running_maximum


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal numbers in double precision."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("time", [1, 2, 3, 8, 37, 64])
def test_a_linear_scan_is_the_recurrence(time):
    decay, inputs, hidden = (
        numbers(2, time, 3, 4).sigmoid(),
        numbers(2, time, 3, 4),
        numbers(2, 3, 4),
    )
    scanned = linear_scan(decay, inputs, hidden)
    for place in range(time):
        hidden = decay[:, place] * hidden + inputs[:, place]
        torch.testing.assert_close(scanned[:, place], hidden)


@pytest.mark.parametrize("time", [1, 2, 7])
def test_its_gradient_is_that_of_the_recurrence(time):
    decay, inputs, carried = (
        tensor.requires_grad_()
        for tensor in (numbers(2, time, 3), numbers(2, time, 3), numbers(2, 3))
    )
    assert torch.autograd.gradcheck(linear_scan, (decay, inputs, carried))


def test_a_running_maximum_fades():
    decrease, inputs, largest = numbers(2, 20, 3).abs(), numbers(2, 20, 3, seed=1), numbers(2, 3)
    running = running_maximum(decrease, inputs, largest)
    for place in range(20):
        largest = torch.maximum(largest - decrease[:, place], inputs[:, place])
        torch.testing.assert_close(running[:, place], largest)


@pytest.mark.parametrize("time", [1, 5, 64, 150])
def test_decayed_attention_is_the_recurrence(time):
    query, key, value = (
        numbers(2, time, 3, 4),
        numbers(2, time, 3, 4, seed=1),
        numbers(2, time, 3, 5),
    )
    # Fast enough for sums of logarithms to lose their digits, were they taken from the beginning.
    log_decay = -10 * numbers(2, time, 3, seed=2).abs()
    starts = numbers(2, time, seed=3) > 1.5
    carried = numbers(2, 3, 4, 5, seed=4)
    mixed, last = decayed_attention(query, key, value, log_decay, carried, starts)
    for place in range(time):
        carried = carried * log_decay[:, place].exp()[..., None, None]
        carried = carried.masked_fill(starts[:, place, None, None, None], 0)
        carried = carried + key[:, place, :, :, None] * value[:, place, :, None]
        expected = torch.einsum("nhk,nhkp->nhp", query[:, place], carried)
        torch.testing.assert_close(mixed[:, place], expected)
    torch.testing.assert_close(last, carried)


def test_sums_of_fast_decays_keep_their_digits():
    time = 64
    log_decay = torch.full((1, time, 1), -1000.0)
    log_decay[:, -1] = -0.5
    one = torch.ones(1, time, 1, 1)
    mixed, _ = decayed_attention(one, one, one, log_decay, torch.zeros(1, 1, 1, 1), None)
    torch.testing.assert_close(mixed[0, -1, 0, 0], 1 + torch.tensor(-0.5).exp())
