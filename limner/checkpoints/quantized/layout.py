"""What a way of laying out quantised matrices must say, and which there are."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, Protocol, cast

from torch import Tensor

from limner.checkpoints.quantized.weight import Grid, GroupedWeight, OutlierWeight
from limner.nn.scaled import ScaledWeight

Weight = GroupedWeight | OutlierWeight | ScaledWeight

#: `quant_method` in config.json: the file of its layout, beside this one.
LAYOUTS = {
    "gptq": "gptq",
    "awq": "awq",
    "compressed-tensors": "compressed",
    "fp8": "float8_blocks",
    "limner_outliers": "outliers",
}


class Layout(Protocol):
    """What the file of a layout holds.

    A matrix `STEM.weight` is kept as tensors `STEM.SUFFIX`; the first of `SUFFIXES` is always there
    and tells that a matrix is quantised, the others may be.
    """

    SUFFIXES: tuple[str, ...]

    def read(self, parts: Mapping[str, Tensor], fields: Mapping[str, Any]) -> Weight:
        """The matrix kept in `parts` (by suffix) under the settings in `fields`.

        Raises ValueError for settings that limner cannot read.
        """
        ...

    def shape(
        self, shapes: Mapping[str, tuple[int, ...]], fields: Mapping[str, Any]
    ) -> tuple[int, int]:
        """Outputs and inputs of the matrix kept in parts of these `shapes`."""
        ...

    def write(self, weight: Weight) -> dict[str, Tensor]:
        """The tensors, by suffix, that keep a matrix; ValueError if the layout cannot."""
        ...

    def write_fields(self, grid: Grid, kept: list[str]) -> dict[str, Any]:
        """The `quantization_config` of matrices on `grid`; `kept` names modules left in float.

        Raises ValueError if the layout has no such matrices.
        """
        ...


def find_layout(method: str) -> Layout:
    """The layout of a `quant_method`; ValueError names those known."""
    if method not in LAYOUTS:
        raise ValueError(
            f"weights quantised by '{method}' cannot be read: known are {', '.join(LAYOUTS)}"
        )
    return cast("Layout", importlib.import_module(f"{__package__}.{LAYOUTS[method]}"))


def grouped(weight: Weight, layout: str) -> GroupedWeight:
    """The weight, if it is no more than groups; ValueError if not, for this layout's writer."""
    if isinstance(weight, OutlierWeight):
        raise ValueError(f"columns kept in float have no place in {layout} folders")
    if isinstance(weight, ScaledWeight):
        raise ValueError(f"floats of 8 bits have no place in {layout} folders")
    return weight
