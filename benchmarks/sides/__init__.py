"""The programs that take turns in a benchmark, each in a process of its own.

A process reads a line of JSON and answers with one, so that every program has its own threads, its
own memory, and time to itself while the others wait. Peers are installed by `make bench-peers`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".peers"

#: The module of each program, and the package that it needs.
PROGRAMS = {
    "limner": ("limner_side", "limner"),
    "limner-16": ("limner_side", "limner"),
    "transformers": ("transformers_side", "transformers"),
    "llama.cpp": ("llama_side", "llama_cpp"),
    "openvino": ("openvino_side", "openvino_genai"),
}


class Side:
    """A program with a model, waiting for work.

    Args:
        name: what it is called in tables: the program, and after a space the number format.
        model: the path of its model.
        threads: how many it may use.
        rows: sequences at most, and `capacity` tokens each.
        options: settings of the program.
    """

    def __init__(
        self, name: str, model: Path, threads: int, rows: int, capacity: int, **options: Any
    ) -> None:
        self.name = name
        module, _ = PROGRAMS[name.split()[0]]
        settings = {
            "model": str(model), "threads": threads, "rows": rows, "capacity": capacity, **options,
        }  # fmt: skip
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(PEERS)]),
            "TOKENIZERS_PARALLELISM": "false",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.sides.serving", module, json.dumps(settings)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip
        self.started = self._read()

    def ask(self, **work: Any) -> dict[str, Any]:
        """Do some work; raises RuntimeError if the process ended over it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(work) + "\n")
        self.process.stdin.flush()
        return self._read()

    def generate(self, prompts: list[list[int]], count: int) -> dict[str, Any]:
        """Continue `prompts` greedily by `count` tokens: "seconds", "first", "answers", "peak"."""
        return self.ask(prompts=prompts, count=count)

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        for line in self.process.stdout:  # libraries print there too
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{self.name} ended with {self.process.wait()}")


def is_here(program: str) -> bool:
    """Whether a program is installed."""
    sys.path.append(str(PEERS))
    try:
        return importlib.util.find_spec(PROGRAMS[program][1]) is not None
    finally:
        sys.path.pop()
