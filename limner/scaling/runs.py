"""The runs that a law is fitted to: how large, how much seen, and the loss they came to."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
from numpy.typing import NDArray

from limner.config import decode_utf8

RUNS = "runs.jsonl"
Numbers = NDArray[numpy.float64]
#: What a column may be called: as a sweep writes it, or by the letter of the papers.
COLUMNS = {"parameters": "N", "tokens": "D", "loss": "L"}


@dataclass(frozen=True)
class Run:
    """One finished training run; the loss is in nats a token."""

    parameters: float
    tokens: float
    loss: float
    name: str = ""

    @property
    def computation(self) -> float:
        """Floating-point operations of training, 6 a parameter and token (Kaplan et al. 2020)."""
        return 6 * self.parameters * self.tokens


def columns(runs: list[Run]) -> tuple[Numbers, Numbers, Numbers]:
    """Parameters, tokens and losses of the runs, each (R,)."""
    table = numpy.array([(run.parameters, run.tokens, run.loss) for run in runs], float)
    parameters, tokens, losses = table.T
    return parameters, tokens, losses


def read_runs(path: Path) -> list[Run]:
    """The runs in a folder that `limner scale sweep` wrote, or a JSON-lines or CSV file.

    A row has parameters, tokens and loss, or N, D and L; what else it has is not looked at.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: a row lacks a value, or one is no positive number; the line is named.
    """
    file = path / RUNS if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"no runs at '{file}': `limner scale sweep` makes them")
    text = decode_utf8(file.read_bytes(), str(file))
    rows = csv_rows(text) if file.suffix == ".csv" else json_rows(text, file)
    runs = [read_row(row, f"{file}:{line}") for line, row in rows]
    if not runs:
        raise ValueError(f"{file}: no runs in it")
    return runs


def csv_rows(text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each row of a table with a first line of names, and its line."""
    reader = csv.DictReader(text.splitlines(), skipinitialspace=True)
    for row in reader:
        yield reader.line_num, row


def json_rows(text: str, file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each object of JSON lines, and its line."""
    for line, written in enumerate(text.splitlines(), 1):
        if not written.strip():
            continue
        try:
            row = json.loads(written)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise ValueError(f"{file}:{line}: no JSON object: '{written[:60]}'")
        yield line, row


def read_row(row: Mapping[str, Any], place: str) -> Run:
    """The run of a row."""
    parameters, tokens, loss = (
        read_number(row, name, letter, place) for name, letter in COLUMNS.items()
    )
    return Run(parameters, tokens, loss, str(row.get("name") or place))


def read_number(row: Mapping[str, Any], name: str, letter: str, place: str) -> float:
    """One of its numbers."""
    key = name if name in row else letter
    if key not in row:
        there = ", ".join(str(known) for known in row)
        raise ValueError(f"{place}: no {name} (or {letter}) among {there}")
    try:
        number = float(row[key])
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise ValueError(
            f"{place}: {name} is {row[key]}, and must be a positive number: "
            "take the row out, or train it again"
        )
    return number
