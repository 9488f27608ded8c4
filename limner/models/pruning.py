"""Taking attention heads out of a network (Michel et al. 2019).

D width, H query heads, K key-value heads, W head width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from limner.models.block import BlockConfig
from limner.models.decoder import Decoder
from limner.models.encoder import Encoder
from limner.nn.attention import Attention, AttentionConfig, RemovedHeads


def prune_heads(network: Decoder | Encoder, heads: Mapping[int, Sequence[int]]) -> None:
    """Take the query heads `heads` (by layer) out of a network, with all their weights.

    Heads are numbered as they are now. The network then answers as if what these heads say were
    zero, and its config says so, so that it can be saved and loaded. Where several query heads
    share keys, all groups must keep equally many, or lose all.

    Raises ValueError if there is no such layer or head, none would be left, or heads there cannot
    be removed.
    """
    for layer, chosen in heads.items():
        if not 0 <= layer < len(network.blocks):
            last = len(network.blocks) - 1
            raise ValueError(f"there is no layer {layer}: layers run from 0 to {last}")
        attention = network.blocks[layer].mixer
        config = _attention_of(network.config.blocks[layer], layer)
        assert isinstance(attention, Attention)
        after = without(config, chosen)
        keep_rows(attention, config, sorted(set(range(config.heads)) - set(chosen)))
        attention.config, attention.scoring = after, after.scoring
        block = replace(network.config.blocks[layer], mixer=after)
        blocks = (*network.config.blocks[:layer], block, *network.config.blocks[layer + 1 :])
        network.config = replace(network.config, blocks=blocks)


def keep_rows(attention: Attention, config: AttentionConfig, kept: Sequence[int]) -> None:
    """Leave only the `kept` query heads, and the key-value heads that they use."""
    share = config.heads // config.key_value_heads
    groups = sorted({head // share for head in kept})
    queries, keys = _numbers(kept, config.head_width), _numbers(groups, config.head_width)
    attention.query = _rows(attention.query, queries)
    attention.key = _rows(attention.key, keys)
    attention.value = _rows(attention.value, keys)
    output = attention.output
    attention.output = _linear(output.weight[:, queries], output.bias)


def _numbers(heads: Sequence[int], width: int) -> Tensor:
    """The numbers of a vector of heads that belong to `heads`."""
    return (torch.tensor(heads)[:, None] * width + torch.arange(width)).flatten()


def _rows(linear: nn.Linear, rows: Tensor) -> nn.Linear:
    bias: Tensor | None = linear.bias
    return _linear(linear.weight[rows], bias if bias is None else bias[rows])


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A projection with these weights."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear


def without(config: AttentionConfig, heads: Sequence[int]) -> AttentionConfig:
    """The settings of attention without these of its query heads."""
    unknown = [head for head in heads if not 0 <= head < config.heads]
    if unknown:
        last = config.heads - 1
        raise ValueError(f"there is no head {unknown[0]}: heads run from 0 to {last}")
    if config.alibi or config.relative or config.norm_together:
        why = "are normalised together" if config.norm_together else "have a bias each by distance"
        raise ValueError(f"heads that {why} cannot be removed")
    kept = sorted(set(range(config.heads)) - set(heads))
    share = config.heads // config.key_value_heads
    left = [sum(head // share == group for head in kept) for group in range(config.key_value_heads)]
    sizes = {size for size in left if size}
    if len(sizes) != 1:
        why = f"leaves groups of {left} heads" if sizes else "leaves none"
        raise ValueError(f"removing heads {sorted(heads)} {why}: every group must keep as many")
    before = config.removed or RemovedHeads((), config.key_value_heads)
    present = sorted(set(range(config.heads + len(before.heads))) - set(before.heads))
    removed = tuple(sorted({*before.heads, *(present[head] for head in heads)}))
    return replace(
        config,
        heads=len(kept),
        key_value_heads=sum(size > 0 for size in left),
        removed=replace(before, heads=removed),
    )


def _attention_of(block: BlockConfig, layer: int) -> AttentionConfig:
    if not isinstance(block.mixer, AttentionConfig):
        kind = type(block.mixer).__name__.removesuffix("Config")
        raise ValueError(f"layer {layer} mixes by {kind}, whose heads cannot be removed")
    return block.mixer


def pruned_config(config: Any, heads: Mapping[int, Sequence[int]]) -> Any:
    """The config without these query heads, by layer."""
    blocks = tuple(
        replace(block, mixer=without(_attention_of(block, layer), heads[layer]))
        if layer in heads
        else block
        for layer, block in enumerate(config.blocks)
    )
    return replace(config, blocks=blocks)


def removed_heads(config: Any) -> dict[int, tuple[int, ...]]:
    """The query heads that were removed, by layer, as they were numbered at first."""
    mixers = {layer: block.mixer for layer, block in enumerate(config.blocks)}
    return {
        layer: mixer.removed.heads
        for layer, mixer in mixers.items()
        if isinstance(mixer, AttentionConfig) and mixer.removed
    }


def whole_config(config: Any) -> Any:
    """The config as it was before heads were removed."""
    if not removed_heads(config):
        return config
    return replace(config, blocks=tuple(_whole(block) for block in config.blocks))


def _whole(block: BlockConfig) -> BlockConfig:
    mixer = block.mixer
    if not isinstance(mixer, AttentionConfig) or not mixer.removed:
        return block
    heads = mixer.heads + len(mixer.removed.heads)
    kept = mixer.removed.key_value_heads
    return replace(block, mixer=replace(mixer, heads=heads, key_value_heads=kept, removed=None))
