"""Layers of few bits that only this room knows, put where a folder has them."""

from __future__ import annotations

from limner.checkpoints.checkpoint import Checkpoint
from limner.checkpoints.quantized import OutlierWeight, QuantizedTensors
from limner.models.network import Network
from limner.quantization.outliers import OutlierLinear


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
