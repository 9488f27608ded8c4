"""Tensors of a quantised folder under the names they would have in float."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from limner.checkpoints.quantized.layout import LAYOUTS, Layout, Weight, find_layout
from limner.checkpoints.quantized.weight import GroupedWeight
from limner.checkpoints.tensors import TensorSource
from limner.kernels import PackedWeight
from limner.nn.scaled import ScaledWeight

log = logging.getLogger(__name__)

#: Where AutoGPTQ kept the settings before config.json did.
OLD_SETTINGS = "quantize_config.json"

#: Formats whose numbers mean nothing without a scale.
NEED_SCALES = ("I8", "F8_E4M3", "F8_E5M2")


def with_plain_names(source: TensorSource, folder: Path, fields: Mapping[str, Any]) -> TensorSource:
    """`source`, its quantised matrices as `STEM.weight`, if `fields` (config.json) says they are.

    Raises ValueError if they are quantised in a way limner cannot read.
    """
    settings = fields.get("quantization_config") or fields.get("compression_config")
    old = folder / OLD_SETTINGS
    if settings is None and old.is_file():
        settings = {"quant_method": "gptq", **json.loads(old.read_text(encoding="utf-8"))}
    if settings is None:
        return source
    method = settings.get("quant_method", "")
    try:
        return QuantizedTensors(source, find_layout(method), LAYOUTS.get(method, ""), settings)
    except ValueError as error:
        raise ValueError(f"'{folder}': {error}") from None


class QuantizedTensors:
    """A source whose quantised matrices can be read as floats, or as they are.

    Args:
        source: the tensors as they are stored.
        layout: how matrices are laid out.
        name: what the layout is called, for formats.
        settings: the folder's `quantization_config`.
    """

    def __init__(
        self, source: TensorSource, layout: Layout, name: str, settings: Mapping[str, Any]
    ) -> None:
        self.source, self.layout, self.name, self.settings = source, layout, name, settings
        self.told = False
        first = f".{layout.SUFFIXES[0]}"
        stored = dict.fromkeys(source.names())
        stems = [name.removesuffix(first) for name in stored if name.endswith(first)]
        self.parts = {f"{stem}.weight": self._parts(stem, stored) for stem in stems}
        taken = {part for parts in self.parts.values() for part in parts.values()}
        self._names = [*(name for name in stored if name not in taken), *self.parts]
        for name in stored:
            if name.endswith(".weight") and name not in taken:
                self._require_floats(name)

    def _require_floats(self, name: str) -> None:
        if self.source.format(name) in NEED_SCALES:
            scale = self.layout.SUFFIXES[0]
            raise ValueError(
                f"the numbers of '{name}' are {self.source.format(name)}, but there is no "
                f"'{name.removesuffix('weight')}{scale}' that says how large they are"
            )

    def _parts(self, stem: str, stored: Mapping[str, None]) -> dict[str, str]:
        named = {suffix: f"{stem}.{suffix}" for suffix in self.layout.SUFFIXES}
        return {suffix: name for suffix, name in named.items() if name in stored}

    def names(self) -> Iterable[str]:
        """The names of all tensors, each quantised matrix once."""
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        if name not in self.parts:
            return self.source.shape(name)
        shapes = {suffix: self.source.shape(part) for suffix, part in self.parts[name].items()}
        return self.layout.shape(shapes, self.settings)

    def format(self, name: str) -> str:
        """How its numbers are stored: "F16", or the layout's name for a quantised matrix."""
        return self.name.upper() if name in self.parts else self.source.format(name)

    def read(self, name: str, dtype: torch.dtype | None = None) -> Tensor:
        """One tensor; quantised matrices as float32 unless `dtype` is given."""
        weight = self.weight(name)
        if weight is None:
            return self.source.read(name, dtype)
        matrix = weight.dequantize()
        return matrix if dtype is None else matrix.to(dtype)

    def weight(self, name: str) -> Weight | None:
        """A quantised matrix as it is; None if it is plain numbers."""
        if name not in self.parts:
            return None
        parts = {s: self.source.read(part, None) for s, part in self.parts[name].items()}
        try:
            return self.layout.read(parts, self.settings)
        except ValueError as error:
            raise ValueError(f"'{name}': {error}") from None

    @property
    def has_rows(self) -> bool:
        """Whether it has matrices of 8 bits that are not packed into words."""
        return any("weight" in parts for parts in self.parts.values())

    def scaled(self, name: str) -> ScaledWeight | None:
        """A matrix of 8 bits with a scale for each row, as it is; None if it is another."""
        if "weight" not in self.parts.get(name, ()):
            return None
        weight = self.weight(name)
        if isinstance(weight, GroupedWeight):
            return weight.scaled()
        return weight if isinstance(weight, ScaledWeight) and weight.group is None else None

    def packed(self, name: str) -> PackedWeight | None:
        """A quantised matrix in the kernels' form, without second rounding of its codes.

        None if it is plain numbers, or quantised in a way kernels cannot compute with.
        """
        weight = self.weight(name)
        packed = weight.packed() if isinstance(weight, GroupedWeight) else None
        if weight is not None and packed is None and not self.told:
            log.info("kernels have no form of '%s' and others like it: floats instead", name)
            self.told = True
        return packed
