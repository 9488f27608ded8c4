"""ELECTRA (Clark et al. 2020): a generator fills masks, a discriminator finds them out."""

from limner.models.families.bert import modules, tables
from limner.models.families.encoder_words import EncoderWords

PREFIX = "electra."
CLASSIFIER = {"classifier.dense": "dense", "classifier.out_proj": "output"}

WORDS = EncoderWords(
    family="electra",
    modules=modules(PREFIX) | {"electra.embeddings_project": "embedding.project"},
    tables=tables(PREFIX),
    architectures={
        "ElectraModel": (),
        "ElectraForMaskedLM": ("masked",),
        "ElectraForPreTraining": ("replaced",),
        "ElectraForSequenceClassification": ("sequence",),
        "ElectraForTokenClassification": ("tokens",),
        "ElectraForQuestionAnswering": ("span",),
    },
    heads={
        "masked": {
            "generator_predictions.dense": "dense",
            "generator_predictions.LayerNorm": "norm",
        },
        "replaced": {
            "discriminator_predictions.dense": "dense",
            "discriminator_predictions.dense_prediction": "output",
        },
        "sequence": CLASSIFIER,
        "tokens": {"classifier": "output"},
        "span": {"qa_outputs": "output"},
    },
    bends={"masked": "gelu", "sequence": "gelu"},
    vocabulary_bias="generator_lm_head.bias",
    vocabulary_weight="generator_lm_head.weight",
    factorised=True,
)
read_config, write_config = WORDS.read_config, WORDS.write_config
translations = WORDS.translations
