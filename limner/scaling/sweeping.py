"""A sweep: many small runs that differ in their size and in how much they see."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from limner.config import Settings, read_settings
from limner.files import write_whole
from limner.scaling.runs import RUNS
from limner.tokenizers import load_tokenizer
from limner.training.dial import derive
from limner.training.events import LOG, Event, read_events
from limner.training.interruption import only_run
from limner.training.pretraining import PretrainSettings, assemble, known_fields
from limner.training.settings import TrainingSettings

#: What all runs of a folder have in common.
COMMON = "sweep.json"
#: The last step validates whatever this says, and a sweep needs no other validation.
NEVER = 10**9


class RunSettings(TrainingSettings):
    """How each run of a sweep is trained; what is not given follows from its size and tokens."""

    model: dict[str, Any] = Field(default_factory=dict)
    """fields of config.json that all models have, beside depth and width"""
    length: int | None = Field(default=None, ge=1)
    """tokens of a row; not given: 1024"""
    validation: float = Field(default=0.01, gt=0, lt=1)
    """the last share of the data, which is not trained on"""
    validation_data: str | None = None
    """a folder to validate on, in place of that share"""
    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto is the GPU if there is one"""


class SweepSettings(Settings):
    """Which runs there are."""

    data: str
    """a folder that `limner data prepare` made"""
    folder: Path
    """gets runs.jsonl, and a folder for each run; a sweep that stopped goes on from there"""
    sizes: list[str]
    """depths, or DEPTHxWIDTH, such as 2x96"""
    tokens: list[float]
    """each size sees each of these"""
    compute: list[float]
    """each size sees as many tokens as come to each of these numbers of operations"""
    training: RunSettings = RunSettings()
    """how each is trained"""


@dataclass(frozen=True)
class Planned:
    """A run to be: a Llama of `depth` layers, and of `width` if that is not the dial's."""

    depth: int
    width: int | None
    parameters: int
    tokens: int

    @property
    def name(self) -> str:
        """What its folder is called."""
        wide = "" if self.width is None else f"x{self.width}"
        return f"{self.depth}{wide}-{self.tokens}"

    @property
    def computation(self) -> float:
        """Operations, 6 a parameter and token."""
        return 6.0 * self.parameters * self.tokens


@dataclass(frozen=True)
class Progress:
    """How far a sweep is: `share` is that of its operations; `record` is there as a run ends."""

    name: str
    number: int
    runs: int
    share: float
    loss: float | None
    record: dict[str, Any] | None = None


Listener = Callable[[Progress], None]


def sweep(settings: SweepSettings, tell: Listener) -> bool:
    """Train all runs that `runs.jsonl` has not, the smallest first; False if it was interrupted.

    Raises ValueError or FileNotFoundError with one line that says what to change.
    """
    planned = plan_runs(settings)
    settings.folder.mkdir(parents=True, exist_ok=True)
    with only_run(settings.folder):
        require_same(settings)
        records = read_records(settings.folder)
        finished = {record["name"] for record in records}
        total = sum(run.computation for run in planned)
        done = sum(run.computation for run in planned if run.name in finished)
        for number, run in enumerate(planned, 1):
            if run.name in finished:
                continue
            report = _reporter(tell, run, (number, len(planned)), (done / total, total))
            record = train(settings, run, report)
            if record is None:
                return False
            records.append(record)
            write_records(settings.folder, records)
            done += run.computation
            tell(Progress(run.name, number, len(planned), done / total, record["loss"], record))
    return True


def plan_runs(settings: SweepSettings) -> list[Planned]:
    """Every size with every number of tokens, in the order of their operations."""
    if bool(settings.tokens) == bool(settings.compute):
        raise ValueError("give tokens, or compute, several times: what each size is to see")
    if not settings.sizes:
        raise ValueError("sizes: missing: give depths or DEPTHxWIDTH, such as 2x96")
    if "steps" in settings.training.model_fields_set:
        raise ValueError("training.steps: how many steps a run has follows from its tokens")
    if unsound := [x for x in settings.tokens + settings.compute if not 1 <= x < math.inf]:
        raise ValueError(f"a run cannot see {unsound[0]:g}: give a number of 1 or more")
    known = known_fields(load_tokenizer(Path(settings.data)))
    planned = {}
    for size in settings.sizes:
        depth, width = read_size(size)
        parameters = count(depth, width, known, settings.training)
        seen = [*settings.tokens, *(each / (6 * parameters) for each in settings.compute)]
        for tokens in seen:
            run = Planned(depth, width, parameters, max(round(tokens), 1))
            planned[run.name] = run
    return sorted(planned.values(), key=lambda run: run.computation)


