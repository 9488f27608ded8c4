"""Layers of few bits put where a folder has them, or where a loaded network is to have them."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import nn

from limner.checkpoints.checkpoint import Checkpoint
from limner.checkpoints.quantized import OutlierWeight, QuantizedTensors
from limner.models.network import Network
from limner.nn.packed import PackedLinear, read_elsewhere
from limner.nn.scaled import ScaledLinear, ScaledWeight, scaled_weights
from limner.quantization.methods import layers_to_quantize, linear_at, put
from limner.quantization.outliers import OutlierLinear
from limner.quantization.rounding import round_whole_rows


def place_outliers(network: Network, checkpoint: Checkpoint) -> None:
    """Let matrices in 8 bits with columns in float be computed with as they are.

    `network` has its weights, these as floats; nothing happens if the folder has none such.
    """
    source = checkpoint.source
    if not isinstance(source, QuantizedTensors) or source.name != "outliers":
        return
    for rule in checkpoint.translations:
        weight = source.weight(rule.theirs[0])
        # A fused matrix stays in float: its parts are not looked for.
        if isinstance(weight, OutlierWeight) and len(rule.ours) == 1 and rule.keeps_rows:
            name = rule.ours[0].removesuffix(".weight")
            bias = getattr(network.get_submodule(name), "bias", None)
            network.set_submodule(name, OutlierLinear(weight, bias))


def holds_rows(checkpoint: Checkpoint) -> bool:
    """Whether a folder has matrices of 8 bits, int8 or float8, that are not packed into words."""
    source = checkpoint.source
    return isinstance(source, QuantizedTensors) and source.has_rows


def place_rows(network: Network, checkpoint: Checkpoint, dtypes: Collection[torch.dtype]) -> None:
    """Let matrices of these 8-bit `dtypes`, with a scale for each row, be computed with as such.

    `network` has its weights, these as floats.
    """
    spared = read_elsewhere(network)
    for name, weight in _stored_rows(checkpoint):
        if weight.codes.dtype not in dtypes or name in spared:
            continue
        layer = network.get_submodule(name)
        if isinstance(layer, nn.Linear | PackedLinear):
            network.set_submodule(name, ScaledLinear(weight, layer.bias))


def _stored_rows(checkpoint: Checkpoint) -> Iterator[tuple[str, ScaledWeight]]:
    """The folder's matrices of 8 bits with a scale for each row, by the names of our layers."""
    source = checkpoint.source
    assert isinstance(source, QuantizedTensors)
    for rule in checkpoint.translations:
        weight = source.scaled(rule.theirs[0]) if rule.keeps_rows else None
        if weight is None:
            continue
        numbers = torch.arange(len(weight.codes))
        taken = [rows.flatten() for rows in rule.load([numbers[:, None]])]
        for name, rows in zip(rule.ours, taken, strict=True):
            same = torch.equal(rows, numbers)
            yield name.removesuffix(".weight"), weight if same else weight.rows(rows)


def round_layers(network: Network, dtype: torch.dtype, device: torch.device) -> None:
    """Round the linear layers within blocks to int8 or float8, with a scale for each row.

    They are rounded on `device` and stay there, one after another, so that the whole matrices need
    never fit on it. Those that have rows of 8 bits already keep them.

    Raises ValueError if a weight is not finite, or there is no such layer.
    """
    names = layers_to_quantize(network)
    if not names and next(scaled_weights(network), None) is None:
        raise ValueError(f"a network of the family '{network.config.family}' has no layer to round")
    for name in names:
        matrix = linear_at(network, name).weight.to(device)
        put(network, name, round_whole_rows(matrix, dtype))
