"""What this machine can do at most, and how fast a model runs on it.

A decode step reads every weight once, so with one stream memory sets the floor; with many, or in a
prompt, arithmetic does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch.nn import functional

from limner import kernels
from limner.inference.engine import Engine
from limner.inference.sampling import Sampling
from limner.models.decoder import Decoder

#: Bytes that no cache holds.
LARGE = 2**28
#: Repetitions; the best counts for what the machine can do, the median for what a model did.
ROUNDS = 5


def seconds_of(run: Callable[[], object], rounds: int = ROUNDS) -> list[float]:
    """How long `run` takes, once to warm up and then `rounds` times."""
    run()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return taken


def memory_bandwidth() -> float:
    """Bytes a second that all threads together read from memory."""
    width = 1024
    if kernels.current() is None:
        numbers = torch.ones(LARGE // 4)
        return LARGE / min(seconds_of(numbers.sum))
    # The product with one token does next to nothing but read.
    weight = kernels.pack_floats(torch.ones(LARGE // (4 * width), width))
    token = torch.ones(1, width)
    with torch.inference_mode():
        return LARGE / min(seconds_of(lambda: kernels.linear_float(token, weight)))


def product_peak(bits: int) -> float:
    """Operations a second of large matrix products, weights of 8 or 4 bits or float32 (32)."""
    inputs, outputs, tokens = 1024, 4096, 512
    matrix, hidden = torch.randn(outputs, inputs), torch.randn(tokens, inputs)
    if bits == 32:
        run: Callable[[], object] = partial(functional.linear, hidden, matrix)
    else:
        weight = kernels.quantize(matrix, 8 if bits == 8 else 4, minimum=bits == 4)
        run = partial(kernels.linear_quantized, hidden, weight)
    with torch.inference_mode():
        return 2 * inputs * outputs * tokens / min(seconds_of(run))


@dataclass(frozen=True)
class Speed:
    """Medians of one way to run a model."""

    streams: int
    decode: float
    """Tokens a second, all streams together."""
    prefill: float
    """Tokens of prompts a second."""


def measure(network: Decoder, streams: int, prompt: int = 128, tokens: int = 32) -> Speed:
    """Answer `streams` random prompts of `prompt` tokens each, greedily, with `tokens` tokens."""
    capacity = prompt + tokens
    budget = max(512, streams)
    engine = Engine(network, rows=streams, capacity=capacity, prefix_pages=0, token_budget=budget)
    sampling = Sampling(temperature=0, max_tokens=tokens, ignore_eos=True)
    random = torch.Generator().manual_seed(0)
    filled, decoded = [], []
    size = (streams, prompt)
    prompts = torch.randint(network.config.vocabulary, size, generator=random).tolist()
    for _ in range(1 + ROUNDS):
        filling, decoding = _timed(engine, prompts, sampling)
        filled.append(streams * prompt / filling)
        decoded.append(streams * (tokens - 1) / decoding)
    return Speed(streams, statistics.median(decoded[1:]), statistics.median(filled[1:]))


def _timed(engine: Engine, prompts: list[list[int]], sampling: Sampling) -> tuple[float, float]:
    """Seconds until every prompt has its first token, and from then to the end."""
    start = time.perf_counter()
    answers = [engine.submit(prompt, sampling) for prompt in prompts]
    while not all(answer.generated for answer in answers):
        engine.step()
    first = time.perf_counter()
    while engine.busy:
        engine.step()
    return first - start, time.perf_counter() - first
