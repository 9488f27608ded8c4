"""StableLM 2 (Bellagente et al. 2024): Llama with LayerNorm, a quarter of each head turned."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families import llama
from limner.models.families.fields import attention_of, change_blocks
from limner.models.translation import Translation
from limner.nn.norms import NormConfig

STEM = llama.STEM | {"model.norm.bias": "norm.bias"}
FIRST = {
    "model.layers.{}.input_layernorm.weight": "blocks.{}.mix.before.weight",
    "model.layers.{}.input_layernorm.bias": "blocks.{}.mix.before.bias",
}
SECOND = {
    "model.layers.{}.post_attention_layernorm.weight": "blocks.{}.feed.before.weight",
    "model.layers.{}.post_attention_layernorm.bias": "blocks.{}.feed.before.bias",
}


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json; ValueError for a norm of its own a head."""
    if fields.get("qk_layernorm"):
        raise ValueError("qk_layernorm is true: a StableLM with a norm for each head is not known")
    norm = NormConfig("layer", fields.get("layer_norm_eps", 1e-5))
    parallel, bias = fields.get("use_parallel_residual", False), fields.get("use_qkv_bias", False)

    def changed(block: BlockConfig) -> BlockConfig:
        mixer = replace(attention_of(block), query_bias=bias, key_bias=bias, value_bias=bias)
        return replace(
            block,
            mixer=replace(mixer, output_bias=False),
            mix=ResidualConfig(before=norm),
            feed=ResidualConfig() if parallel else ResidualConfig(before=norm),
            parallel=parallel,
        )

    config = llama.read_config({"partial_rotary_factor": 0.25} | dict(fields))
    return replace(change_blocks(config, changed), family="stablelm", norm=norm)


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    assert config.norm is not None
    fields = {"partial_rotary_factor": 1.0} | llama.write_config(config)
    return fields | {
        "architectures": ["StableLmForCausalLM"],
        "model_type": "stablelm",
        "layer_norm_eps": config.norm.epsilon,
        "use_qkv_bias": attention_of(config.blocks[0]).query_bias,
        "use_parallel_residual": config.blocks[0].parallel,
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    norms = FIRST if config.blocks[0].parallel else FIRST | SECOND
    return llama.translations_with(config, norms, STEM)
