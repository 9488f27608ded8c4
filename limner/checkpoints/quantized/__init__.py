"""Folders of weights in a few bits, as GPTQ, AWQ and compressed-tensors lay them out."""

from limner.checkpoints.quantized.layout import LAYOUTS, Layout, find_layout
from limner.checkpoints.quantized.source import QuantizedTensors, with_plain_names
from limner.checkpoints.quantized.weight import (
    FLOAT8_GRID,
    Grid,
    GroupedWeight,
    OutlierWeight,
)

__all__ = [
    "FLOAT8_GRID",
    "LAYOUTS",
    "Grid",
    "GroupedWeight",
    "Layout",
    "OutlierWeight",
    "QuantizedTensors",
    "find_layout",
    "with_plain_names",
]
