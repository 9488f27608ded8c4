"""What a network takes: parameters, memory and arithmetic, worked out from its config alone.

The network is built on PyTorch's meta device, where tensors have shapes and no contents, so a
model of any size is counted in a moment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import nn

from limner.models.block import Block
from limner.models.decoder import Decoder
from limner.models.network import Network, NetworkConfig, without_contents
from limner.nn.cache import CacheShape
from limner.nn.mixture import idle_parameters

#: Bits of a weight, scales included, in the number formats that weights come in.
FORMATS: Mapping[str, float] = {
    "float32": 32,
    "bfloat16": 16,
    "Q8_0": 8.5,
    "Q6_K": 6.5625,
    "Q5_K": 5.5,
    "Q4_K": 4.5,
    "Q4_0": 4.5,
}


def on_meta(config: NetworkConfig) -> Network:
    """The network of a config, with shapes and no contents."""
    with without_contents():
        return config.build()


def count_parameters(network: nn.Module) -> int:
    """How many numbers were learnt; those used in two places count once."""
    return sum(parameter.numel() for parameter in network.parameters())


def parameters_by_part(network: Network) -> dict[str, int]:
    """Parameters of the embedding, the blocks' parts (all layers together), the heads and norms."""
    counts: Counter[str] = Counter()
    for name, parameter in network.named_parameters():
        counts[part_of(name, network)] += parameter.numel()
    return dict(counts)


def part_of(name: str, network: Network) -> str:
    """The part that a parameter belongs to."""
    first, *rest = name.split(".")
    if first != "blocks":
        return first
    if "before" in rest or "after" in rest or "inside" in rest:
        return "norms"
    module = network.get_submodule(".".join(["blocks", *rest[:2]]))
    return {"FeedForward": "feed-forward"}.get(type(module).__name__, type(module).__name__.lower())


def cache_bytes(network: Decoder, tokens: int, bytes_per_number: float) -> float:
    """Memory of what is kept of `tokens` tokens of one text."""
    cache = network.new_cache(rows=1, capacity=tokens)
    kept = [
        *cache.keys,
        *cache.values,
        *(part for parts in cache.carried.values() for part in parts),
    ]
    return sum(tensor.numel() for tensor in kept) * bytes_per_number


def operations_per_token(network: Decoder, length: int) -> int:
    """Floating-point operations of generating one token after `length - 1` others.

    Counted are the matrix products, a multiplication and an addition as two: 2 for each weight that
    takes part (experts that stand idle do not, nor do looked-up vectors), and the scores and mixed
    values of attention. The rest is small.
    """
    looked_up = sum(parameter.numel() for parameter in network.embedding.parameters())
    matrices = sum(p.numel() for p in network.parameters() if p.ndim > 1) - looked_up
    if network.config.head.tied:
        matrices += network.embedding.tokens.weight.numel()
    predictors = (p for predictor in network.predictors for p in predictor.parameters())
    ahead = sum(p.numel() for p in predictors if p.ndim > 1)
    attended = sum(_attention_operations(block, length) for block in network.blocks)
    return 2 * (matrices - ahead - idle_parameters(network)) + attended


def _attention_operations(block: Block, length: int) -> int:
    """Scores with the keys and sums of the values of `length` tokens."""
    shape = block.cache_shape
    if not isinstance(shape, CacheShape):
        return 0
    mixer: Any = block.mixer
    window = mixer.scoring.window
    seen = length if window is None else min(length, window)
    numbers = shape.key_width + (shape.value_width or shape.key_width)
    return int(2 * mixer.config.heads * numbers * seen)


def abbreviate(count: float) -> str:
    """A large number as people say it: "134.5M"."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.4g}{unit}"
    return f"{count:g}"
