"""What a GPU gives: tokens a second by replayed CUDA graphs and without, and the same answers.

    python -m benchmarks.gpu_checks
    python -m benchmarks.gpu_checks --model qwen3-0.6b --streams 1 16 64 --rounds 5

Three ways in turns: operator by operator, recorded, and recorded after torch.compile. All continue
the same prompts greedily; the share of tokens that equal those of the first way stands beside each
speed (roundings may part two that are all but equally likely). The floor is the time in which the
GPU's memory gives the weights once. The last line is JSON. On a CPU there is the first way only.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from typing import NamedTuple

import torch

import limner
from benchmarks.comparison import some_prompts
from limner.inference.engine import Engine
from limner.inference.sampling import Sampling
from limner.language_model import LanguageModel
from limner.nn.packed import weight_bytes

#: Whether steps are recorded, and compiled before.
WAYS = {
    "operator by operator": (False, False),
    "recorded": (True, False),
    "recorded after torch.compile": (True, True),
}
COPIED = 1 << 30


class Turn(NamedTuple):
    """Answers and how long they took."""

    answers: list[list[int]]
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--weights", default="auto")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--prompt", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("limner").setLevel(logging.INFO)
    model = limner.load(
        options.model, device=options.device, dtype=options.dtype, weights=options.weights
    )
    facts = describe(model)
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    results = {
        f"{streams} at once": measure(model, streams, options) for streams in options.streams
    }
    print(json.dumps({"benchmark": "gpu_checks", **facts, "results": results}))


def describe(model: LanguageModel) -> dict[str, str | float]:
    """What computes what."""
    device, dtype = model.network.device, str(model.network.dtype).removeprefix("torch.")
    facts: dict[str, str | float] = {
        "torch": torch.__version__,
        "model": model.name,
        "dtype": dtype,
    }
    if device.type != "cuda":
        return facts | {"device": str(device)}
    floor = bandwidth(device) / weight_bytes(model.network)
    return facts | {
        "device": torch.cuda.get_device_name(device),
        "capability": "{}.{}".format(*torch.cuda.get_device_capability(device)),
        "tokens a second at the floor, 1 stream": round(floor, 1),
    }


def bandwidth(device: torch.device) -> float:
    """Bytes a second that the GPU's memory gives, by the fastest of some copies of a gigabyte."""
    source = torch.zeros(COPIED, dtype=torch.uint8, device=device)
    target, taken = torch.empty_like(source), []
    for _ in range(8):
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return 2 * COPIED / min(taken)  # read and written


def measure(
    model: LanguageModel, streams: int, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Tokens a second of each way, and which share of its tokens are the first way's."""
    on_gpu = model.network.device.type == "cuda"
    ways = {name: way for name, way in WAYS.items() if on_gpu or not way[0]}
    engines = {name: engine_for(model, streams, *way, options) for name, way in ways.items()}
    prompts = some_prompts(model.tokenizer, streams, options.prompt)
    turns: dict[str, list[Turn]] = {name: [] for name in ways}
    for number in range(options.rounds + 1):
        for name, engine in engines.items():
            turn = answer(engine, prompts, options.tokens)
            if number:  # the first records and compiles
                turns[name].append(turn)
    expected = turns["operator by operator"][0].answers
    results = {}
    for name, taken in turns.items():
        speed = streams * options.tokens / statistics.median(turn.seconds for turn in taken)
        equal = share_equal(taken[0].answers, expected)
        print(f"{streams:3} at once  {name:30}{speed:9.1f} tokens/s  {equal:6.1%} equal")
        results[name] = {"tokens a second": speed, "equal tokens": equal}
    return results


def engine_for(
    model: LanguageModel, streams: int, recorded: bool, compiled: bool, options: argparse.Namespace
) -> Engine:
    """An engine that answers in one of the ways."""
    capacity = options.prompt + options.tokens
    engine = Engine(
        model.network, rows=streams, capacity=capacity, prefix_pages=0, compiled=compiled
    )
    if not recorded:
        engine.runner.recorded = engine.runner.captured = None
    return engine


def answer(engine: Engine, prompts: list[list[int]], tokens: int) -> Turn:
    """Answers of so many tokens, prompts included in the time."""
    sampling = Sampling(max_tokens=tokens, temperature=0, ignore_eos=True)
    started = time.perf_counter()
    sequences = engine.generate(prompts, sampling)
    return Turn([s.generated for s in sequences], time.perf_counter() - started)


def share_equal(answers: list[list[int]], expected: list[list[int]]) -> float:
    """How many tokens stand before the first that differs, as a share of all."""
    equal = 0
    for one, other in zip(answers, expected, strict=True):
        pairs = enumerate(zip(one, other, strict=True))
        equal += next((place for place, (a, b) in pairs if a != b), len(one))
    return equal / sum(map(len, expected))


if __name__ == "__main__":
    main()
