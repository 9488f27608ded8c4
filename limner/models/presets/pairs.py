"""Published shapes of encoder-decoders, as the fields of their config.json."""

from __future__ import annotations

from typing import Any

Fields = dict[str, Any]


def _t5(width: int, inner: int, layers: int, heads: int, **more: Any) -> Fields:
    return {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "d_model": width,
        "d_kv": 64,
        "d_ff": inner,
        "num_layers": layers,
        "num_heads": heads,
        "vocab_size": 32128,
    } | more


def _bart(width: int, layers: int, heads: int, **more: Any) -> Fields:
    sizes = {
        f"{side}_{name}": size
        for side in ("encoder", "decoder")
        for name, size in (
            ("layers", layers),
            ("attention_heads", heads),
            ("ffn_dim", 4 * width),
        )
    }
    return {
        "model_type": "bart",
        "architectures": ["BartForConditionalGeneration"],
        "d_model": width,
        "vocab_size": 50265,
        "max_position_embeddings": 1024,
        **sizes,
    } | more


PAIRS: dict[str, Fields] = {
    "transformer-base": {
        "model_type": "limner_transformer",
        "d_model": 512,
        "d_ff": 2048,
        "encoder_layers": 6,
        "decoder_layers": 6,
        "num_heads": 8,
        "vocab_size": 37000,
        "max_position_embeddings": 1024,
    },
    "t5-small": _t5(512, 2048, 6, 8),
    "t5-base": _t5(768, 3072, 12, 12),
    "t5-1.1-base": _t5(
        768, 2048, 12, 12, feed_forward_proj="gated-gelu", tie_word_embeddings=False
    ),
    "mt5-small": _t5(
        512,
        1024,
        8,
        6,
        model_type="mt5",
        vocab_size=250_112,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    ),
    "bart-base": _bart(768, 6, 12),
    "bart-large": _bart(1024, 12, 16),
    "mbart-large": _bart(
        1024, 12, 16, model_type="mbart", vocab_size=250_027, scale_embedding=True
    ),
    "marian-en-de": _bart(
        512,
        6,
        8,
        model_type="marian",
        vocab_size=58101,
        max_position_embeddings=512,
        activation_function="swish",
        scale_embedding=True,
    ),
}
