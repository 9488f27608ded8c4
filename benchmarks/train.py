"""Training beside Hugging Face's Trainer, a bare loop around transformers, and a plain loop.

    python benchmarks/train.py
    python benchmarks/train.py --shape small --steps 3 --rounds 1

All train the same GPT-2 on the same tokens with fused AdamW: limner in the numbers that it chooses
here, which may be bfloat16 in matrix products, the others in float32, which is what they choose;
then limner and the transformers model with the other's numbers too, and limner with
`recompute=true`, which takes time and spares memory. They take turns within each
round, so that whatever else the machine does slows all; what counts are ratios of medians. The
share of the peak compares what is computed (6 operations a weight and token, and attention) with
large matrix products of the same numbers, timed beside each side. Memory is the most that a process
of its own takes which does nothing else, beyond what it takes to import the libraries. The last
line is JSON.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn import functional

from limner.data.corpus import corpus_of_documents
from limner.data.rows import PackedRows, RowStream
from limner.models.decoder import Decoder
from limner.models.families import find_family
from limner.objectives.next_token import NextToken
from limner.training.precision import Precision, in_half
from limner.training.recompute import recomputing
from limner.training.settings import TrainingSettings
from limner.training.speed import matrix_product_peak, memory_used, training_operations
from limner.training.trainer import Trainer

CPU = torch.device("cpu")
SHAPES: dict[str, dict[str, int]] = {
    "small": {"n_embd": 256, "n_layer": 4, "n_head": 4, "n_positions": 256, "vocab_size": 8192},
    "13.9M": {"n_embd": 384, "n_layer": 6, "n_head": 6, "n_positions": 256, "vocab_size": 8192},
    "124M": {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50304},
}
GOALS = {
    "13.9M": {
        "limner, speed over transformers": 1.6,
        "limner, memory saved over transformers": 2.0,
        "limner, share of the peak": 0.9,
    },
    "124M": {
        "limner, speed over transformers": 1.3,
        "limner, memory saved over transformers": 2.0,
        "limner, share of the peak": 0.9,
    },
}
"""Ratios to reach: against a transformers model in a bare loop."""
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
RATE, DECAY, BETAS = 3e-4, 0.1, (0.9, 0.95)

#: Takes so many steps.
Run = Callable[[int], None]


def main() -> None:
    options = parse_options()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(memory_taken(options))
        return
    sides = {name: SIDES[name](options) for name in options.sides}
    speeds, shares = measure(sides, options)
    memory = {name: memory_of(name, options) for name in options.sides}
    report(speeds, shares, memory, options)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="13.9M")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=5, help="steps in a turn")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--memory-of", choices=SIDES, help=argparse.SUPPRESS)
    return parser.parse_args()


def some_rows(options: argparse.Namespace) -> Tensor:
    """The same rows for all sides, (rows, length + 1)."""
    size = (options.rows, options.length + 1)
    vocabulary = SHAPES[options.shape]["vocab_size"]
    return torch.from_numpy(numpy.random.default_rng(0).integers(0, vocabulary, size))


def network(options: argparse.Namespace) -> Decoder:
    model = find_family("gpt2").read_config(SHAPES[options.shape]).build()
    assert isinstance(model, Decoder)
    model.initialise(generator=torch.Generator().manual_seed(0))
    return model


# The sides


def limner_side(
    options: argparse.Namespace, precision: Precision = "auto", recompute: bool = False
) -> Run:
    """Our trainer, log and all."""
    rows = some_rows(options)
    corpus = corpus_of_documents([rows.flatten().tolist()])
    stream = RowStream(PackedRows(corpus, options.length))
    settings = TrainingSettings.model_validate(
        {"rows": options.rows, "steps": 10**9, "optimizer": {"rate": RATE, "decay": DECAY}}
        | {"schedule": {"kind": "constant"}, "measure_peak": False, "precision": precision}
    )
    folder = Path(tempfile.mkdtemp())
    trainer = Trainer(network(options), NextToken(), stream, folder, settings)

    def run(steps: int) -> None:
        with recomputing(trainer.network) if recompute else nullcontext():
            for _ in range(steps):
                trainer.step()

    return run


def transformers_model(options: argparse.Namespace) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(**SHAPES[options.shape], **NO_DROPOUT))


def transformers_side(options: argparse.Namespace, half: bool = False) -> Run:
    """A transformers model in a bare loop."""
    model = transformers_model(options).train()

    def loss(tokens: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            result: Tensor = model(input_ids=tokens, labels=tokens).loss
        return result

    return bare_loop(model, loss, some_rows(options)[:, :-1])


def trainer_side(options: argparse.Namespace) -> Run:
    """Hugging Face's Trainer."""
    from transformers import Trainer as TheirTrainer
    from transformers import TrainingArguments

    model = transformers_model(options)
    data = [{"input_ids": row, "labels": row} for row in some_rows(options)[:, :-1]]

    def run(steps: int) -> None:
        arguments = TrainingArguments(
            output_dir=tempfile.mkdtemp(),
            max_steps=steps,
            per_device_train_batch_size=options.rows,
            learning_rate=RATE,
            weight_decay=DECAY,
            adam_beta2=BETAS[1],
            optim="adamw_torch_fused",
            lr_scheduler_type="constant",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        TheirTrainer(model=model, args=arguments, train_dataset=data).train()

    return run


def plain_side(options: argparse.Namespace) -> Run:
    """A plain loop around a small GPT."""
    torch.manual_seed(0)
    model = PlainGPT(**SHAPES[options.shape])
    tokens = some_rows(options)

    def loss(rows: Tensor) -> Tensor:
        logits = model(rows[:, :-1])
        return functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())

    return bare_loop(model, loss, tokens)


