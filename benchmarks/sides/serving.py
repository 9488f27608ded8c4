"""The other end of a side: what every program's process does."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

Answers = list[list[int]]
#: Continues prompts by so many tokens; calls its last argument when the first tokens are there.
Generate = Callable[[Answers, int, Callable[[], None]], Answers]
#: Log-probabilities of the next token after each of some tokens, as the rows of a NumPy array.
Score = Callable[[list[int]], Any]


def settings() -> dict[str, Any]:
    """What the parent asks for. What the program prints goes to the error stream from now on."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    given["answers"] = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return given


def serve(given: dict[str, Any], generate: Generate, score: Score, **facts: Any) -> None:
    """Answer the parent until it goes away."""
    _answer(given, {"ready": True, "peak": _peak(), **facts})
    for line in sys.stdin:
        work = json.loads(line)
        if "score" in work:
            import numpy

            numpy.save(work["to"], score(work["score"]))
            _answer(given, {"saved": work["to"]})
        else:
            _answer(given, _timed(generate, work))


def _timed(generate: Generate, work: dict[str, Any]) -> dict[str, Any]:
    first: list[float] = []
    start = time.perf_counter()
    answers = generate(work["prompts"], work["count"], lambda: first.append(time.perf_counter()))
    end = time.perf_counter()
    begun = first[0] - start if first else None
    return {"seconds": end - start, "first": begun, "answers": answers, "peak": _peak()}


def _answer(given: dict[str, Any], answer: dict[str, Any]) -> None:
    print(json.dumps(answer), file=given["answers"], flush=True)


def _peak() -> int:
    """The most memory that the process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
