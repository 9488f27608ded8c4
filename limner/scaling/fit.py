"""All that a set of runs says of scaling, and the file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy

from limner.config import nearest
from limner.files import write_whole
from limner.scaling.fitting import (
    bootstrap,
    fit_additive,
    fit_joint,
    fit_power,
    require_falling,
    require_spread,
)
from limner.scaling.isoflop import IsoFlop, fit_isoflop
from limner.scaling.laws import PUBLISHED, Additive, Joint, Power, interval, intervals
from limner.scaling.runs import Numbers, Run, columns

LAW = "law.json"


@dataclass(frozen=True)
class Fit:
    """The laws of some runs; `resamples` are the additive one of as many draws of the runs.

    `powers` are Kaplan's laws over N, D and C, each of the runs that no smaller x beats, where
    there are three.
    """

    runs: list[Run]
    additive: Additive
    resamples: list[Additive]
    joint: Joint | None
    powers: dict[str, Power]
    isoflop: IsoFlop

    def errors(self, runs: list[Run]) -> Numbers:
        """By what share of each loss (R,) the additive law expects more than it is."""
        parameters, tokens, losses = columns(runs)
        return self.additive.loss(parameters, tokens) / losses - 1

    def facts(self) -> dict[str, Any]:
        """The fit in plain numbers, as it is written."""
        errors = numpy.abs(self.errors(self.runs))
        return {
            "runs": len(self.runs),
            "additive": asdict(self.additive),
            "intervals": intervals(self.resamples) if self.resamples else {},
            "errors": {"median": float(numpy.median(errors)), "largest": float(errors.max())},
            "joint": None if self.joint is None else asdict(self.joint),
            "powers": {name: asdict(power) for name, power in self.powers.items()},
            "isoflop": asdict(self.isoflop),
            "resamples": [list(asdict(law).values()) for law in self.resamples],
        }


def fit_runs(runs: list[Run], resamples: int = 200, seed: int = 0) -> Fit:
    """Fit every law; ValueError if the runs do not determine one."""
    require_spread(runs)
    additive = fit_additive(runs)
    require_falling(additive)
    drawn = bootstrap(runs, additive, resamples, seed) if resamples else []
    return Fit(runs, additive, drawn, fit_joint(runs), fit_powers(runs), fit_isoflop(runs))


def fit_powers(runs: list[Run]) -> dict[str, Power]:
    """Kaplan's laws over N, D and C, where there are runs enough."""
    measures: dict[str, Callable[[Run], float]] = {
        "N": lambda run: run.parameters,
        "D": lambda run: run.tokens,
        "C": lambda run: run.computation,
    }
    found = {}
    for name, measure in measures.items():
        best = frontier(runs, measure)
        if len(best) >= 3:
            x, losses = (numpy.array(column) for column in zip(*best, strict=True))
            found[name] = fit_power(x, losses)
    return found


def frontier(runs: list[Run], measure: Callable[[Run], float]) -> list[tuple[float, float]]:
    """Measure and loss of the runs that none of a measure as small or smaller beats."""
    best: list[tuple[float, float]] = []
    for x, loss in sorted((measure(run), run.loss) for run in runs):
        if not best or (loss < best[-1][1] and x > best[-1][0]):
            best.append((x, loss))
    return best


@dataclass(frozen=True)
class Known:
    """A law to plan by, and how sure it is: the law again for draws of its runs, if they are known.

    `expect` gives the loss and its interval of 95%, which is None where nothing was drawn.
    """

    law: Additive
    resamples: list[Additive]

    def expect(self, parameters: float, tokens: float) -> tuple[float, tuple[float, float] | None]:
        """The loss to expect, and the interval of the drawn laws."""
        loss = float(self.law.loss(parameters, tokens))
        if not self.resamples:
            return loss, None
        return loss, interval(numpy.array([law.loss(parameters, tokens) for law in self.resamples]))


def write_fit(fit: Fit, folder: Path) -> Path:
    """Write law.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / LAW, [json.dumps(fit.facts(), indent=1).encode(), b"\n"])
    return folder / LAW


def read_law(name: str) -> Known:
    """A published law by its name, or one that `limner scale fit` wrote, by its file or folder.

    Raises FileNotFoundError if there is neither, ValueError if the file is of another kind.
    """
    if name in PUBLISHED:
        return Known(PUBLISHED[name], [])
    path = Path(name) / LAW if Path(name).is_dir() else Path(name)
    if not path.is_file():
        raise FileNotFoundError(
            f"no law '{name}': neither a file that `limner scale fit` wrote nor a published law"
            f"{nearest(name, PUBLISHED)}"
        )
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        resamples = [Additive(*constants) for constants in facts["resamples"]]
        return Known(Additive(**facts["additive"]), resamples)
    except (ValueError, KeyError, TypeError):
        raise ValueError(
            f"{path}: not what `limner scale fit` writes: fit the runs again"
        ) from None
