"""How near the kernels come to the machine's floors.

    python benchmarks/kernels.py [threads]

Prints gigabytes and operations a second of the products with packed weights, and of attention,
beside the memory read and PyTorch's own products measured in the same run, turn by turn. Other
processes disturb all of them alike; the ratios are what to read.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch.nn import functional

from limner import kernels

OUTPUTS, INPUTS = 2048, 2048
ROUNDS = 7


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(*works: Callable[[], object]) -> list[float]:
    """Median seconds of each, taken in turns after one run that does not count."""
    for work in works:
        work()
    rounds = [[seconds(work) for work in works] for _ in range(ROUNDS)]
    return [statistics.median(times) for times in zip(*rounds, strict=True)]


def show_products(tokens: int, bits: int, minimum: bool, memory: torch.Tensor) -> None:
    """One format, one number of tokens, over more weights than any cache holds."""
    count = 128 * 2**20 // (OUTPUTS * INPUTS * bits // 8) if tokens < 32 else 4
    weights = [
        kernels.quantize(torch.randn(OUTPUTS, INPUTS), 8 if bits == 8 else 4, minimum)
        for _ in range(count)
    ]
    hidden, plain = torch.randn(tokens, INPUTS), torch.randn(OUTPUTS, INPUTS)
    ours, read, theirs = compare(
        lambda: [kernels.linear_quantized(hidden, weight) for weight in weights],
        memory.sum,
        lambda: functional.linear(hidden, plain),
    )
    size, operations = sum(w.nbytes for w in weights), 2 * tokens * OUTPUTS * INPUTS
    floor = memory.nbytes / read
    print(
        f"{bits} bits{' + minimum' if minimum else '':10} {tokens:4} tokens:"
        f" {size / ours / 1e9:6.1f} GB/s ({size / ours / floor:4.2f} of the memory read),"
        f" {operations * count / ours / 1e9:6.0f} GOP/s"
        f" ({operations * count / ours / (operations / theirs):5.2f} x PyTorch's float32)"
    )


def show_attention(tokens: int, length: int, heads: int = 9, key_heads: int = 3) -> None:
    """New tokens at the end of one text, interleaved keys, heads of 64."""
    keys, values = (
        torch.randn(1, key_heads, length // 16, 64, 16),
        torch.randn(1, key_heads, length, 64),
    )
    query = torch.randn(tokens, heads, 64)
    positions = torch.arange(length - tokens, length)
    places = kernels.Places(torch.zeros_like(positions), positions)
    plain_keys = keys.transpose(-1, -2).flatten(2, 3)
    shaped = query.transpose(0, 1)[None]
    seen = (torch.arange(length) <= positions[:, None])[None, None]
    ours, theirs = compare(
        lambda: kernels.attend(query, keys, values, places, 0.125),
        lambda: functional.scaled_dot_product_attention(
            shaped, plain_keys, values, seen, enable_gqa=True
        ),
    )
    operations = 4 * 64 * heads * int((positions + 1).sum())
    print(
        f"attention  {tokens:4} tokens over {length:5}: {operations / ours / 1e9:6.1f} GOP/s,"
        f" {theirs / ours:5.2f} x PyTorch's"
    )


def main() -> None:
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    kernels.set_threads(threads)
    torch.set_num_threads(kernels.get_threads())
    variant = kernels.current()
    print(f"{variant.name if variant else 'references'}, {kernels.get_threads()} threads")
    memory = torch.ones(2**26)
    for bits, minimum in ((8, False), (4, False), (4, True)):
        for tokens in (1, 4, 16, 64, 512):
            show_products(tokens, bits, minimum, memory)
    for tokens, length in ((1, 512), (1, 4096), (128, 512), (512, 512)):
        show_attention(tokens, length)


if __name__ == "__main__":
    main()
