"""Random numbers are a function of where they are used."""

import numpy as np
import pytest
from scipy import stats

from limner.inference.randomness import philox, uniform


def words(*values):
    return np.array([values], dtype=np.uint64)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_known_answers(counter, key, expected):
    assert philox(words(*counter), words(*key)).tolist() == [list(expected)]


def test_numbers_are_uniform_over_positions_seeds_and_samples():
    run = range(20_000)
    for numbers in (
        uniform([7] * len(run), [0] * len(run), run),
        uniform(run, [0] * len(run), [3] * len(run)),
        uniform([7] * len(run), run, [3] * len(run)),
    ):
        assert stats.kstest(numbers, "uniform").pvalue > 0.001
        assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.03
        assert numbers.min() >= 0
        assert numbers.max() < 1


def test_a_number_does_not_depend_on_its_batch_mates():
    together = uniform([1, 2, 3], [0, 5, 0], [10, 20, 30])
    alone = [uniform([s], [n], [p])[0] for s, n, p in ((1, 0, 10), (2, 5, 20), (3, 0, 30))]
    assert together.tolist() == alone


def test_every_part_of_the_key_counts():
    whole = uniform([1, 2, 1, 1, 1 + 2**40, -1], [0, 0, 1, 0, 0, 0], [5, 5, 5, 6, 5, 5])
    assert len(set(whole)) == 6
    assert uniform([1], [0], [5])[0] != uniform([1], [0], [5], purpose=1)[0]
    assert uniform([-1], [0], [5])[0] == uniform([2**64 - 1], [0], [5])[0]
