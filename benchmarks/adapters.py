"""What adapters cost: answers side by side with none, one and several, in turns.

    python -m benchmarks.adapters
    python -m benchmarks.adapters --rows 16 --rank 16 --rounds 5

"in one pass" computes a step of several adapters operator by operator, instead of replaying a plan
for each. The last line is JSON: tokens a second, and as shares of those without adapters.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from tempfile import TemporaryDirectory

import limner
from limner.inference.sampling import Sampling
from limner.language_model import LanguageModel
from limner.peft import LoraConfig, new_adapter, write_adapter

#: How many adapters the answers are shared among, in turn.
COUNTS = (0, 1, 2, 4, 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model = limner.load(options.model)
    with TemporaryDirectory() as folder:
        config = LoraConfig("all-linear", rank=options.rank)
        write_adapter(new_adapter(model.network, config), folder)
        for number in range(max(COUNTS)):
            model.attach(str(number), folder)
    sides = {f"{count} adapters": (count, True) for count in COUNTS}
    sides["2 adapters in one pass"] = 2, False
    taken: dict[str, list[float]] = {side: [] for side in sides}
    for turn in range(options.rounds + 1):
        for side, (count, replayed) in sides.items():
            seconds = answer(model, count, replayed, options)
            if turn:  # the first captures the plans
                taken[side].append(seconds)
    numbers = {side: statistics.median(seconds) for side, seconds in taken.items()}
    speeds = {s: options.rows * options.tokens / seconds for s, seconds in numbers.items()}
    shares = {s: speed / speeds["0 adapters"] for s, speed in speeds.items()}
    for side, speed in speeds.items():
        print(f"{side:24}{speed:8.0f} tokens/s {shares[side]:6.2f}")
    print(json.dumps({"benchmark": "adapters", "tokens a second": speeds, "shares": shares}))


def answer(
    model: LanguageModel, adapters: int, replayed: bool, options: argparse.Namespace
) -> float:
    """Seconds for answers that are shared among so many adapters."""
    engine = model.engine
    captured = engine.runner.captured
    assert captured is not None
    sampling = Sampling(max_tokens=options.tokens, temperature=0, ignore_eos=True)
    started = time.perf_counter()
    captured.possible = replayed
    for row in range(options.rows):
        adapter = model.adapter(str(row % adapters)) if adapters else None
        engine.submit([row + 3, 20, 30], sampling, adapter=adapter)
    while engine.busy:
        engine.step()
    captured.possible = True
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
