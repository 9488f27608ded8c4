"""`limner scale`: train a grid of small runs, fit scaling laws to them, and plan a large one."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from limner.commands.command_line import CommandSettings
from limner.commands.terminal import remark
from limner.scaling.sweeping import RunSettings

if TYPE_CHECKING:
    from limner.scaling.planning import Hardware
    from limner.scaling.sweeping import Progress


class Command(CommandSettings):
    """Train a grid of small runs, fit scaling laws to them, or plan a large run by a law.

    `limner scale sweep DATA FOLDER` trains every size with every number of tokens; if it is
    stopped, the same command goes on. `limner scale fit FOLDER` fits the laws, to a file of runs
    too. `limner scale plan LAW` says which model and how many tokens the compute there is should be
    spent on.
    """

    positional: ClassVar[tuple[str, ...]] = ("action", "source", "folder")

    action: Literal["sweep", "fit", "plan"]
    """what to do"""
    source: str
    """of sweep: the data, a folder that `limner data prepare` made; of fit: the folder of a sweep,
    or a .jsonl or .csv file with parameters, tokens and loss; of plan: chinchilla (as printed by
    Hoffmann et al. 2022), besiroglu (the same runs fitted again by Besiroglu et al. 2024), or
    what fit wrote"""
    folder: Path | None = None
    """of sweep: where the runs go; of fit: where the law goes; not given: beside the runs"""
    sizes: list[int | str] = Field(default_factory=list)
    """sweep: depths, or DEPTHxWIDTH, such as 2x96; each --sizes adds one"""
    tokens: list[float] = Field(default_factory=list)
    """sweep: what each size sees; plan: what there is to see, to say which size it suits"""
    compute: list[float] = Field(default_factory=list)
    """operations (FLOP); sweep: of a run, and its tokens follow from its size; plan: that there
    are"""
    training: RunSettings = RunSettings()
    """sweep: how each run is trained"""
    held_out: Path | None = None
    """fit: runs that are not fitted, whose losses the law is to say"""
    resamples: int = Field(default=200, ge=0)
    """fit: draws of the runs, to say how sure each constant is (bootstrap, 95%)"""
    seed: int = Field(default=0, ge=0)
    """fit: of the draws"""
    parameters: float | None = None
    """plan: the size there is, to say how much it is to see"""
    hours: float | None = Field(default=None, gt=0)
    """plan: how long the devices are there, in place of compute"""
    peak: float | None = Field(default=None, gt=0)
    """plan: operations a second of a device, as its maker says, such as 989e12"""
    utilisation: float = Field(default=0.4, gt=0, le=1)
    """plan: the share of the peak that training reaches"""
    devices: int = Field(default=1, ge=1)
    """plan: how many there are"""
    price: float | None = Field(default=None, ge=0)
    """plan: of an hour of one device"""
    vocabulary: int = Field(default=32_000, ge=2)
    """plan: tokens that the model knows"""
    length: int = Field(default=2048, ge=1)
    """plan: tokens of a row"""
    as_json: bool = Field(default=False, alias="json")
    """fit and plan: print plain numbers as JSON"""


def run(settings: Command) -> None:
    """Do it."""
    {"sweep": sweep, "fit": fit, "plan": plan}[settings.action](settings)


def sweep(settings: Command) -> None:
    """Train the grid, and print where the runs are."""
    from limner.scaling.runs import RUNS
    from limner.scaling.sweeping import SweepSettings, sweep

    if settings.folder is None:
        raise ValueError("folder: missing: say where the runs are to go")
    wanted = SweepSettings(
        data=settings.source,
        folder=settings.folder,
        sizes=[str(size) for size in settings.sizes],
        tokens=settings.tokens,
        compute=settings.compute,
        training=settings.training,
    )
    with display() as listener:
        finished = sweep(wanted, listener)
    if not finished:
        remark("stopped; the same command goes on from here")
        return
    print(settings.folder / RUNS)


@contextmanager
def display() -> Iterator[Callable[[Progress], None]]:
    """A listener for a sweep: a bar over all of its operations, and a line for each run."""
    if not sys.stderr.isatty():
        yield lambda progress: remark(summary(progress)) if progress.record else None
        return
    from rich import progress as rich
    from rich.console import Console

    columns = (rich.BarColumn(20), rich.TaskProgressColumn(), rich.TimeRemainingColumn())
    with rich.Progress(
        *columns, rich.TextColumn("{task.description}"), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("", total=1.0)

        def show(progress: Progress) -> None:
            if progress.record:
                bar.console.print(summary(progress), highlight=False, markup=False)
            bar.update(task, completed=progress.share, description=brief(progress))

        yield show


def brief(progress: Progress) -> str:
    """The run under way."""
    loss = "not finite" if progress.loss is None else f"{progress.loss:.4f}"
    return f"run {progress.number}/{progress.runs}  {progress.name}  loss {loss}"


def summary(progress: Progress) -> str:
    """A run that ended."""
    record = progress.record
    assert record is not None
    size = f"{record['parameters']:,} parameters, {record['tokens']:,} tokens"
    return f"{brief(progress)}  ({size})"


def fit(settings: Command) -> None:
    """Fit the laws, print them, and write law.json and scaling.png."""
    from limner.scaling.fit import fit_runs, write_fit
    from limner.scaling.pictures import PICTURE, draw_fit
    from limner.scaling.report import report_fit
    from limner.scaling.runs import read_runs

    source = Path(settings.source)
    runs = read_runs(source)
    held_out = [] if settings.held_out is None else read_runs(settings.held_out)
    found = fit_runs(runs, settings.resamples, settings.seed)
    folder = settings.folder or (source if source.is_dir() else source.parent)
    written = write_fit(found, folder)
    draw_fit(found, held_out, folder / PICTURE)
    if settings.as_json:
        print(json.dumps(found.facts(), indent=2))
    else:
        print("\n".join(report_fit(found, held_out)))
        remark(f"written: {written}")


def plan(settings: Command) -> None:
    """Say what the compute there is should be spent on."""
    from limner.scaling.fit import read_law
    from limner.scaling.planning import plan
    from limner.scaling.report import plan_facts, report_plan

    hardware = hardware_of(settings)
    found = plan(
        read_law(settings.source),
        computation=computation_of(settings, hardware),
        tokens=only(settings.tokens, "tokens"),
        parameters=settings.parameters,
        vocabulary=settings.vocabulary,
        length=settings.length,
    )
    if settings.as_json:
        print(json.dumps(plan_facts(found, hardware), indent=2))
    else:
        print("\n".join(report_plan(found, hardware)))


def hardware_of(settings: Command) -> Hardware | None:
    """What computes, if its speed is given."""
    from limner.scaling.planning import Hardware

    if settings.peak is None:
        for name in ("hours", "price"):
            if getattr(settings, name) is not None:
                raise ValueError(f"{name} needs peak: the operations a second of a device")
        return None
    return Hardware(settings.peak, settings.utilisation, settings.devices, settings.price)


def computation_of(settings: Command, hardware: Hardware | None) -> float | None:
    """The operations there are, given as such or as hours."""
    if settings.hours is None:
        return only(settings.compute, "compute")
    if settings.compute:
        raise ValueError("hours and compute say the same twice: give one")
    assert hardware is not None
    return settings.hours * 3600 * hardware.speed


def only(values: list[float], name: str) -> float | None:
    """The one value of a setting that a sweep takes several of."""
    if len(values) > 1:
        raise ValueError(f"{name}: {len(values)} values, and a plan is for one")
    return values[0] if values else None
