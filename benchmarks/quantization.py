"""What each method of `limner quantize` costs in perplexity, beside rounding to nearest.

    python benchmarks/quantization.py MODEL TEXT CALIBRATION [METHOD:BITS:GROUP[:symmetric]]...

MODEL is a folder or a .gguf file, TEXT what is measured on, CALIBRATION texts of the same kind that
TEXT is no part of. With --floats activations stay floats, so that only the rounding of weights
counts.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from limner.checkpoints.checkpoint import open_checkpoint
from limner.checkpoints.quantized import Grid
from limner.evaluation.perplexity import perplexity
from limner.language_model.loading import choose_device
from limner.nn.packed import PackedLinear
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
    name, bits, group, *rest = specification.split(":")
    grid = Grid(int(bits), None if group == "row" else int(group), rest == ["symmetric"])
    return Method(name, grid)  # type: ignore[arg-type]  # checked by quantize_network


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("calibration", type=Path)
    parser.add_argument("specifications", nargs="*", default=SPECIFICATIONS)
    parser.add_argument("--tokens", type=int, default=32_768)
    parser.add_argument("--rows", type=int, default=128)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--floats", action="store_true")
    given = parser.parse_args()
    checkpoint = open_checkpoint(given.model)
    tokenizer, text = checkpoint.tokenizer(), given.text.read_text(encoding="utf-8")
    shown = rows(
        [given.calibration.read_text(encoding="utf-8")], tokenizer, given.rows, given.length
    )
    network = checkpoint.network(device=choose_device("cpu"))
    before = perplexity(network, tokenizer, text, limit=given.tokens)  # type: ignore[arg-type]
    print(f"floats: {before.perplexity:.3f} on {before.tokens:,} tokens; {len(shown)} rows")
    for specification in given.specifications:
        network, start = checkpoint.network(), time.monotonic()
        method = method_of(specification)
        weights = quantize_network(network, method, shown if method.needs_texts else [])
        seconds = time.monotonic() - start
        if given.floats:
            with_floats(network, weights)
        after = perplexity(network, tokenizer, text, limit=given.tokens)  # type: ignore[arg-type]
        bits = sum(w.stored_bits for w in weights.values()) / sum(
            w.numbers for w in weights.values()
        )
        print(
            f"{specification:26} {bits:6.3f} bits  {after.perplexity:9.3f}  "
            f"{after.perplexity / before.perplexity - 1:+.2%}  {seconds:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
