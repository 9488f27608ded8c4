"""Writing a network in few bits as a folder that transformers and vLLM open.

N outputs, K inputs of a matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from limner.checkpoints.checkpoint import named_tensors, plain, write_folder
from limner.checkpoints.quantized import Grid, find_layout
from limner.checkpoints.quantized.layout import Layout, Weight
from limner.checkpoints.quantized.weight import GroupedWeight, OutlierWeight, joined
from limner.models.families import find_family
from limner.models.network import Network
from limner.models.translation import Translation
from limner.nn import scaled
from limner.nn.packed import packed_weights
from limner.nn.scaled import ScaledWeight
from limner.quantization.methods import layers_to_quantize
from limner.tokenizers import Tokenizer


def save_quantized(
    network: Network,
    weights: Mapping[str, Weight],
    folder: Path,
    layout: str,
    grid: Grid,
    tokenizer: Tokenizer | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write `network`, its layers named in `weights` in the layout `layout`, all else as `dtype`.

    Raises:
        ValueError: the layout has no such matrices, or the family keeps them otherwise.
        OSError: the disk is full; a good folder that was there before survives.
    """
    form = find_layout(layout)
    rules = tuple(find_family(network.config.family).translations(network.config))
    check_layout(network, list(weights), layout, grid)
    fields = {
        **find_family(network.config.family).write_config(network.config),
        "dtype": str(dtype).removeprefix("torch."),
        "quantization_config": form.write_fields(grid, kept_modules(network, rules, weights)),
    }
    floats = named_tensors(network) | dict(packed_weights(network))

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for rule in rules:
            if _layer(rule.ours[0]) in weights:
                yield from _quantized(rule, weights, form)
            else:
                parts = rule.save([plain(floats[name]) for name in rule.ours])
                yield from zip(rule.theirs, (_cast(part, dtype) for part in parts), strict=True)

    write_folder(tensors(), fields, folder, tokenizer)


def check_layout(network: Network, layers: list[str], layout: str, grid: Grid) -> None:
    """ValueError unless a folder of this layout can hold these `layers` on this `grid`."""
    find_layout(layout).write_fields(grid, [])
    wanted = set(layers or layers_to_quantize(network))
    for rule in find_family(network.config.family).translations(network.config):
        inside = [_layer(name) in wanted for name in rule.ours]
        matrices = [name for name in rule.ours if name.endswith(".weight")]
        if any(inside) and matrices and not (rule.keeps_rows and all(inside)):
            raise ValueError(
                f"'{rule.theirs[0]}' of the family '{network.config.family}' is kept in another "
                f"form than rows of few bits, so {layout} folders cannot hold it"
            )


def kept_modules(
    network: Network, rules: Sequence[Translation], weights: Mapping[str, Weight]
) -> list[str]:
    """Their names of the linear layers that are still in float within blocks, and of the head."""
    plain_layers = {name for name, module in network.named_modules() if type(module) is nn.Linear}
    kept = {
        _layer(rule.theirs[0])
        for rule in rules
        if "blocks." in rule.ours[0] and _layer(rule.ours[0]) in plain_layers - weights.keys()
    }
    return sorted(kept | {"lm_head"})


def _layer(name: str) -> str:
    """The layer that a parameter belongs to, if it is a matrix."""
    return name.removesuffix(".weight")


def _quantized(
    rule: Translation, weights: Mapping[str, Weight], layout: Layout
) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one matrix of theirs, made of one or several of ours."""
    parts = [weights[_layer(name)] for name in rule.ours]
    starts = torch.tensor([0, *(len(_codes(part)) for part in parts)]).cumsum(0)
    numbers = [torch.arange(a, b)[:, None] for a, b in pairwise(starts)]
    (order,) = rule.save(numbers)
    whole = _together(parts).rows(order.flatten())
    for suffix, tensor in layout.write(whole).items():
        yield f"{_layer(rule.theirs[0])}.{suffix}", tensor


def _codes(weight: Weight) -> Tensor:
    return weight.rest.codes if isinstance(weight, OutlierWeight) else weight.codes


def _together(parts: list[Weight]) -> Weight:
    """Matrices of the same inputs as one."""
    groups = [part for part in parts if isinstance(part, GroupedWeight)]
    if len(groups) == len(parts):
        return joined(groups)
    rows = [part for part in parts if isinstance(part, ScaledWeight)]
    if len(rows) == len(parts):
        return scaled.joined(rows)
    outliers = [part for part in parts if isinstance(part, OutlierWeight)]
    rest = joined([part.rest for part in outliers])
    return OutlierWeight(rest, outliers[0].columns, torch.cat([part.values for part in outliers]))


def _cast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Floats as `dtype`; ValueError if one is larger than it can be."""
    if not tensor.is_floating_point():
        return tensor
    cast = tensor.to(dtype)
    if cast.isfinite().all() or not tensor.isfinite().all():
        return cast
    raise ValueError(f"a weight of {tensor.abs().max():g} is more than {dtype} holds: say bfloat16")
