"""Tiny models of every decoder family, as the fields of a config.json (see tests/families.py).

A new family is an entry here; the parity and contract tests run over all of them.
"""

from typing import Any

from tests import families
from tests.families import VOCABULARY, Fields, llama, rope


def like_llama(model_type: str, **changes: Any) -> Fields:
    """A family that took over Llama's fields."""
    return llama(model_type=model_type, **changes)


def gpt_neox(**changes: Any) -> Fields:
    """A GPT-NeoX of three layers."""
    fields = {
        "model_type": "gpt_neox",
        "hidden_size": 60,
        "intermediate_size": 100,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "max_position_embeddings": 128,
        "vocab_size": VOCABULARY,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 10_000.0,
            "partial_rotary_factor": 0.5,
        },
    }
    return fields | changes


def bloom(**changes: Any) -> Fields:
    """A BLOOM of three layers."""
    fields = {
        "model_type": "bloom",
        "hidden_size": 36,
        "n_layer": 3,
        "n_head": 4,
        "vocab_size": VOCABULARY,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return fields | changes


def qwen3_moe(**changes: Any) -> Fields:
    """A mixture of Qwen 3's kind with five experts."""
    fields = {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 28}
    return like_llama("qwen3_moe", **fields | changes)


def gemma2(**changes: Any) -> Fields:
    """A Gemma 2 whose first and last layer slide."""
    fields = {"sliding_window": 5, "query_pre_attn_scalar": 20, "pad_token_id": 0}
    return like_llama("gemma2", **fields | changes)


def gemma3(**changes: Any) -> Fields:
    """A Gemma 3 whose every other layer slides."""
    fields = {
        "sliding_window": 5,
        "sliding_window_pattern": 2,
        "query_pre_attn_scalar": 20,
        "pad_token_id": 0,
    }
    return like_llama("gemma3_text", **fields | changes)


def phi3_longrope(original: int) -> Fields:
    """A Phi-3 that stretches what is longer than `original` tokens."""
    return like_llama(
        "phi3",
        pad_token_id=0,
        original_max_position_embeddings=original,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10_000.0,
            "short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5],
            "long_factor": [1.0, 2.0, 4.0, 8.0, 12.0, 16.0],
        },
    )


def deepseek(model_type: str, **changes: Any) -> Fields:
    """A DeepSeek of one dense layer and two of six experts in three groups."""
    fields = {
        "num_attention_heads": 5,
        "num_key_value_heads": 5,
        "kv_lora_rank": 14,
        "q_lora_rank": 18,
        "qk_nope_head_dim": 10,
        "qk_rope_head_dim": 6,
        "v_head_dim": 9,
        "n_routed_experts": 6,
        "num_experts_per_tok": 3,
        "n_group": 3,
        "topk_group": 2,
        "n_shared_experts": 1,
        "moe_intermediate_size": 20,
        "first_k_dense_replace": 1,
        "num_nextn_predict_layers": 0,
    }
    without = {name: value for name, value in llama().items() if name != "head_dim"}
    return without | fields | {"model_type": model_type} | changes


def gptj(**changes: Any) -> Fields:
    """A GPT-J of three layers."""
    fields = {
        "model_type": "gptj",
        "n_embd": 36,
        "n_layer": 3,
        "n_head": 3,
        "n_positions": 128,
        "rotary_dim": 8,
        "vocab_size": VOCABULARY,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }
    return fields | changes


