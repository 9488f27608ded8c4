"""GPT-J (Wang and Komatsuzaki 2021): both branches read one norm; neighbours turn together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.decoder import DecoderConfig
from limner.models.families.fields import attention_of, read_activation, write_activation
from limner.models.heads import LanguageHeadConfig
from limner.models.translation import Translation, renamed
from limner.nn.attention import AttentionConfig
from limner.nn.embedding import EmbeddingConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig
from limner.nn.rotary import RotaryConfig

NAMES = {
    "transformer.wte.weight": "embedding.tokens.weight",
    "transformer.h.{}.ln_1.weight": "blocks.{}.mix.before.weight",
    "transformer.h.{}.ln_1.bias": "blocks.{}.mix.before.bias",
    "transformer.h.{}.attn.q_proj.weight": "blocks.{}.mixer.query.weight",
    "transformer.h.{}.attn.k_proj.weight": "blocks.{}.mixer.key.weight",
    "transformer.h.{}.attn.v_proj.weight": "blocks.{}.mixer.value.weight",
    "transformer.h.{}.attn.out_proj.weight": "blocks.{}.mixer.output.weight",
    "transformer.h.{}.mlp.fc_in.weight": "blocks.{}.feedforward.up.weight",
    "transformer.h.{}.mlp.fc_in.bias": "blocks.{}.feedforward.up.bias",
    "transformer.h.{}.mlp.fc_out.weight": "blocks.{}.feedforward.down.weight",
    "transformer.h.{}.mlp.fc_out.bias": "blocks.{}.feedforward.down.bias",
    "transformer.ln_f.weight": "norm.weight",
    "transformer.ln_f.bias": "norm.bias",
    "lm_head.weight": "head.output.weight",
    "lm_head.bias": "head.output.bias",
}
PREFIX = "transformer."


def read_config(fields: Mapping[str, Any]) -> DecoderConfig:
    """Our config from the fields of a config.json."""
    width, heads = fields["n_embd"], fields["n_head"]
    norm = NormConfig("layer", fields.get("layer_norm_epsilon", 1e-5))
    block = BlockConfig(
        mixer=AttentionConfig(
            heads=heads,
            key_value_heads=heads,
            head_width=width // heads,
            rotary=RotaryConfig(fields.get("rotary_dim") or width // heads, interleaved=True),
        ),
        mix=ResidualConfig(before=norm),
        feedforward=FeedForwardConfig(
            fields.get("n_inner") or 4 * width,
            read_activation(fields.get("activation_function", "gelu_new")),
            gated=False,
            bias=True,
        ),
        parallel=True,
    )
    return DecoderConfig(
        family="gptj",
        width=width,
        context=fields["n_positions"],
        embedding=EmbeddingConfig(fields["vocab_size"]),
        blocks=(block,) * fields["n_layer"],
        norm=norm,
        head=LanguageHeadConfig(tied=False, bias=True),
    )


def write_config(config: DecoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    attention, feedforward = attention_of(config.blocks[0]), config.blocks[0].feedforward
    assert isinstance(feedforward, FeedForwardConfig)
    assert attention.rotary is not None
    assert config.norm is not None
    return {
        "architectures": ["GPTJForCausalLM"],
        "model_type": "gptj",
        "n_embd": config.width,
        "n_layer": len(config.blocks),
        "n_head": attention.heads,
        "n_positions": config.context,
        "n_inner": feedforward.width,
        "rotary_dim": attention.rotary.width,
        "activation_function": write_activation(feedforward.activation),
        "layer_norm_epsilon": config.norm.epsilon,
        "vocab_size": config.vocabulary,
        "tie_word_embeddings": False,
    }


def translations(config: DecoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    return renamed(NAMES, len(config.blocks))
