"""How time and memory grow with the prompt, the batch and the context, beside the peers.

    python -m benchmarks.growth --picture growth.png
    python -m benchmarks.growth --formats "4 bits" --rounds 3

A picture of four curves: seconds of a prompt by its length, tokens a second by the streams,
milliseconds of a token by what stands before it, memory by the number of streams. The last line is
JSON: the exponents by which ours grow, and what they should not exceed.
"""

from __future__ import annotations

import statistics
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy

from benchmarks.comparison import (
    Contest,
    contests,
    opened,
    parse_options,
    report,
    some_prompts,
)
from benchmarks.sides import Side
from limner.tokenizers import Tokenizer

PROMPTS = (64, 128, 256, 512, 1024, 2048)
STREAMS = (1, 2, 4, 8, 16, 32)
CONTEXTS = (128, 512, 1024, 2048)
#: Tokens that are timed; behind a long prompt more, so that they take longer than its time varies.
ANSWER, BEHIND = 24, 128

#: Of each program: the places on the horizontal axis, and what was measured there.
Curves = dict[str, tuple[list[int], list[float]]]


def main() -> None:
    options = parse_options(__doc__, picture="growth.png")
    with contests(options.model, options.formats[-1:]) as ((contest,), tokenizer):
        curves = {
            "prompt": measure(contest, tokenizer, options, PROMPTS, prompt_seconds),
            "streams": measure(contest, tokenizer, options, STREAMS, streams_speed),
            "context": measure(contest, tokenizer, options, CONTEXTS, token_milliseconds),
            "memory": measure(contest, tokenizer, options, STREAMS, memory),
        }
    draw(curves, contest.format, options.picture)
    print(f"drew {options.picture}")
    slopes = {name: slope(next(iter(curve.values()))) for name, curve in curves.items()}
    slopes["streams"] = -slopes["streams"]  # speed should grow: the less this is, the better
    report("growth", slopes, {"prompt": 1.3, "context": 0.5, "memory": 1.0, "streams": -0.3})


def measure(
    contest: Contest,
    tokenizer: Tokenizer,
    options: Namespace,
    places: tuple[int, ...],
    ask: Callable[[Side, Tokenizer, int], float],
) -> Curves:
    """The median of what `ask` says of each program at each place, in turns."""
    curves: Curves = {}
    for place in places:
        prompt = place if ask in (prompt_seconds, token_milliseconds) else 32
        rows = 1 if ask in (prompt_seconds, token_milliseconds) else place
        with opened(contest, options.threads, rows, prompt + BEHIND) as sides:
            found: dict[str, list[float]] = {side.name: [] for side in sides}
            for turn in range(options.rounds + 1):
                for side in sides:
                    value = ask(side, tokenizer, place)
                    if turn:
                        found[side.name].append(value)
        for name, values in found.items():
            across, up = curves.setdefault(name, ([], []))
            across.append(place)
            up.append(statistics.median(values))
            print(f"{ask.__name__:20} {place:6} {name:24} {up[-1]:10.3f}")
    return curves


def prompt_seconds(side: Side, tokenizer: Tokenizer, length: int) -> float:
    """Seconds until the first token behind a prompt of `length`."""
    return float(side.generate(some_prompts(tokenizer, 1, length), 1)["seconds"])


def streams_speed(side: Side, tokenizer: Tokenizer, streams: int) -> float:
    """Tokens a second of all `streams` together."""
    answer = side.generate(some_prompts(tokenizer, streams, 32), ANSWER)
    return streams * ANSWER / float(answer["seconds"])


def token_milliseconds(side: Side, tokenizer: Tokenizer, length: int) -> float:
    """Milliseconds of one token behind `length` others."""
    prompts = some_prompts(tokenizer, 1, length)
    short, long = (float(side.generate(prompts, count)["seconds"]) for count in (1, BEHIND))
    return 1000 * (long - short) / (BEHIND - 1)


def memory(side: Side, tokenizer: Tokenizer, streams: int) -> float:
    """The most memory that the process has had, in MB."""
    return float(side.generate(some_prompts(tokenizer, streams, 32), ANSWER)["peak"]) / 1e6


def slope(curve: tuple[list[int], list[float]]) -> float:
    """The exponent of growth: the slope of a line through the logarithms."""
    across, up = (numpy.log(values) for values in curve)
    return round(float(numpy.polyfit(across, up, 1)[0]), 3)


def draw(curves: dict[str, Curves], format: str, path: str) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    labels = {
        "prompt": ("tokens of the prompt", "seconds to the first token"),
        "streams": ("streams", "tokens a second"),
        "context": ("tokens before it", "milliseconds a token"),
        "memory": ("streams", "memory of the process, MB"),
    }
    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6.5), layout="constrained")
    for axis, (name, curve) in zip(axes.flat, curves.items(), strict=True):
        _draw_curves(axis, curve, *labels[name])
    axes.flat[0].legend(frameon=False)
    figure.suptitle(f"{format}; both axes logarithmic")
    figure.savefig(path, dpi=110)


def _draw_curves(axis: Any, curve: Curves, across: str, up: str) -> None:
    for name, (places, values) in curve.items():
        axis.plot(places, values, marker="o", markersize=4, label=name.split()[0])
    axis.set(xlabel=across, ylabel=up, xscale="log", yscale="log")
    axis.set_xticks(next(iter(curve.values()))[0])
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.grid(alpha=0.3)


if __name__ == "__main__":
    main()
