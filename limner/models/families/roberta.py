"""RoBERTa (Liu et al. 2019)."""

from limner.models.families.bert import modules, tables
from limner.models.families.encoder_words import EncoderWords

PREFIX = "roberta."
CLASSIFIER = {"classifier.dense": "dense", "classifier.out_proj": "output"}

WORDS = EncoderWords(
    family="roberta",
    modules=modules(PREFIX),
    tables=tables(PREFIX),
    architectures={
        "RobertaModel": ("pooled",),
        "RobertaForMaskedLM": ("masked",),
        "RobertaForSequenceClassification": ("sequence",),
        "RobertaForMultipleChoice": ("choice",),
        "RobertaForTokenClassification": ("tokens",),
        "RobertaForQuestionAnswering": ("span",),
    },
    heads={
        "masked": {"lm_head.dense": "dense", "lm_head.layer_norm": "norm"},
        "pooled": {"roberta.pooler.dense": "dense"},
        "sequence": CLASSIFIER,
        "choice": {"roberta.pooler.dense": "dense", "classifier": "output"},
        "tokens": {"classifier": "output"},
        "span": {"qa_outputs": "output"},
    },
    bends={"masked": "gelu", "pooled": "tanh", "sequence": "tanh", "choice": "tanh"},
    vocabulary_bias="lm_head.bias",
    vocabulary_weight="lm_head.decoder.weight",
    unused_positions=2,  # the places of <s> and of padding in its vocabulary, kept from fairseq
)
read_config, write_config = WORDS.read_config, WORDS.write_config
translations = WORDS.translations
