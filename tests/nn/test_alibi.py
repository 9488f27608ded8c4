"""ALiBi as in its paper, whatever the number of heads."""

import pytest
import torch

from limner.nn.alibi import Alibi, alibi_slopes


def test_slopes_of_a_power_of_two_are_a_geometric_series():
    assert alibi_slopes(8) == [2.0**-power for power in range(1, 9)]


def test_slopes_of_twelve_heads_are_those_of_eight_and_every_other_of_sixteen():
    between = [2**-0.5, 2**-1.5, 2**-2.5, 2**-3.5]
    assert alibi_slopes(12) == pytest.approx(alibi_slopes(8) + between)


def test_one_head_has_one_slope():
    assert alibi_slopes(1) == [2.0**-8]


def test_the_bias_falls_with_distance_back():
    places = torch.arange(4)[None]
    bias = Alibi(heads=2)(places, places)
    assert bias.shape == (1, 2, 4, 4)
    assert bias[0, 0, 3].tolist() == [-3 / 16, -2 / 16, -1 / 16, 0.0]
    assert bias[0, 1, 3].tolist() == [-3 / 256, -2 / 256, -1 / 256, 0.0]
