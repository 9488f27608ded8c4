"""A picture of a fit: what was measured, what the law says, and how far they are apart."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy

from limner.scaling.fit import Fit
from limner.scaling.laws import OPERATIONS
from limner.scaling.runs import Run, columns

PICTURE = "scaling.png"
logger = logging.getLogger(__name__)


def draw_fit(fit: Fit, held_out: list[Run], picture: Path) -> Path | None:
    """Draw the runs and the law; None without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        logger.info("no %s: pip install 'limner[scale]' brings matplotlib, which draws it", picture)
        return None
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels: Any = figure.subplots(1, 3)
    over_compute, over_size, against = panels
    _draw_compute(over_compute, fit, held_out)
    _draw_sizes(over_size, fit)
    _draw_errors(against, fit, held_out)
    figure.savefig(picture, dpi=80)
    return picture


def _colours(fit: Fit) -> dict[float, Any]:
    """A colour for each size, dark to light."""
    from matplotlib import colormaps

    different = sorted({run.parameters for run in fit.runs})
    shades = numpy.linspace(0.1, 0.85, len(different))
    return dict(zip(different, colormaps["viridis"](shades), strict=True))


def _draw_compute(panel: Any, fit: Fit, held_out: list[Run]) -> None:
    """Loss over operations: each size's runs and curve, and the best that can be bought."""
    runs = [*fit.runs, *held_out]
    computation = [run.computation for run in runs]
    reach = numpy.geomspace(min(computation) / 2, max(computation) * 2, 100)
    for size, colour in _colours(fit).items():
        own = [run for run in fit.runs if run.parameters == size]
        panel.plot([r.computation for r in own], [r.loss for r in own], "o", color=colour)
        most = reach[reach < 10 * max(run.computation for run in own)]
        expected = fit.additive.loss(size, most / OPERATIONS / size)
        panel.plot(most, expected, color=colour, linewidth=0.8)
    best = [float(fit.additive.loss(*fit.additive.optimum(c))) for c in reach]
    panel.plot(reach, best, "k--", linewidth=1, label="best by the law")
    if held_out:
        losses = [run.loss for run in held_out]
        panel.plot(
            computation[len(fit.runs) :], losses, "*", color="C3", markersize=12, label="held out"
        )
    lowest, highest = (extreme(run.loss for run in runs) for extreme in (min, max))
    panel.set_ylim(lowest * 0.93, highest * 1.05)
    panel.set(
        xscale="log",
        xlabel="operations C",
        ylabel="loss",
        title="loss over compute, a colour a size",
    )
    panel.legend()


def _draw_sizes(panel: Any, fit: Fit) -> None:
    """Loss over size: parabolas of the budgets if there are any, else a curve for each horizon."""
    if fit.isoflop.parabolas:
        _draw_parabolas(panel, fit)
        title = "budgets of equal compute"
    else:
        _draw_horizons(panel, fit)
        title = "loss over size, by tokens"
    panel.set(xscale="log", xlabel="parameters N", ylabel="loss", title=title)
    panel.xaxis.set_minor_formatter("")  # its labels would lie on one another
    panel.legend(fontsize="small")


def _draw_parabolas(panel: Any, fit: Fit) -> None:
    sizes = numpy.array(sorted({run.parameters for run in fit.runs}))
    reach = numpy.geomspace(sizes.min(), sizes.max(), 60)
    for number, parabola in enumerate(fit.isoflop.parabolas):
        own = [r for r in fit.runs if abs(r.computation / parabola.computation - 1) < 0.1]
        colour, label = f"C{number}", f"C = {parabola.computation:.1e}"
        panel.plot([r.parameters for r in own], [r.loss for r in own], "o", color=colour)
        panel.plot(reach, parabola.at(reach), color=colour, linewidth=0.8, label=label)
        panel.plot([parabola.parameters], [parabola.loss], "x", color=colour, markersize=9)


def _draw_horizons(panel: Any, fit: Fit) -> None:
    sizes = numpy.array(sorted({run.parameters for run in fit.runs}))
    reach = numpy.geomspace(sizes.min(), sizes.max(), 60)
    for number, tokens in enumerate(sorted({float(f"{run.tokens:.1g}") for run in fit.runs})[:6]):
        own = [run for run in fit.runs if float(f"{run.tokens:.1g}") == tokens]
        colour, seen = f"C{number}", sum(run.tokens for run in own) / len(own)
        panel.plot([r.parameters for r in own], [r.loss for r in own], "o", color=colour)
        expected = fit.additive.loss(reach, seen)
        panel.plot(reach, expected, color=colour, linewidth=0.8, label=f"D = {seen:.2g}")


def _draw_errors(panel: Any, fit: Fit, held_out: list[Run]) -> None:
    """What the law expects over what was measured."""
    every = []
    for runs, style, label in ((fit.runs, "o", "fitted"), (held_out, "*", "held out")):
        if runs:
            parameters, tokens, losses = columns(runs)
            expected = fit.additive.loss(parameters, tokens)
            colour, size = ("C3", 12) if style == "*" else ("C0", 6)
            panel.plot(losses, expected, style, color=colour, markersize=size, label=label)
            every += [*losses, *expected]
    ends = [min(every), max(every)]
    panel.plot(ends, ends, "k", linewidth=0.6)
    panel.set(xlabel="loss measured", ylabel="loss expected", title="the additive law")
    panel.legend()
