"""Seconds from the start of a process to its first token, and the memory that it takes.

    python -m benchmarks.startup
    python -m benchmarks.startup --rounds 9

The file cache is warm after the first round. A ratio is the goal divided by what was measured, so
that 1 or more reaches it. The last line is JSON.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.comparison import parse_options, report

#: Seconds, and times the weights.
WARM, MEMORY = 1.5, 1.3


def main() -> None:
    options = parse_options(__doc__)
    first_token(options.model)
    taken, importing = [], []
    for _ in range(options.rounds):
        taken.append(first_token(options.model))
        importing.append(import_torch())
    middle, floor = statistics.median(taken), statistics.median(importing)
    print(f"first token after {middle:.2f} s ({min(taken):.2f} to {max(taken):.2f})")
    print(f"importing PyTorch and nothing else takes {floor:.2f} s")
    ratios = {"warm start": round(WARM / middle, 3)}
    empty, loaded, weights = memory(options.model)
    share = (loaded - empty) / weights
    print(
        f"memory {loaded / 1e6:.0f} MB after an answer, {empty / 1e6:.0f} MB of it before the "
        f"model was loaded: {share:.2f} times the weights, which are {weights / 1e6:.0f} MB"
    )
    ratios["memory"] = round(MEMORY / share, 3)
    report("startup", ratios, {"warm start": 1.0, "memory": 1.0})


def first_token(model: str) -> float:
    """Seconds until `limner generate` has printed something."""
    command = [
        str(Path(sys.executable).with_name("limner")),
        "generate",
        model,
        "Hello",
        "max_tokens=1",
    ]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)
    taken = time.perf_counter() - start
    process.communicate()
    return taken


def import_torch() -> float:
    """Seconds that a process takes which does nothing else: the floor."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - start


def memory(model: str) -> tuple[int, int, int]:
    """Private memory before the model is loaded and after an answer, and the weights, in bytes."""
    program = """
import sys, limner, limner.language_model.loading
from limner.nn.packed import weight_bytes
def private():
    with open("/proc/self/smaps_rollup") as file:
        return sum(int(line.split()[1]) * 1024 for line in file if line.startswith("Private_Dirty"))
empty = private()
model = limner.load(sys.argv[1])
model.generate("Once upon a time", max_tokens=32)
print(empty, private(), weight_bytes(model.network))
"""
    result = subprocess.run(
        [sys.executable, "-c", program, model],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    empty, loaded, weights = map(int, result.stdout.split())
    return empty, loaded, weights


if __name__ == "__main__":
    main()
