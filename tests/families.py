"""Tiny models of every decoder family, as the fields of a config.json.

Odd shapes on purpose: widths that are no powers of two, one or few key-value heads, tied and not.
A new family is an entry here; the parity and contract tests run over all of them.
"""

from typing import Any

Fields = dict[str, Any]

VOCABULARY = 97


def llama(**changes: Any) -> Fields:
    """A Llama of three layers with five query heads on one key-value head."""
    fields = {
        "model_type": "llama",
        "hidden_size": 60,
        "intermediate_size": 100,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "num_key_value_heads": 1,
        "head_dim": 12,
        "max_position_embeddings": 128,
        "vocab_size": VOCABULARY,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    return fields | changes


def gpt2(**changes: Any) -> Fields:
    """A GPT-2 of three layers."""
    fields = {
        "model_type": "gpt2",
        "n_embd": 36,
        "n_layer": 3,
        "n_head": 3,
        "n_positions": 128,
        "vocab_size": VOCABULARY,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    }
    return fields | changes


def rope(kind: str, **settings: Any) -> Fields:
    """The rotary settings of a config.json of transformers 5."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10_000.0, **settings}}


DECODERS: dict[str, Fields] = {
    "llama": llama(),
    "llama-tied": llama(tie_word_embeddings=True, num_key_value_heads=5),
    "llama-grouped": llama(
        num_attention_heads=6, num_key_value_heads=3, head_dim=8, hidden_size=36, rms_norm_eps=1e-3
    ),
    "llama-biases": llama(attention_bias=True, mlp_bias=True, hidden_act="gelu"),
    "llama-theta": llama(**rope("default", rope_theta=500_000.0)),
    "llama-linear": llama(**rope("linear", factor=4.0)),
    "llama-dynamic": llama(max_position_embeddings=16, **rope("dynamic", factor=2.0)),
    "llama-yarn": llama(**rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    "llama-llama3": llama(
        **rope(
            "llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        )
    ),
    "gpt2": gpt2(),
    "gpt2-untied": gpt2(
        tie_word_embeddings=False, n_inner=50, n_embd=50, n_head=5, activation_function="relu"
    ),
    "gpt2-by-layer": gpt2(scale_attn_by_inverse_layer_idx=True),
}


def bert(**changes: Any) -> Fields:
    """A BERT of three layers."""
    fields = {
        "model_type": "bert",
        "architectures": ["BertForPreTraining"],
        "hidden_size": 42,
        "intermediate_size": 70,
        "num_hidden_layers": 3,
        "num_attention_heads": 3,
        "max_position_embeddings": 40,
        "vocab_size": VOCABULARY,
        "type_vocab_size": 2,
    }
    return fields | changes


#: What a family has that BERT has not.
ENCODER_OPTIONS: dict[str, Fields] = {
    "roberta": {"pad_token_id": 1},
    "electra": {"embedding_size": 18},
    "albert": {"embedding_size": 18, "num_hidden_groups": 2, "num_hidden_layers": 4}
    | {"inner_group_num": 1},
    "distilbert": {"dim": 42, "hidden_dim": 70, "n_layers": 3, "n_heads": 3},
}
ENCODER_ARCHITECTURES: dict[str, list[str]] = {
    "roberta": [
        "RobertaModel",
        "RobertaForMaskedLM",
        "RobertaForSequenceClassification",
        "RobertaForMultipleChoice",
        "RobertaForTokenClassification",
        "RobertaForQuestionAnswering",
    ],
    "distilbert": [
        "DistilBertModel",
        "DistilBertForMaskedLM",
        "DistilBertForSequenceClassification",
        "DistilBertForMultipleChoice",
        "DistilBertForTokenClassification",
        "DistilBertForQuestionAnswering",
    ],
    "electra": [
        "ElectraModel",
        "ElectraForMaskedLM",
        "ElectraForPreTraining",
        "ElectraForSequenceClassification",
        "ElectraForTokenClassification",
        "ElectraForQuestionAnswering",
    ],
    "albert": [
        "AlbertModel",
        "AlbertForMaskedLM",
        "AlbertForPreTraining",
        "AlbertForSequenceClassification",
        "AlbertForMultipleChoice",
        "AlbertForQuestionAnswering",
    ],
}
ENCODERS: dict[str, Fields] = {
    "bert": bert(architectures=["BertModel"]),
    "bert-pretraining": bert(),
    "bert-masked": bert(architectures=["BertForMaskedLM"], hidden_act="relu"),
    "bert-sequence": bert(architectures=["BertForSequenceClassification"], num_labels=5),
    "bert-tokens": bert(architectures=["BertForTokenClassification"], num_labels=4),
    "bert-span": bert(architectures=["BertForQuestionAnswering"]),
    "bert-choice": bert(architectures=["BertForMultipleChoice"]),
    "bert-next": bert(architectures=["BertForNextSentencePrediction"]),
}
ENCODERS |= {
    architecture: bert(model_type=family, architectures=[architecture], **ENCODER_OPTIONS[family])
    for family, architectures in ENCODER_ARCHITECTURES.items()
    for architecture in architectures
}


def deberta(architecture: str, **changes: Any) -> Fields:
    """A DeBERTa of version 3 whose texts are longer than its exact distances."""
    fields = {
        "relative_attention": True,
        "position_biased_input": False,
        "pos_att_type": ["p2c", "c2p"],
        "position_buckets": 6,
        "max_relative_positions": -1,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "type_vocab_size": 0,
        "legacy": False,
    }
    return bert(model_type="deberta-v2", architectures=[architecture], **fields | changes)


ENCODERS |= {
    "deberta": deberta("DebertaV2Model"),
    "deberta-masked": deberta("DebertaV2ForMaskedLM"),
    "deberta-legacy": deberta("DebertaV2ForMaskedLM", legacy=True),
    "deberta-narrow": deberta("DebertaV2ForMaskedLM", legacy=True, embedding_size=18),
    "deberta-unbucketed": deberta("DebertaV2Model", position_buckets=-1, max_relative_positions=9),
    "deberta-unshared": deberta(
        "DebertaV2ForSequenceClassification",
        share_att_key=False,
        position_biased_input=True,
        type_vocab_size=2,
        norm_rel_ebd="none",
    ),
    "deberta-content": deberta(
        "DebertaV2ForTokenClassification", pos_att_type=["c2p"], share_att_key=False
    ),
    "deberta-position": deberta(
        "DebertaV2ForQuestionAnswering", pos_att_type=["p2c"], share_att_key=False
    ),
    "deberta-convolution": deberta(
        "DebertaV2ForMultipleChoice", conv_kernel_size=3, conv_act="gelu", conv_groups=2
    ),
}


def t5(**changes: Any) -> Fields:
    """A T5 that reads with three layers and writes with two."""
    fields = {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        "d_model": 36,
        "d_kv": 10,
        "d_ff": 50,
        "num_layers": 3,
        "num_decoder_layers": 2,
        "num_heads": 3,
        "relative_attention_num_buckets": 12,
        "relative_attention_max_distance": 20,
        "vocab_size": VOCABULARY,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    return fields | changes


def bart(**changes: Any) -> Fields:
    """A BART that reads with three layers and writes with two."""
    fields = {
        "model_type": "bart",
        "architectures": ["BartForConditionalGeneration"],
        "d_model": 36,
        "encoder_layers": 3,
        "encoder_attention_heads": 3,
        "encoder_ffn_dim": 50,
        "decoder_layers": 2,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 44,
        "max_position_embeddings": 40,
        "vocab_size": VOCABULARY,
        "decoder_start_token_id": 2,
        "pad_token_id": 1,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "dropout": 0.0,
    }
    return fields | changes


ENCODER_DECODERS: dict[str, Fields] = {
    "t5": t5(),
    "t5-1.1": t5(feed_forward_proj="gated-gelu", tie_word_embeddings=False),
    "mt5": t5(
        model_type="mt5",
        architectures=["MT5ForConditionalGeneration"],
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    ),
    "bart": bart(scale_embedding=True),
    "mbart": bart(model_type="mbart", architectures=["MBartForConditionalGeneration"]),
    "marian": bart(
        model_type="marian", architectures=["MarianMTModel"], activation_function="swish"
    ),
}
