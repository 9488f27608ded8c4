"""What each method of `limner quantize` costs in perplexity, beside rounding to nearest.

    python benchmarks/quantization.py MODEL TEXT CALIBRATION [METHOD:BITS:GROUP[:GRID]]...

MODEL is a folder or a .gguf file, TEXT what is measured on, CALIBRATION texts of the same kind that
TEXT is no part of. GRID is `symmetric`, or `minimum` for GGUF's Q4_1. Activations have 16 bits, as
`limner.load` gives them, or 8 with --activation-bits 8; with --floats they stay floats, so that
only the rounding of weights counts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import get_args, get_type_hints

import torch

from limner.checkpoints.checkpoint import Checkpoint, open_checkpoint
from limner.checkpoints.quantized import Grid
from limner.evaluation.perplexity import perplexity
from limner.models.decoder import Decoder
from limner.nn.packed import PackedLinear, set_activation_bits
from limner.quantization.calibration import rows
from limner.quantization.methods import Method, Weights, quantize_network

SPECIFICATIONS = [
    "rtn:8:32:symmetric",
    "rtn:4:32",
    "gptq:4:32",
    "awq:4:32",
    "rtn:4:32:symmetric",
    "gptq:4:32:symmetric",
    "outliers:8:32:symmetric",
]


def method_of(specification: str) -> Method:
    """The method that a word such as "gptq:4:32:symmetric" names."""
    word, bits, group, *rest = specification.split(":")
    size = None if group == "row" else int(group)
    grid = Grid(int(bits), size, symmetric="symmetric" in rest, minimum="minimum" in rest)
    names = get_args(get_type_hints(Method)["name"])
    return Method(next(name for name in names if name == word), grid)


def with_floats(network: torch.nn.Module, weights: Weights) -> None:
    """Let layers compute with the rounded numbers as floats."""
    for name, weight in weights.items():
        layer = network.get_submodule(name)
        if isinstance(layer, PackedLinear):
            plain = torch.nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
            plain.weight = torch.nn.Parameter(weight.dequantize())
            if layer.bias is not None:
                plain.bias = layer.bias
            network.set_submodule(name, plain)


def decoder(checkpoint: Checkpoint) -> Decoder:
    """The network in float32."""
    network = checkpoint.network()
    assert isinstance(network, Decoder)
    return network


def main() -> None:
    given = parse()
    checkpoint = open_checkpoint(given.model)
    tokenizer, text = checkpoint.tokenizer(), given.text.read_text(encoding="utf-8")
    calibration = given.calibration.read_text(encoding="utf-8")
    shown = rows([calibration], tokenizer, given.rows, given.length)
    before = perplexity(decoder(checkpoint), tokenizer, text, limit=given.tokens)
    print(f"floats: {before.perplexity:.3f} on {before.tokens:,} tokens; {len(shown)} rows")
    for specification in given.specifications:
        network, start = decoder(checkpoint), time.monotonic()
        method = method_of(specification)
        weights = quantize_network(network, method, shown if method.needs_texts else [])
        seconds = time.monotonic() - start
        set_activation_bits(network, given.activation_bits)
        if given.floats:
            with_floats(network, weights)
        after = perplexity(network, tokenizer, text, limit=given.tokens)
        print(
            f"{specification:26} {bits_a_weight(weights):6.3f} bits  {after.perplexity:9.3f}  "
            f"{after.perplexity / before.perplexity - 1:+.2%}  {seconds:.0f} s",
            flush=True,
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("specifications", nargs="*", default=SPECIFICATIONS)
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--activation-bits", type=int, choices=(8, 16), default=16)
    parser.add_argument("--floats", action="store_true")
    return parser.parse_args()


def bits_a_weight(weights: Weights) -> float:
    """Mean bits of a number, scales and zeros counted."""
    numbers = sum(weight.numbers for weight in weights.values())
    return sum(weight.stored_bits for weight in weights.values()) / numbers


if __name__ == "__main__":
    main()
