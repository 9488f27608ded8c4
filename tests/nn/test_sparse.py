"""Sparse patterns list what they say."""

import pytest
import torch

from limner.nn.sparse import Banded


def seen(pattern: Banded, time: int) -> list[list[int]]:
    """The places that each query sees, later ones left out."""
    places = torch.arange(time)[None]
    listed = pattern(places, places)[0, 0]
    return [[key for key in range(query + 1) if listed[query, key]] for query in range(time)]


def test_a_band_is_the_nearest_places():
    assert seen(Banded(2), 4) == [[0], [0, 1], [1, 2], [2, 3]]


def test_a_stride_adds_places_further_back():
    assert seen(Banded(2, stride=3), 8)[7] == [1, 4, 6, 7]


@pytest.mark.parametrize(("band", "stride"), [(0, None), (3, 0)])
def test_an_empty_pattern_is_refused(band, stride):
    with pytest.raises(ValueError, match="must be 1 or more"):
        Banded(band, stride)
