"""BERT (Devlin et al. 2018), and encoders of its shape such as MiniLM (Wang et al. 2020)."""

from limner.models.families.encoder_words import EncoderWords

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
