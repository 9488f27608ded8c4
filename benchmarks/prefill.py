"""Prompt tokens a second beside the peers, on the same weights.

    python -m benchmarks.prefill
    python -m benchmarks.prefill --formats "8 bits" --prompt 512 --rounds 7 --streams 1

The formats and peers are those of benchmarks/decode.py. The last line is JSON.
"""

from __future__ import annotations

from argparse import Namespace

from benchmarks.comparison import (
    Contest,
    contests,
    opened,
    parse_options,
    report,
    some_prompts,
    tabulate,
    take_turns,
)
from limner.inference.measuring import product_peak
from limner.tokenizers import Tokenizer

GOALS = {"8 bits, llama.cpp": 5.0, "4 bits, llama.cpp": 5.0, "float32, transformers": 1.0}
BITS = {"float32": 32, "8 bits": 8, "4 bits": 4}


def main() -> None:
    options = parse_options(__doc__, prompt=512)
    ratios: dict[str, float] = {}
    with contests(options.model, options.formats) as (found, tokenizer):
        for contest in found:
            ratios |= measure(contest, tokenizer, options)
            peak = product_peak(BITS[contest.format])
            print(f"{'peak':12} {contest.format:24} {peak / 1e9:8.1f} GOP/s in large products")
    report("prefill", ratios, GOALS)


def measure(contest: Contest, tokenizer: Tokenizer, options: Namespace) -> dict[str, float]:
    """The ratios of one contest."""
    (prompt,) = some_prompts(tokenizer, 1, options.prompt)
    with opened(contest, options.threads, 1, options.prompt + 1) as sides:
        take_turns(sides, 1, [prompt], 1)  # to warm up
        results = take_turns(sides, options.rounds, [prompt], 1)
    speeds = tabulate(results, options.prompt, contest.format)
    return {f"{contest.format}, {name.split()[0]}": ratio for name, ratio in speeds.items()}


if __name__ == "__main__":
    main()
