"""DistilBERT (Sanh et al. 2019): BERT without token types and pooler."""

from limner.models.families.encoder_words import EncoderWords

PREFIX = "distilbert."
LAYER = {
    "attention.q_lin": "mixer.query",
    "attention.k_lin": "mixer.key",
    "attention.v_lin": "mixer.value",
    "attention.out_lin": "mixer.output",
    "sa_layer_norm": "mix.after",
    "ffn.lin1": "feedforward.up",
    "ffn.lin2": "feedforward.down",
    "output_layer_norm": "feed.after",
}
CLASSIFIER = {"pre_classifier": "dense", "classifier": "output"}

WORDS = EncoderWords(
    family="distilbert",
    modules={"distilbert.embeddings.LayerNorm": "embedding.norm"}
    | {
        f"distilbert.transformer.layer.{{}}.{their}": f"blocks.{{}}.{our}"
        for their, our in LAYER.items()
    },
    tables={
        "distilbert.embeddings.word_embeddings.weight": "embedding.tokens.weight",
        "distilbert.embeddings.position_embeddings.weight": "embedding.positions.weight",
    },
    architectures={
        "DistilBertModel": (),
        "DistilBertForMaskedLM": ("masked",),
        "DistilBertForSequenceClassification": ("sequence",),
        "DistilBertForMultipleChoice": ("choice",),
        "DistilBertForTokenClassification": ("tokens",),
        "DistilBertForQuestionAnswering": ("span",),
    },
    heads={
        "masked": {"vocab_transform": "dense", "vocab_layer_norm": "norm"},
        "sequence": CLASSIFIER,
        "choice": CLASSIFIER,
        "tokens": {"classifier": "output"},
        "span": {"qa_outputs": "output"},
    },
    bends={"sequence": "relu", "choice": "relu"},
    vocabulary_bias="vocab_projector.bias",
    vocabulary_weight="vocab_projector.weight",
    words={
        "width": "dim",
        "inner": "hidden_dim",
        "layers": "n_layers",
        "heads": "n_heads",
        "activation": "activation",
    },
    token_types=False,
)
read_config, write_config = WORDS.read_config, WORDS.write_config
translations = WORDS.translations
