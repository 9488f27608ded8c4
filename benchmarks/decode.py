"""Tokens a second beside the peers, on the same weights, at one stream and at many.

    python -m benchmarks.decode
    python -m benchmarks.decode --formats "4 bits" --threads 2 --rounds 7 --streams 1 16

In 32 bits beside transformers; in 8 bits (a Q8_0 file that limner writes) beside llama.cpp and
OpenVINO GenAI; in 4 on the published GGUF file beside llama.cpp. All continue the same prompts
greedily by the same number of tokens. The last line is JSON.
"""

from __future__ import annotations

from argparse import Namespace

from benchmarks.comparison import (
    Contest,
    contests,
    divergence,
    floor,
    opened,
    parse_options,
    report,
    same_answers,
    some_prompts,
    tabulate,
    take_turns,
)
from limner.tokenizers import Tokenizer

GOALS = {
    "float32, 1 stream, transformers": 1.0,
    "float32, 16 streams, transformers": 1.0,
    "8 bits, 1 stream, llama.cpp": 2.0,
    "8 bits, 16 streams, llama.cpp": 4.5,
    "8 bits, 16 streams, openvino": 2.0,
    "4 bits, 1 stream, llama.cpp": 3.0,
    "4 bits, 16 streams, llama.cpp": 4.5,
}


def main() -> None:
    options = parse_options(__doc__, tokens=64, prompt=32)
    ratios: dict[str, float] = {}
    with contests(options.model, options.formats) as (found, tokenizer):
        for contest in found:
            ratios |= measure(contest, tokenizer, options)
    report("decode", ratios, GOALS)


def measure(contest: Contest, tokenizer: Tokenizer, options: Namespace) -> dict[str, float]:
    """The ratios of one contest."""
    ratios = {}
    most = max(options.streams)
    with opened(contest, options.threads, most, options.prompt + options.tokens) as sides:
        for streams in options.streams:
            label = f"{streams} stream{'s' if streams > 1 else ''}"
            prompts = some_prompts(tokenizer, streams, options.prompt)
            take_turns(sides, 1, prompts, options.tokens)  # to warm up
            results = take_turns(sides, options.rounds, prompts, options.tokens)
            speeds = tabulate(results, streams * options.tokens, label)
            print(f"{label:12} {same_answers(results)}")
            for name, ratio in speeds.items():
                ratios[f"{contest.format}, {label}, {name.split()[0]}"] = ratio
        print(
            f"{'floor':12} {sides[0].name:24} {1 / floor(sides[0]):8.1f} tokens a second "
            "if weights were only read, at one stream"
        )
    show_divergence(contest, tokenizer, options)
    return ratios


def show_divergence(contest: Contest, tokenizer: Tokenizer, options: Namespace) -> None:
    """How far each program's distributions are from those in float32 of the same weights."""
    tokens = some_prompts(tokenizer, 1, 512)[0]
    exact = Contest(contest.format, contest.model, ("limner",), {"weights": "float"})
    with (
        opened(exact, options.threads, 1, 512) as (reference,),
        opened(contest, options.threads, 1, 512) as sides,
    ):
        for side in sides:
            if side.started.get("scores", True):
                kl = divergence(side, reference, tokens)
                print(f"{'KL':12} {side.name:24} {kl:.5f} nats from float32")


if __name__ == "__main__":
    main()
