"""What the metadata of GGUF files says alike for several architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from limner.models.families.fields import rotary_share
from limner.nn.rotary import magnitude


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


def read_llama_fields(file: GGUFFields) -> dict[str, Any]:
    """What files of Llama's kind say, in the words of a config.json."""
    heads, width = file.value("attention.head_count"), file.value("embedding_length")
    head_width = file.value("attention.key_length", width // heads)
    return {
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": file.value("attention.head_count_kv", heads),
        "head_dim": head_width,
        "rms_norm_eps": file.value("attention.layer_norm_rms_epsilon"),
        "intermediate_size": file.value("feed_forward_length"),
        "vocab_size": file.rows("token_embd.weight"),
        "num_hidden_layers": file.value("block_count"),
        "max_position_embeddings": file.value("context_length"),
        "tie_word_embeddings": not file.has("output.weight"),
        **read_gguf_rotary(file, head_width),
    }


def read_gguf_rotary(file: GGUFFields, head_width: int) -> dict[str, Any]:
    """Rotary settings in the words of a config.json."""
    turned = file.value("rope.dimension_count", head_width)
    return {
        "rope_theta": file.value("rope.freq_base", 10_000.0),
        "partial_rotary_factor": rotary_share(turned, head_width),
        "rope_scaling": _read_scaling(file),
    }


def _read_scaling(file: GGUFFields) -> dict[str, Any] | None:
    context = file.value("context_length")
    trained = file.value("rope.scaling.original_context_length", context)
    if file.has("rope_freqs.weight"):
        # Llama 3's stretching, worked out already: a divisor for each pair of dimensions.
        factors = file.read("rope_freqs.weight").tolist()
        return _longrope(factors, factors, trained) | {"attention_factor": 1.0}
    if file.has("rope_factors_long.weight"):
        short, long = (file.read(f"rope_factors_{kind}.weight") for kind in ("short", "long"))
        gain = {"attention_factor": file.value("rope.scaling.attn_factor", None)}
        return _longrope(short.tolist(), long.tolist(), trained) | gain
    kind = file.value("rope.scaling.type", "none")
    if kind == "none":
        return None
    factor = file.value("rope.scaling.factor")
    return {
        "rope_type": kind,
        "factor": factor,
        "original_max_position_embeddings": trained,
        "attention_factor": magnitude(factor) * file.value("rope.scaling.attn_factor", 1.0),
        "beta_fast": file.value("rope.scaling.yarn_beta_fast", 32.0),
        "beta_slow": file.value("rope.scaling.yarn_beta_slow", 1.0),
    }


def _longrope(short: list[float], long: list[float], trained: int) -> dict[str, Any]:
    return {
        "rope_type": "longrope",
        "short_factor": short,
        "long_factor": long,
        "original_max_position_embeddings": trained,
    }
