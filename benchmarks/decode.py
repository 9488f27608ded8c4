"""Tokens a second beside transformers, on the same weights, at one stream and at many.

    python benchmarks/decode.py
    python benchmarks/decode.py --threads 2 --rounds 7 --tokens 128 --streams 1 16

Both continue the same prompts greedily, by the same number of tokens, in 32-bit numbers. They take
turns within each round, so that whatever else the machine does slows both; what counts is the ratio
of the medians. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import torch

import limner
from limner.checkpoints.checkpoint import save_folder
from limner.inference.engine import Engine
from limner.inference.sampling import Sampling
from limner.language_model import LanguageModel

GOALS = {"1": 1.0, "16": 1.0}
"""Ratios to reach: already ahead of transformers."""

Answers = list[list[int]]
Generate = Callable[[Answers, int], Answers]


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    model = limner.load(options.model, dtype="float32", device="cpu")
    sides = {"limner": limner_side(model, options), "transformers": transformers_side(model)}
    ratios = {}
    for streams in options.streams:
        prompts = some_prompts(model, streams, options.prompt)
        speeds = measure(sides, prompts, options)
        ratios[str(streams)] = report(streams, speeds)
    goals = {name: goal for name, goal in GOALS.items() if name in ratios}
    print(json.dumps({"benchmark": "decode", "ratios": ratios, "goals": goals}))


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a name or a path")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=64, help="tokens to generate a stream")
    parser.add_argument("--prompt", type=int, default=32, help="tokens of each prompt")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    return parser.parse_args()


def some_prompts(model: LanguageModel, count: int, length: int) -> Answers:
    """Prompts of equal length from Python's documentation, so that neither side has to pad."""
    texts = (model.encode(text)[:length] for text in topics.values())
    prompts = [tokens for tokens in texts if len(tokens) == length]
    if len(prompts) < count:
        raise SystemExit(f"only {len(prompts)} texts have {length} tokens, not {count}")
    return prompts[:count]


def limner_side(model: LanguageModel, options: argparse.Namespace) -> Generate:
    """One engine for all stream counts."""
    engine = Engine(
        model.network, rows=max(options.streams), capacity=options.prompt + options.tokens
    )

    def generate(prompts: Answers, count: int) -> Answers:
        sampling = Sampling(temperature=0, max_tokens=count, ignore_eos=True)
        return [answer.generated for answer in engine.generate(prompts, sampling)]

    return generate


def transformers_side(model: LanguageModel) -> Generate:
    """The same weights, by way of a folder that limner writes."""
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        save_folder(model.network, Path(folder))
        theirs: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def generate(prompts: Answers, count: int) -> Answers:
        tokens = torch.tensor(prompts)
        with torch.inference_mode():
            result = theirs.generate(
                tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=count,
                min_new_tokens=count,
                do_sample=False,
                pad_token_id=0,
            )
        answers: Answers = result[:, tokens.shape[1] :].tolist()
        return answers

    return generate


def measure(
    sides: dict[str, Generate], prompts: Answers, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Tokens a second of each side in each round, after one round to warm up."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    answers: dict[str, Answers] = {}
    for turn in range(options.rounds + 1):
        for name, generate in sides.items():
            start = time.perf_counter()
            answers[name] = generate(prompts, options.tokens)
            if turn:
                taken = time.perf_counter() - start
                speeds[name].append(len(prompts) * options.tokens / taken)
    same = sum(a == b for a, b in zip(*answers.values(), strict=True))
    print(f"{same} of {len(prompts)} answers are the same token for token")
    return speeds


def report(streams: int, speeds: dict[str, list[float]]) -> float:
    """Print a line for each side; return the ratio of the medians."""
    for name, values in speeds.items():
        print(
            f"{streams:3} streams  {name:12}  {statistics.median(values):8.1f} tokens a second"
            f"  ({min(values):.1f} to {max(values):.1f} in {len(values)} rounds)"
        )
    ours, theirs = (statistics.median(values) for values in speeds.values())
    return round(ours / theirs, 3)


if __name__ == "__main__":
    main()
