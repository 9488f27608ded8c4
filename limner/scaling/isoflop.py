"""The best size for a budget of operations, read off the runs (Hoffmann et al. 2022, approach 2).

Among runs of one budget the loss is a parabola of log N; the lowest points of several budgets say
how the best size grows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy

from limner.scaling.laws import OPERATIONS
from limner.scaling.runs import Numbers, Run, columns

#: Runs are of one budget if their operations differ by less than this share.
SAME_BUDGET = 0.1


@dataclass(frozen=True)
class Parabola:
    """The loss of one budget's runs: `coefficients` of log N squared, of log N, and of 1."""

    computation: float
    coefficients: tuple[float, float, float]
    parameters: float
    loss: float

    @property
    def tokens(self) -> float:
        """What the best size sees."""
        return self.computation / OPERATIONS / self.parameters

    def at(self, parameters: Numbers) -> Numbers:
        """The parabola itself."""
        square, slope, level = self.coefficients
        logs = numpy.log(parameters)
        return (square * logs + slope) * logs + level


@dataclass(frozen=True)
class IsoFlop:
    """The parabolas, and N = factor C^exponent through their lowest points, if there are two.

    `refused` says of the other budgets why they have none.
    """

    parabolas: tuple[Parabola, ...]
    refused: tuple[str, ...]
    factor: float | None
    exponent: float | None


def fit_isoflop(runs: list[Run]) -> IsoFlop:
    """What the runs' budgets say."""
    found: list[Parabola] = []
    refused: list[str] = []
    for group in budgets(runs):
        fitted = fit_parabola(group)
        if isinstance(fitted, Parabola):
            found.append(fitted)
        else:
            refused.append(fitted)
    if len(found) < 2:
        return IsoFlop(tuple(found), tuple(refused), None, None)
    computation = numpy.log([parabola.computation for parabola in found])
    best = numpy.log([parabola.parameters for parabola in found])
    exponent, level = numpy.polyfit(computation, best, 1)
    return IsoFlop(tuple(found), tuple(refused), float(numpy.exp(level)), float(exponent))


def budgets(runs: list[Run]) -> list[list[Run]]:
    """The runs by budget, where one has at least three sizes."""
    groups: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: run.computation):
        if groups and run.computation < (1 + SAME_BUDGET) * groups[-1][0].computation:
            groups[-1].append(run)
        else:
            groups.append([run])
    return [group for group in groups if len({run.parameters for run in group}) >= 3]


def fit_parabola(group: list[Run]) -> Parabola | str:
    """The parabola of a budget, or why its lowest point says nothing."""
    parameters, _, losses = columns(group)
    computation = float(numpy.exp(numpy.mean([numpy.log(run.computation) for run in group])))
    square, slope, level = (float(x) for x in numpy.polyfit(numpy.log(parameters), losses, 2))
    if square <= 0:
        return f"{computation:.2e}: the losses have no lowest point"
    lowest = -slope / (2 * square)
    best = float(numpy.exp(lowest))
    if not parameters.min() <= best <= parameters.max():
        side = "smaller" if best < parameters.min() else "larger"
        return f"{computation:.2e}: the best size is {side} than all that were trained"
    loss = float(numpy.polyval((square, slope, level), lowest))
    return Parabola(computation, (square, slope, level), best, loss)