def read_size(text: str) -> tuple[int, int | None]:
    """Depth and width of `2x96`, or of `2`, whose width is the dial's."""
    parts = str(text).split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ValueError(f"the size '{text}' is neither a depth nor DEPTHxWIDTH, such as 2x96")
    return int(parts[0]), int(parts[1]) if len(parts) == 2 else None


def count(depth: int, width: int | None, known: dict[str, Any], training: RunSettings) -> int:
    """Parameters of a size."""
    given = {"tokens": 1} | ({} if training.length is None else {"length": training.length})
    return derive(depth, known | model_fields(width, training), given).parameters


def model_fields(width: int | None, training: RunSettings) -> dict[str, Any]:
    """The fields of config.json that are not the dial's."""
    return training.model | ({} if width is None else {"hidden_size": width})


def train(settings: SweepSettings, run: Planned, report: Callable[[Event], None]) -> Any:
    """Train one run, or go on with it; its record, or None if it was interrupted."""
    folder = settings.folder / "runs" / run.name
    trainer, derived = assemble(run_settings(settings, run, folder), (report,))
    assert derived is not None
    try:
        trainer.fit()
    except ValueError as error:
        raise ValueError(f"{run.name}: {error}") from None
    if not trainer.done:
        return None
    shutil.rmtree(folder / "checkpoints")  # nobody goes on with a finished run
    last = [e for e in read_events(folder / LOG) if e["event"] == "validation"][-1]
    return {
        "name": run.name,
        "depth": run.depth,
        "width": derived.model["hidden_size"],
        "parameters": derived.parameters,
        "tokens": derived.tokens,
        "computation": 6 * derived.parameters * derived.tokens,
        "loss": last["loss"],
        "bits_per_byte": last["bits_per_byte"],
        "rows": derived.rows,
        "steps": derived.steps,
        "rate": derived.rate,
    }


def run_settings(settings: SweepSettings, run: Planned, folder: Path) -> PretrainSettings:
    """The settings with which `limner pretrain` would train it."""
    own = {"validate_every": NEVER, "measure_peak": False, "keep": 1}
    given = own | settings.training.model_dump(mode="json", exclude_unset=True)
    fields = {
        "data": settings.data,
        "folder": str(folder),
        "depth": run.depth,
        "tokens": run.tokens,
        "model": model_fields(run.width, settings.training),
    }
    return read_settings(PretrainSettings, None, (), **given | fields)


def _reporter(
    tell: Listener, run: Planned, place: tuple[int, int], before: tuple[float, float]
) -> Callable[[Event], None]:
    """Turns the steps of a run into the progress of the sweep."""
    share, total = before

    def report(event: Event) -> None:
        if event["event"] == "step":
            own = min(6 * run.parameters * event["tokens"], run.computation) / total
            tell(Progress(run.name, *place, share + own, event["loss"]))

    return report


# The folder


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The finished runs of a folder."""
    return list(read_events(folder / RUNS)) if (folder / RUNS).exists() else []


def write_records(folder: Path, records: list[dict[str, Any]]) -> None:
    """Write them; a kill leaves the file as it was or as it is to be."""
    write_whole(folder / RUNS, [(json.dumps(record) + "\n").encode() for record in records])


def require_same(settings: SweepSettings) -> None:
    """ValueError if the runs that the folder has were trained otherwise than these would be."""
    training = settings.training.model_dump(mode="json")
    common = {"data": settings.data} | {f"training.{name}": v for name, v in training.items()}
    file = settings.folder / COMMON
    if not file.exists():
        write_whole(file, [json.dumps(common, indent=2).encode()])
        return
    before = json.loads(file.read_text(encoding="utf-8"))
    for name in common:
        if common[name] != before.get(name):
            raise ValueError(
                f"{name} is {common[name]}, and was {before.get(name)} for the runs in "
                f"'{settings.folder}': their losses do not compare; name another folder"
            )
