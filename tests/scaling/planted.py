"""Runs whose losses follow a known law."""

import numpy

from limner.scaling.laws import Additive
from limner.scaling.runs import Run

#: The range of Chinchilla's own runs: 44M to 16B parameters, 1e9 to 1e12 tokens.
SIZES = tuple(numpy.geomspace(4.4e7, 1.6e10, 8))
TOKENS = tuple(numpy.geomspace(1e9, 1e12, 8))


def planted(law, noise=0.0, seed=0, sizes=SIZES, tokens=TOKENS) -> list[Run]:
    """A grid of runs; `noise` is the deviation of the loss' logarithm."""
    random = numpy.random.default_rng(seed)
    return [
        Run(n, d, float(law.loss(n, d) * numpy.exp(noise * random.standard_normal())), f"{n}-{d}")
        for n in sizes
        for d in tokens
    ]


def budgeted(law: Additive, budgets=(1e18, 1e19, 1e20, 1e21), sizes=7) -> list[Run]:
    """Runs of equal operations around the best size of each budget."""
    runs = []
    for computation in budgets:
        best, _ = law.optimum(computation)
        for n in best * numpy.geomspace(0.25, 4, sizes):
            d = computation / 6 / n
            runs.append(Run(n, d, float(law.loss(n, d))))
    return runs
