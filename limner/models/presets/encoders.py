"""Published shapes of encoders, as the fields of their config.json."""

from __future__ import annotations

from typing import Any

Fields = dict[str, Any]


def _bert(width: int, layers: int, heads: int, **more: Any) -> Fields:
    return {
        "model_type": "bert",
        "architectures": ["BertModel"],
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
    } | more


def _roberta(width: int, layers: int, heads: int) -> Fields:
    return _bert(
        width,
        layers,
        heads,
        model_type="roberta",
        architectures=["RobertaModel"],
        vocab_size=50265,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )


def _electra(width: int, layers: int, heads: int, embedding: int) -> Fields:
    names = {"model_type": "electra", "architectures": ["ElectraForPreTraining"]}
    return _bert(width, layers, heads, embedding_size=embedding, **names)


def _deberta(width: int, layers: int, heads: int) -> Fields:
    return _bert(
        width,
        layers,
        heads,
        model_type="deberta-v2",
        architectures=["DebertaV2Model"],
        vocab_size=128_100,
        type_vocab_size=0,
        layer_norm_eps=1e-7,
        relative_attention=True,
        position_buckets=256,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        max_relative_positions=-1,
    )


ENCODERS: dict[str, Fields] = {
    "bert-base": _bert(768, 12, 12),
    "bert-large": _bert(1024, 24, 16),
    "roberta-base": _roberta(768, 12, 12),
    "roberta-large": _roberta(1024, 24, 16),
    "distilbert-base": {
        "model_type": "distilbert",
        "architectures": ["DistilBertModel"],
        "dim": 768,
        "hidden_dim": 3072,
        "n_layers": 6,
        "n_heads": 12,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
    },
    "albert-base": _bert(
        768,
        12,
        12,
        model_type="albert",
        architectures=["AlbertModel"],
        embedding_size=128,
        vocab_size=30000,
        hidden_act="gelu_new",
        num_hidden_groups=1,
        inner_group_num=1,
    ),
    "electra-small": _electra(256, 12, 4, embedding=128),
    "electra-base": _electra(768, 12, 12, embedding=768),
    "deberta-v3-base": _deberta(768, 12, 12),
    "deberta-v3-large": _deberta(1024, 24, 16),
}
