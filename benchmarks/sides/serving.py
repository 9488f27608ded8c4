"""The other end of a side: `python -m benchmarks.sides.serving MODULE SETTINGS`.

A module of a side has a `Program`, which opens the model and does the work.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

Answers = list[list[int]]


class Working(Protocol):
    """What a side's `Program` is; it is made of the settings."""

    #: What the parent is told of it besides.
    facts: dict[str, Any]

    def generate(self, prompts: Answers, count: int, first: Callable[[], None]) -> Answers:
        """Continue prompts by `count` tokens; call `first` when the first tokens are there."""
        ...

    def score(self, tokens: list[int]) -> Any:
        """Log-probabilities of the next token after each of some, as rows of a NumPy array."""
        ...


@dataclass(frozen=True)
class Parent:
    """Who asks, on standard input, and reads the answers."""

    answers: TextIO

    def serve(self, program: Working) -> None:
        """Work for the parent until it goes away."""
        self.answer({"ready": True, "peak": peak(), **program.facts})
        for line in sys.stdin:
            work = json.loads(line)
            if "score" in work:
                import numpy

                numpy.save(work["to"], program.score(work["score"]))
                self.answer({"saved": work["to"]})
            else:
                self.answer(timed(program, work))

    def answer(self, answer: dict[str, Any]) -> None:
        """Write one line."""
        print(json.dumps(answer), file=self.answers, flush=True)


def timed(program: Working, work: dict[str, Any]) -> dict[str, Any]:
    """Answers, and when the first tokens and the last were there."""
    first: list[float] = []
    start = time.perf_counter()
    answers = program.generate(
        work["prompts"], work["count"], lambda: first.append(time.perf_counter())
    )
    end = time.perf_counter()
    begun = first[0] - start if first else None
    return {"seconds": end - start, "first": begun, "answers": answers, "peak": peak()}


def peak() -> int:
    """The most memory that the process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    """Run the program named; what it prints itself goes to the error stream."""
    module, settings = sys.argv[1:]
    parent = Parent(os.fdopen(os.dup(1), "w", buffering=1))
    os.dup2(2, 1)
    program = importlib.import_module(f"benchmarks.sides.{module}").Program(json.loads(settings))
    parent.serve(program)


if __name__ == "__main__":
    main()
