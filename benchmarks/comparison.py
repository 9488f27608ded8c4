"""What the benchmarks of whole models share: models, texts, turns, tables.

They ask several programs (`benchmarks.sides`) for the same work. The programs take turns within
each round, so that whatever else the machine does slows all of them; what counts is the ratio of
medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import numpy
import torch

from benchmarks.sides import Side, is_here
from limner.checkpoints.catalogue import resolve
from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.checkpoints.gguf_writing import save_gguf
from limner.inference.measuring import memory_bandwidth
from limner.tokenizers import Tokenizer

#: limner with activations of 8 bits, as the peers have them, and of 16.
EIGHT = ("limner", "limner-16", "llama.cpp", "openvino")
FOUR = ("limner", "limner-16", "llama.cpp")


@dataclass(frozen=True)
class Contest:
    """Programs on one model in one number format; the first is ours."""

    format: str
    model: Path
    sides: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def present(self) -> list[str]:
        """The programs that are installed; says which are not."""
        for program in self.sides:
            if not is_here(program):
                print(f"{program} is not installed: run `make bench-peers`")
        return [program for program in self.sides if is_here(program)]


@contextmanager
def contests(model: str, formats: Sequence[str]) -> Iterator[tuple[list[Contest], Tokenizer]]:
    """The contests in these formats, and the model's tokenizer; files are made for the occasion."""
    path = resolve(model)
    checkpoint = open_checkpoint(path)
    with tempfile.TemporaryDirectory() as made:
        folder, eight = Path(made) / "folder", Path(made) / "model-Q8_0.gguf"
        found = []
        if {"float32", "8 bits"} & set(formats):
            network = checkpoint.network()
            save_folder(network, folder, checkpoint.tokenizer())
            save_gguf(network, eight, checkpoint.tokenizer(), "Q8_0")
            del network
        if "float32" in formats:
            found.append(Contest("float32", folder, ("limner", "transformers")))
        if "8 bits" in formats:
            found.append(Contest("8 bits", eight, EIGHT))
        if "4 bits" in formats and path.suffix == ".gguf":
            found.append(Contest("4 bits", path, FOUR))
        yield found, checkpoint.tokenizer()


@contextmanager
def opened(contest: Contest, threads: int, rows: int, capacity: int) -> Iterator[list[Side]]:
    """The sides of a contest, each with its model loaded."""
    with ExitStack() as stack:
        sides = []
        for program in contest.present:
            options = contest.options | ({"activation_bits": 8} if program == "limner" else {})
            name = f"{program} {contest.format}"
            sides.append(Side(name, contest.model, threads, rows, capacity, **options))
            stack.callback(sides[-1].close)
        yield sides


def parse_options(description: str | None, **others: int | str) -> argparse.Namespace:
    """The options that the benchmarks share, and `others` with their defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m-instruct", help="a name or a path")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--formats", nargs="+", default=["float32", "8 bits", "4 bits"])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 16])
    for name, default in others.items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser.parse_args()


def some_prompts(tokenizer: Tokenizer, count: int, length: int) -> list[list[int]]:
    """Prompts of equal length from Python's documentation, so that no program has to pad."""
    tokens = tokenizer.encode("\n".join(topics.values()))
    if len(tokens) < count * length:
        raise SystemExit(f"the text has {len(tokens)} tokens, not {count} times {length}")
    return [tokens[start * length : (start + 1) * length] for start in range(count)]


def take_turns(
    sides: Sequence[Side], rounds: int, prompts: list[list[int]], count: int
) -> dict[str, list[dict[str, Any]]]:
    """What each side answers in each round."""
    results: dict[str, list[dict[str, Any]]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            results[side.name].append(side.generate(prompts, count))
    return results


def tabulate(results: dict[str, list[dict[str, Any]]], tokens: int, label: str) -> dict[str, float]:
    """Print the speeds at which all did `tokens`; return how many times ours is each other's."""
    medians = {}
    for name, answers in results.items():
        speeds = [tokens / answer["seconds"] for answer in answers]
        medians[name] = statistics.median(speeds)
        print(
            f"{label:12} {name:24} {medians[name]:8.1f} tokens a second "
            f"({min(speeds):.1f} to {max(speeds):.1f} in {len(speeds)} rounds)"
        )
    ours, *others = medians
    return {name: round(medians[ours] / medians[name], 3) for name in others}


def same_answers(results: dict[str, list[dict[str, Any]]]) -> str:
    """How many of the answers agree token for token with ours."""
    ours, *others = [answers[-1]["answers"] for answers in results.values()]
    names = list(results)[1:]
    pairs = zip(names, others, strict=True)
    counts = [f"{name} {sum(a == b for a, b in zip(ours, o, strict=True))}" for name, o in pairs]
    return f"equal answers of {len(ours)}: {', '.join(counts) or 'nobody to compare with'}"


def divergence(side: Side, reference: Side, tokens: list[int]) -> float:
    """Mean KL divergence (nats) of a side's next-token distributions from the reference's."""
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{number}.npy" for number in range(2)]
        for one, file in zip((side, reference), files, strict=True):
            one.ask(score=tokens, to=file)
        theirs, exact = (numpy.load(file).astype(numpy.float64) for file in files)
    return float((numpy.exp(exact) * (exact - theirs)).sum(-1).mean())


def floor(side: Side) -> float:
    """Seconds in which the weights of ours can be read once."""
    return float(side.started["weight_bytes"]) / memory_bandwidth()


def report(benchmark: str, ratios: dict[str, float], goals: dict[str, float]) -> None:
    """The last line."""
    reached = {name: goal for name, goal in goals.items() if name in ratios}
    print(json.dumps({"benchmark": benchmark, "ratios": ratios, "goals": reached}))