def bare_loop(model: nn.Module, loss: Callable[[Tensor], Tensor], tokens: Tensor) -> Run:
    """Forward, backward, clip, step."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY, fused=True
    )

    def run(steps: int) -> None:
        for _ in range(steps):
            loss(tokens).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    return run


class PlainBlock(nn.Module):
    """Attention and a feed-forward layer, normalised before."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.inputs, self.output = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (B, T, D) to (B, T, D)."""
        mixed = self.inputs(self.norms[0](hidden)).unflatten(-1, (3, self.heads, -1))
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.output(seen.transpose(1, 2).flatten(-2))
        inner = functional.gelu(self.up(self.norms[1](hidden)), approximate="tanh")
        result: Tensor = hidden + self.down(inner)
        return result


class PlainGPT(nn.Module):
    """GPT-2 with as little around it as can be."""

    def __init__(
        self, n_embd: int, n_layer: int, n_head: int, n_positions: int, vocab_size: int
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, n_embd)
        self.places = nn.Embedding(n_positions, n_embd)
        self.blocks = nn.Sequential(*(PlainBlock(n_embd, n_head) for _ in range(n_layer)))
        self.norm = nn.LayerNorm(n_embd)
        for table in (self.tokens, self.places):
            nn.init.normal_(table.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (B, T, V) of tokens (B, T)."""
        hidden = self.tokens(tokens) + self.places.weight[: tokens.shape[1]]
        return functional.linear(self.norm(self.blocks(hidden)), self.tokens.weight)


#: In the numbers that limner chooses.
CHOOSING = ("limner", "limner recompute")
SIDES: dict[str, Callable[[argparse.Namespace], Run]] = {
    "limner": limner_side,
    "transformers": transformers_side,
    "Trainer": trainer_side,
    "plain": plain_side,
    "limner float32": partial(limner_side, precision="float32"),
    "limner recompute": partial(limner_side, recompute=True),
    "transformers bfloat16": partial(transformers_side, half=True),
}


# Measuring


def measure(
    sides: dict[str, Run], options: argparse.Namespace
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Tokens a second of each side in each round, and their shares of the peak measured then."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    shares: dict[str, list[float]] = {name: [] for name in sides}
    operations = training_operations(network(options), options.length)
    tokens = options.steps * options.rows * options.length
    half = in_half("auto", network(options))
    for turn in range(options.rounds + 1):
        for name, run in sides.items():
            halved = name.endswith("bfloat16") or (name in CHOOSING and half)
            numbers = torch.bfloat16 if halved else torch.float32
            peak = matrix_product_peak(CPU, numbers)
            started = time.perf_counter()
            run(options.steps)
            speed = tokens / (time.perf_counter() - started)
            peak = max(peak, matrix_product_peak(CPU, numbers))
            if turn:  # the first round warms up
                speeds[name].append(speed)
                shares[name].append(speed * operations / peak)
    return speeds, shares


def memory_taken(options: argparse.Namespace) -> int:
    """Bytes that two steps of a side take in this process beyond what its libraries do."""
    import transformers

    _ = transformers.GPT2LMHeadModel, transformers.Trainer  # imported on first use
    before = memory_used(CPU)
    SIDES[options.memory_of](options)(2)
    return memory_used(CPU) - before


def memory_of(name: str, options: argparse.Namespace) -> int:
    """The same of a process of its own."""
    words = [f"--{key}={getattr(options, key)}" for key in ("shape", "threads", "rows", "length")]
    command = [sys.executable, __file__, *words, f"--memory-of={name}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.splitlines()[-1])


def report(
    speeds: dict[str, list[float]],
    shares: dict[str, list[float]],
    memory: dict[str, int],
    options: argparse.Namespace,
) -> None:
    """A line for each side, and the ratios as JSON."""
    for name, values in speeds.items():
        print(
            f"{name:22}  {statistics.median(values):8,.0f} tokens a second ({min(values):,.0f} to "
            f"{max(values):,.0f} in {len(values)} rounds)  {statistics.median(shares[name]):.0%} "
            f"of the peak  {memory[name] / 1e6:,.0f} MB"
        )
    speed = {name: statistics.median(values) for name, values in speeds.items()}
    ratios = {}
    for ours, theirs in itertools.product(speeds, repeat=2):
        if "limner" in ours and "limner" not in theirs:
            ratios[f"{ours}, speed over {theirs}"] = speed[ours] / speed[theirs]
            ratios[f"{ours}, memory saved over {theirs}"] = memory[theirs] / memory[ours]
    for ours in (name for name in speeds if "limner" in name):
        ratios[f"{ours}, share of the peak"] = statistics.median(shares[ours])
    kept = {name: round(ratio, 3) for name, ratio in ratios.items()}
    goals = GOALS.get(options.shape, {})
    print(json.dumps({"benchmark": f"train {options.shape}", "ratios": kept, "goals": goals}))


if __name__ == "__main__":
    main()