def falcon(**changes: Any) -> Fields:
    """A Falcon of three layers."""
    fields = {
        "model_type": "falcon",
        "hidden_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 128,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return fields | changes


GROUPED = {"num_attention_heads": 6, "num_key_value_heads": 3}

DECODERS: dict[str, Fields] = families.DECODERS | {
    "gpt-neox": gpt_neox(),
    "gpt-neox-in-line": gpt_neox(use_parallel_residual=False, attention_bias=False),
    "gpt-neox-whole": gpt_neox(
        hidden_act="relu",
        rope_parameters={
            "rope_type": "linear",
            "rope_theta": 500.0,
            "factor": 2.0,
            "partial_rotary_factor": 1.0,
        },
    ),
    "bloom": bloom(),
    "bloom-7-heads": bloom(n_head=7, hidden_size=42),
    "bloom-12-heads": bloom(n_head=12, tie_word_embeddings=False),
    "bloom-skip-normed": bloom(n_head=3, apply_residual_connection_post_layernorm=True),
    "mistral": like_llama("mistral", sliding_window=5),
    "mistral-no-window": like_llama("mistral", sliding_window=None, num_key_value_heads=5),
    "qwen2": like_llama("qwen2"),
    "qwen2-window": like_llama(
        "qwen2", use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "qwen2-types": like_llama(
        "qwen2",
        use_sliding_window=True,
        sliding_window=6,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
    "qwen3": like_llama("qwen3", head_dim=16),
    "qwen3-biases": like_llama(
        "qwen3", attention_bias=True, use_sliding_window=True, sliding_window=4, max_window_layers=2
    ),
    "mixtral": like_llama("mixtral", num_local_experts=5),
    "mixtral-3-of-4": like_llama(
        "mixtral",
        num_local_experts=4,
        num_experts_per_tok=3,
        sliding_window=5,
        num_key_value_heads=5,
        tie_word_embeddings=True,
    ),
    "qwen3-moe": qwen3_moe(),
    "qwen3-moe-normalised": qwen3_moe(norm_topk_prob=True, mlp_only_layers=[1]),
    "qwen3-moe-every-other": qwen3_moe(
        decoder_sparse_step=2, use_sliding_window=True, sliding_window=5, num_experts_per_tok=1
    ),
    "gemma": like_llama("gemma", pad_token_id=0),
    "gemma-old-name": like_llama("gemma", pad_token_id=0, hidden_act="gelu", attention_bias=True),
    "gemma2": gemma2(),
    "gemma2-uncapped": gemma2(
        attn_logit_softcapping=None, final_logit_softcapping=None, hidden_activation="silu"
    ),
    "gemma2-types": gemma2(
        attn_logit_softcapping=2.0,
        layer_types=["full_attention", "full_attention", "sliding_attention"],
    ),
    "gemma3": gemma3(),
    "gemma3-types": gemma3(
        layer_types=["full_attention", "sliding_attention", "full_attention"],
        num_key_value_heads=5,
        final_logit_softcapping=3.0,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        },
    ),
    "phi3": like_llama("phi3", pad_token_id=0),
    "phi3-window": like_llama(
        "phi3", pad_token_id=0, num_key_value_heads=5, sliding_window=5, head_dim=12
    ),
    "phi3-partial": like_llama(
        "phi3", pad_token_id=0, **rope("default", partial_rotary_factor=0.5)
    ),
    "phi3-longrope": phi3_longrope(original=64),
    "phi3-longrope-dynamic": phi3_longrope(original=16),
    "deepseek-v2": deepseek("deepseek_v2", q_lora_rank=None, first_k_dense_replace=0),
    "deepseek-v2-groups": deepseek(
        "deepseek_v2",
        topk_method="group_limited_greedy",
        routed_scaling_factor=3.0,
        attention_bias=True,
        mlp_bias=True,
        n_shared_experts=2,
    ),
    "deepseek-v3": deepseek("deepseek_v3"),
    "deepseek-v3-no-waist": deepseek(
        "deepseek_v3",
        q_lora_rank=None,
        rope_interleave=False,
        norm_topk_prob=False,
        n_group=1,
        topk_group=1,
        attention_bias=True,
        first_k_dense_replace=2,
    ),
    "deepseek-v3-yarn": deepseek(
        "deepseek_v3",
        **rope(
            "yarn",
            factor=4.0,
            original_max_position_embeddings=32,
            mscale=1.0,
            mscale_all_dim=0.7,
        ),
    ),
    "olmo2": like_llama("olmo2", pad_token_id=None),
    "olmo2-grouped": like_llama("olmo2", pad_token_id=None, head_dim=10, **GROUPED),
    "granite": like_llama(
        "granite",
        embedding_multiplier=3.0,
        residual_multiplier=0.5,
        attention_multiplier=0.25,
        logits_scaling=4.0,
    ),
    "smollm3": like_llama("smollm3", pad_token_id=0, no_rope_layer_interval=2),
    "smollm3-window": like_llama(
        "smollm3",
        pad_token_id=0,
        no_rope_layers=[0, 1, 1],
        use_sliding_window=True,
        sliding_window=5,
        attention_bias=True,
    ),
    "stablelm": like_llama("stablelm", **rope("default", partial_rotary_factor=0.5)),
    "stablelm-parallel": like_llama(
        "stablelm",
        use_qkv_bias=True,
        use_parallel_residual=True,
        **rope("default", partial_rotary_factor=0.5),
    ),
    "cohere": like_llama("cohere", logit_scale=0.25, pad_token_id=0),
    "cohere-biases": like_llama("cohere", attention_bias=True, pad_token_id=0),
    "gptj": gptj(),
    "gptj-whole": gptj(rotary_dim=12, n_inner=50, activation_function="relu"),
    "falcon": falcon(),
    "falcon-newer": falcon(new_decoder_architecture=True, num_kv_heads=2, num_attention_heads=4),
    "falcon-one-norm": falcon(
        new_decoder_architecture=True,
        num_kv_heads=2,
        num_attention_heads=4,
        num_ln_in_parallel_attn=1,
        bias=True,
    ),
    "falcon-in-line": falcon(multi_query=False, parallel_attn=False, bias=True),
}
