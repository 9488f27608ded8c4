"""What the metadata of GGUF files says alike for several architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class GGUFFields:
    """The metadata and the tensors' shapes of one GGUF file, as a family file reads them."""

    metadata: Mapping[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    read: Callable[[str], Tensor]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        return str(self.metadata["general.architecture"])

    def value(self, key: str, *default: Any) -> Any:
        """What the file says of `key`; ValueError if it must and does not."""
        full = f"{self.architecture}.{key}"
        if full in self.metadata:
            return self.metadata[full]
        if default:
            return default[0]
        raise ValueError(f"the GGUF file has no '{full}': it was not written completely")

    def has(self, tensor: str) -> bool:
        """Whether the file holds a tensor of this name."""
        return tensor in self.shapes

    def rows(self, tensor: str) -> int:
        """The first dimension of a tensor."""
        if tensor not in self.shapes:
            raise ValueError(
                f"the GGUF file has no tensor '{tensor}': it was not written completely"
            )
        return self.shapes[tensor][0]


def read_gguf_rotary(file: GGUFFields, head_width: int) -> dict[str, Any]:
    """Rotary settings in the words of a config.json."""
    return {
        "rope_theta": file.value("rope.freq_base", 10_000.0),
        "partial_rotary_factor": file.value("rope.dimension_count", head_width) / head_width,
        "rope_scaling": _read_scaling(file),
    }


def _read_scaling(file: GGUFFields) -> dict[str, Any] | None:
    context = file.value("context_length")
    trained = file.value("rope.scaling.original_context_length", context)
    if file.has("rope_freqs.weight"):
        # Llama 3's stretching, worked out already: a divisor for each pair of dimensions.
        factors = file.read("rope_freqs.weight").tolist()
        return {
            "rope_type": "longrope",
            "short_factor": factors,
            "long_factor": factors,
            "original_max_position_embeddings": trained,
            "attention_factor": 1.0,
        }
    kind = file.value("rope.scaling.type", "none")
    if kind == "none":
        return None
    return {
        "rope_type": kind,
        "factor": file.value("rope.scaling.factor"),
        "original_max_position_embeddings": trained,
    }
