"""Published shapes of decoders, as the fields of their config.json."""

from __future__ import annotations

from typing import Any

Fields = dict[str, Any]


def _gpt2(width: int, layers: int, heads: int, **more: Any) -> Fields:
    fields = {"model_type": "gpt2", "n_embd": width, "n_layer": layers, "n_head": heads}
    return fields | {"vocab_size": 50257, "n_positions": 1024} | more


def _llama(
    model_type: str,
    width: int,
    inner: int,
    layers: int,
    heads: tuple[int, int],
    vocabulary: int,
    **more: Any,
) -> Fields:
    """Llama's kind; `heads` of queries and of keys."""
    return {
        "model_type": model_type,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "vocab_size": vocabulary,
    } | more


def _deepseek(model_type: str, width: int, layers: int, vocabulary: int, **more: Any) -> Fields:
    return {
        "model_type": model_type,
        "hidden_size": width,
        "num_hidden_layers": layers,
        "vocab_size": vocabulary,
        "num_attention_heads": 128,
        "kv_lora_rank": 512,
        "q_lora_rank": 1536,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "v_head_dim": 128,
        "max_position_embeddings": 163_840,
        "rms_norm_eps": 1e-6,
    } | more


DECODERS: dict[str, Fields] = {
    "gpt2": _gpt2(768, 12, 12),
    "gpt2-medium": _gpt2(1024, 24, 16),
    "gpt2-large": _gpt2(1280, 36, 20),
    "gpt2-xl": _gpt2(1600, 48, 25),
    # The paper says that every other layer is locally banded, but not how wide the band is.
    "gpt3-175b": _gpt2(
        12288,
        96,
        96,
        n_positions=2048,
        limner_sparse_attention={"layers": list(range(1, 96, 2)), "band": 256},
    ),
    "gpt-neox-20b": {
        "model_type": "gpt_neox",
        "hidden_size": 6144,
        "intermediate_size": 24576,
        "num_hidden_layers": 44,
        "num_attention_heads": 64,
        "vocab_size": 50432,
        "max_position_embeddings": 2048,
        "rotary_pct": 0.25,
        "hidden_act": "gelu_fast",
    },
    "bloom-176b": {
        "model_type": "bloom",
        "hidden_size": 14336,
        "n_layer": 70,
        "n_head": 112,
        "vocab_size": 250_880,
    },
    "llama-7b": _llama("llama", 4096, 11008, 32, (32, 32), 32000),
    "llama-65b": _llama("llama", 8192, 22016, 80, (64, 64), 32000),
    "llama-2-7b": _llama(
        "llama", 4096, 11008, 32, (32, 32), 32000, max_position_embeddings=4096, rms_norm_eps=1e-5
    ),
    "llama-2-70b": _llama(
        "llama", 8192, 28672, 80, (64, 8), 32000, max_position_embeddings=4096, rms_norm_eps=1e-5
    ),
    "llama-3-8b": _llama(
        "llama",
        4096,
        14336,
        32,
        (32, 8),
        128_256,
        max_position_embeddings=8192,
        rope_theta=5e5,
        rms_norm_eps=1e-5,
    ),
    "llama-3-70b": _llama(
        "llama",
        8192,
        28672,
        80,
        (64, 8),
        128_256,
        max_position_embeddings=8192,
        rope_theta=5e5,
        rms_norm_eps=1e-5,
    ),
    "smollm2-135m": _llama(
        "llama",
        576,
        1536,
        30,
        (9, 3),
        49152,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
        rope_theta=1e5,
        rms_norm_eps=1e-5,
    ),
    "mistral-7b": _llama(
        "mistral",
        4096,
        14336,
        32,
        (32, 8),
        32000,
        sliding_window=4096,
        max_position_embeddings=32768,
        rms_norm_eps=1e-5,
    ),
    "mixtral-8x7b": _llama(
        "mixtral",
        4096,
        14336,
        32,
        (32, 8),
        32000,
        num_local_experts=8,
        num_experts_per_tok=2,
        rope_theta=1e6,
        max_position_embeddings=32768,
    ),
    "qwen2.5-7b": _llama(
        "qwen2",
        3584,
        18944,
        28,
        (28, 4),
        152_064,
        rope_theta=1e6,
        max_position_embeddings=131_072,
        rms_norm_eps=1e-6,
    ),
    "qwen3-8b": _llama(
        "qwen3",
        4096,
        12288,
        36,
        (32, 8),
        151_936,
        head_dim=128,
        rope_theta=1e6,
        max_position_embeddings=40960,
        rms_norm_eps=1e-6,
    ),
    "qwen3-30b-a3b": _llama(
        "qwen3_moe",
        2048,
        6144,
        48,
        (32, 4),
        151_936,
        head_dim=128,
        num_experts=128,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
        norm_topk_prob=True,
        rope_theta=1e6,
        max_position_embeddings=40960,
    ),
    "gemma-7b": _llama("gemma", 3072, 24576, 28, (16, 16), 256_000, head_dim=256),
    "gemma-2-9b": _llama(
        "gemma2", 3584, 14336, 42, (16, 8), 256_000, head_dim=256, query_pre_attn_scalar=256
    ),
    "gemma-3-1b": _llama(
        "gemma3_text",
        1152,
        6912,
        26,
        (4, 1),
        262_144,
        head_dim=256,
        sliding_window=512,
        max_position_embeddings=32768,
    ),
    "phi-3-mini": _llama("phi3", 3072, 8192, 32, (32, 32), 32064, sliding_window=2047),
    "deepseek-v2": _deepseek(
        "deepseek_v2",
        5120,
        60,
        102_400,
        intermediate_size=12288,
        moe_intermediate_size=1536,
        n_routed_experts=160,
        n_shared_experts=2,
        num_experts_per_tok=6,
        first_k_dense_replace=1,
        topk_method="group_limited_greedy",
        n_group=8,
        topk_group=3,
        routed_scaling_factor=16.0,
    ),
    # Without its predictor of the token after next, whose 14B are not among the 671B.
    "deepseek-v3": _deepseek(
        "deepseek_v3",
        7168,
        61,
        129_280,
        intermediate_size=18432,
        moe_intermediate_size=2048,
        n_routed_experts=256,
        n_shared_experts=1,
        num_experts_per_tok=8,
        first_k_dense_replace=3,
        n_group=8,
        topk_group=4,
        routed_scaling_factor=2.5,
        num_nextn_predict_layers=0,
    ),
}
