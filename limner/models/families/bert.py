"""BERT (Devlin et al. 2018), and encoders of its shape such as MiniLM (Wang et al. 2020)."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from limner.models.encoder import EncoderConfig
from limner.models.families.encoder_words import EncoderWords, both
from limner.models.families.gguf_fields import GGUFFields
from limner.models.families.gguf_header import GGUFHeader
from limner.models.translation import Translation, renamed
from limner.nn.attention import AttentionConfig
from limner.nn.feedforward import FeedForwardConfig
from limner.nn.norms import NormConfig

log = logging.getLogger(__name__)

PREFIX = "bert."
#: Within a layer; RoBERTa and ELECTRA use the same words.
LAYER = {
    "attention.self.query": "mixer.query",
    "attention.self.key": "mixer.key",
    "attention.self.value": "mixer.value",
    "attention.output.dense": "mixer.output",
    "attention.output.LayerNorm": "mix.after",
    "intermediate.dense": "feedforward.up",
    "output.dense": "feedforward.down",
    "output.LayerNorm": "feed.after",
}
POOLER = {"bert.pooler.dense": "dense"}


def modules(prefix: str) -> dict[str, str]:
    """Their modules and ours, for a model whose names begin with `prefix`."""
    names = {f"{prefix}embeddings.LayerNorm": "embedding.norm"}
    return names | {
        f"{prefix}encoder.layer.{{}}.{their}": f"blocks.{{}}.{our}" for their, our in LAYER.items()
    }


def tables(prefix: str) -> dict[str, str]:
    """Their tables of vectors and ours, for a model whose names begin with `prefix`."""
    return {
        f"{prefix}embeddings.word_embeddings.weight": "embedding.tokens.weight",
        f"{prefix}embeddings.position_embeddings.weight": "embedding.positions.weight",
        f"{prefix}embeddings.token_type_embeddings.weight": "embedding.types.weight",
    }


WORDS = EncoderWords(
    family="bert",
    modules=modules(PREFIX),
    tables=tables(PREFIX),
    architectures={
        "BertModel": ("pooled",),
        "BertForMaskedLM": ("masked",),
        "BertForNextSentencePrediction": ("next_sentence",),
        "BertForPreTraining": ("masked", "next_sentence"),
        "BertForSequenceClassification": ("sequence",),
        "BertForMultipleChoice": ("choice",),
        "BertForTokenClassification": ("tokens",),
        "BertForQuestionAnswering": ("span",),
    },
    heads={
        "masked": {
            "cls.predictions.transform.dense": "dense",
            "cls.predictions.transform.LayerNorm": "norm",
        },
        "next_sentence": POOLER | {"cls.seq_relationship": "output"},
        "pooled": POOLER,
        "sequence": POOLER | {"classifier": "output"},
        "choice": POOLER | {"classifier": "output"},
        "tokens": {"classifier": "output"},
        "span": {"qa_outputs": "output"},
    },
    bends={"next_sentence": "tanh", "pooled": "tanh", "sequence": "tanh", "choice": "tanh"},
    vocabulary_bias="cls.predictions.bias",
    vocabulary_weight="cls.predictions.decoder.weight",
)
read_config, write_config = WORDS.read_config, WORDS.write_config
translations = WORDS.translations

GGUF_TABLES = {
    "token_embd.weight": "embedding.tokens.weight",
    "position_embd.weight": "embedding.positions.weight",
    "token_types.weight": "embedding.types.weight",
}
GGUF_MODULES = {
    "token_embd_norm": "embedding.norm",
    "blk.{}.attn_q": "blocks.{}.mixer.query",
    "blk.{}.attn_k": "blocks.{}.mixer.key",
    "blk.{}.attn_v": "blocks.{}.mixer.value",
    "blk.{}.attn_output": "blocks.{}.mixer.output",
    "blk.{}.attn_output_norm": "blocks.{}.mix.after",
    "blk.{}.ffn_up": "blocks.{}.feedforward.up",
    "blk.{}.ffn_down": "blocks.{}.feedforward.down",
    "blk.{}.layer_output_norm": "blocks.{}.feed.after",
}
#: Heads that guess at words or sum up a text beside the hidden vectors, which are what a GGUF file
#: of an encoder is for; those of classifiers are what the model is for.
BESIDES = {"masked", "next_sentence", "pooled"}
TYPE_COUNT = "tokenizer.ggml.token_type_count"


def read_gguf(file: GGUFFields) -> EncoderConfig:
    """Our config from the metadata of a GGUF file, which has no heads."""
    return WORDS.read_config(
        {
            "architectures": [],
            "hidden_size": file.value("embedding_length"),
            "num_hidden_layers": file.value("block_count"),
            "num_attention_heads": file.value("attention.head_count"),
            "intermediate_size": file.value("feed_forward_length"),
            "layer_norm_eps": file.value("attention.layer_norm_epsilon"),
            "max_position_embeddings": file.rows("position_embd.weight"),
            "vocab_size": file.rows("token_embd.weight"),
            "type_vocab_size": file.rows("token_types.weight"),
        }
    )


def write_gguf(config: EncoderConfig) -> GGUFHeader:
    """The header of a GGUF file; ValueError for what llama.cpp would do otherwise.

    Only the encoder is written: llama.cpp gives vectors of texts.
    """
    norm, block = config.embedding.norm, config.blocks[0]
    attention, feedforward = block.mixer, block.feedforward
    assert isinstance(attention, AttentionConfig)
    assert isinstance(feedforward, FeedForwardConfig)
    assert isinstance(norm, NormConfig)
    _refuse_other_kinds(config, feedforward)
    values = {
        "context_length": config.context,
        "embedding_length": config.width,
        "block_count": len(config.blocks),
        "vocab_size": config.vocabulary,
        "feed_forward_length": feedforward.width,
        "attention.head_count": attention.heads,
        "attention.layer_norm_epsilon": norm.epsilon,
        "attention.causal": False,
    }
    metadata = {f"bert.{name}": value for name, value in values.items()}
    types = {TYPE_COUNT: config.embedding.token_types}
    return GGUFHeader({"general.architecture": "bert"} | metadata | types)


def _refuse_other_kinds(config: EncoderConfig, feedforward: FeedForwardConfig) -> None:
    if feedforward.activation != "gelu":
        raise ValueError(
            f"the feed-forward bends by '{feedforward.activation}' but llama.cpp would take 'gelu'"
            ": this model has no GGUF form"
        )
    lost = sorted(config.heads)
    if not BESIDES.issuperset(lost):
        raise ValueError(
            f"a GGUF file of an encoder has no place for the head '{', '.join(lost)}': "
            "write the encoder alone"
        )
    if lost:
        log.warning("a GGUF file of an encoder has no place for heads: without %s", ", ".join(lost))


def gguf_translations(config: EncoderConfig) -> Iterator[Translation]:
    """Every tensor of a GGUF file and the parameters it makes."""
    names = dict(GGUF_TABLES)
    for theirs, ours in GGUF_MODULES.items():
        names |= both(theirs, ours)
    return renamed(names, len(config.blocks))
