"""DeBERTa versions 2 and 3 (He et al. 2020 and 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from limner.models.block import BlockConfig, ResidualConfig
from limner.models.encoder import EncoderConfig
from limner.models.families.encoder_words import EncoderWords
from limner.models.families.fields import read_activation, write_activation
from limner.models.heads import ClassifierConfig, LanguageHeadConfig
from limner.models.translation import Translation
from limner.nn.attention import AttentionConfig
from limner.nn.convolution import ConvolutionConfig
from limner.nn.disentangled import DisentangledConfig, DistanceVectorsConfig

PREFIX = "deberta."
LAYER = {
    "attention.self.query_proj": "mixer.query",
    "attention.self.key_proj": "mixer.key",
    "attention.self.value_proj": "mixer.value",
    "attention.self.pos_key_proj": "mixer.position_key",
    "attention.self.pos_query_proj": "mixer.position_query",
    "attention.output.dense": "mixer.output",
    "attention.output.LayerNorm": "mix.after",
    "intermediate.dense": "feedforward.up",
    "output.dense": "feedforward.down",
    "output.LayerNorm": "feed.after",
}
POOLER = {"pooler.dense": "dense", "classifier": "output"}
#: Names of the masked head in "legacy" models, and in the others.
LEGACY, MODERN = "cls.predictions.", "lm_predictions.lm_head."

WORDS = EncoderWords(
    family="deberta-v2",
    modules={
        "deberta.embeddings.LayerNorm": "embedding.norm",
        "deberta.encoder.LayerNorm": "distances.norm",
        "deberta.encoder.conv.conv": "blocks.0.beside.kernel",
        "deberta.encoder.conv.LayerNorm": "blocks.0.beside_mix.after",
    }
    | {f"deberta.encoder.layer.{{}}.{their}": f"blocks.{{}}.{our}" for their, our in LAYER.items()},
    tables={
        "deberta.embeddings.word_embeddings.weight": "embedding.tokens.weight",
        "deberta.embeddings.position_embeddings.weight": "embedding.positions.weight",
        "deberta.embeddings.token_type_embeddings.weight": "embedding.types.weight",
        "deberta.embeddings.embed_proj.weight": "embedding.project.weight",
        "deberta.encoder.rel_embeddings.weight": "distances.table.weight",
    },
    architectures={
        "DebertaV2Model": (),
        "DebertaV2ForMaskedLM": ("masked",),
        "DebertaV2ForSequenceClassification": ("sequence",),
        "DebertaV2ForMultipleChoice": ("choice",),
        "DebertaV2ForTokenClassification": ("tokens",),
        "DebertaV2ForQuestionAnswering": ("span",),
    },
    heads={
        "masked": {f"{LEGACY}transform.dense": "dense", f"{LEGACY}transform.LayerNorm": "norm"},
        "sequence": POOLER,
        "choice": POOLER,
        "tokens": {"classifier": "output"},
        "span": {"qa_outputs": "output"},
    },
    bends={},
    vocabulary_bias=f"{LEGACY}bias",
    vocabulary_weight=f"{LEGACY}decoder.weight",
    factorised=True,
    epsilon=1e-7,
)


def read_config(fields: Mapping[str, Any]) -> EncoderConfig:
    """Our config from the fields of a config.json."""
    if not fields.get("relative_attention"):
        raise ValueError("relative_attention is off: published DeBERTas have it on")
    fields = {"type_vocab_size": 0} | dict(fields)
    plain = WORDS.read_config(fields)
    norm, places = plain.embedding.norm, fields["max_position_embeddings"]
    in_input = fields.get("position_biased_input", True)
    mixer = _mixer(fields, plain.blocks[0])
    first, *rest = (replace(block, mixer=mixer) for block in plain.blocks)
    if fields.get("conv_kernel_size"):
        step = ResidualConfig(after=norm)
        first = replace(first, beside=_convolution(fields), beside_mix=step)
    normed = "layer_norm" in fields.get("norm_rel_ebd", "none")
    heads = dict(plain.heads)
    for name in {"sequence", "choice"} & set(heads):
        bend = read_activation(fields.get("pooler_hidden_act", "gelu"))
        heads[name] = replace(_classifier(plain, name), activation=bend)
    return replace(
        plain,
        embedding=replace(
            plain.embedding, learned_positions=places if in_input else 0, widen_first=True
        ),
        blocks=(first, *rest),
        heads=heads,
        distances=DistanceVectorsConfig(mixer.reach, norm if normed else None),
    )


def _classifier(config: EncoderConfig, name: str) -> ClassifierConfig:
    head = config.heads[name]
    assert isinstance(head, ClassifierConfig)
    return head


def _mixer(fields: Mapping[str, Any], block: BlockConfig) -> DisentangledConfig:
    assert isinstance(block.mixer, AttentionConfig)
    furthest = fields.get("max_relative_positions", -1)
    furthest = fields["max_position_embeddings"] if furthest < 1 else furthest
    buckets = fields.get("position_buckets", -1)
    kinds = fields.get("pos_att_type") or []
    return DisentangledConfig(
        block.mixer,
        reach=buckets if buckets > 0 else furthest,
        furthest=furthest,
        exact=buckets // 2 if buckets > 0 else None,
        content_to_position="c2p" in kinds,
        position_to_content="p2c" in kinds,
        shared=fields.get("share_att_key", False),
    )


def _convolution(fields: Mapping[str, Any]) -> ConvolutionConfig:
    return ConvolutionConfig(
        fields["conv_kernel_size"],
        fields.get("conv_groups", 1),
        read_activation(fields.get("conv_act", "tanh")),
    )


def write_config(config: EncoderConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    mixer, convolution = config.blocks[0].mixer, config.blocks[0].beside
    assert isinstance(mixer, DisentangledConfig)
    assert config.distances is not None
    plain = replace(
        config, blocks=tuple(replace(block, mixer=mixer.attention) for block in config.blocks)
    )
    fields = WORDS.write_config(plain) | {
        "legacy": _is_legacy(config),
        "max_position_embeddings": config.context,
        "relative_attention": True,
        "position_biased_input": config.embedding.learned_positions > 0,
        "position_buckets": -1 if mixer.exact is None else mixer.reach,
        "max_relative_positions": mixer.furthest,
        "pos_att_type": ["c2p"] * mixer.content_to_position + ["p2c"] * mixer.position_to_content,
        "share_att_key": mixer.shared,
        "norm_rel_ebd": "layer_norm" if config.distances.norm else "none",
    }
    for name in {"sequence", "choice"} & set(config.heads):
        bend = _classifier(config, name).activation
        fields["pooler_hidden_act"] = write_activation(bend or "gelu")
    if isinstance(convolution, ConvolutionConfig):
        fields["conv_kernel_size"] = convolution.kernel
        fields["conv_groups"] = convolution.groups
        fields["conv_act"] = write_activation(convolution.activation)
    return fields


def _is_legacy(config: EncoderConfig) -> bool:
    """Whether only the form of head that transformers calls legacy can hold the weights."""
    masked = config.heads.get("masked")
    untied = isinstance(masked, LanguageHeadConfig) and not masked.tied
    return untied or config.embedding.width is not None


def translations(config: EncoderConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    absent = _absent(config)
    for rule in WORDS.translations(config):
        (theirs,), (ours,) = rule.theirs, rule.ours
        if ours.startswith(absent):
            continue
        if not theirs.startswith(LEGACY):
            yield rule
        elif _is_legacy(config):
            yield replace(rule, instead=(_modern(theirs),))
        else:
            yield replace(rule, theirs=(_modern(theirs),), instead=rule.theirs)


def _modern(name: str) -> str:
    return MODERN + name.removeprefix(LEGACY).removeprefix("transform.")


def _absent(config: EncoderConfig) -> tuple[str, ...]:
    """Beginnings of our names of what the config is without."""
    block, embedding = config.blocks[0], config.embedding
    mixer = block.mixer
    assert isinstance(mixer, DisentangledConfig)
    assert config.distances is not None
    parts: dict[str, object] = {
        "embedding.positions": embedding.learned_positions,
        "embedding.types": embedding.token_types,
        "embedding.project": embedding.width,
        "distances.norm": config.distances.norm,
        "blocks.0.beside": block.beside,
    }
    for layer in range(len(config.blocks)):
        own = f"blocks.{layer}.mixer.position"
        parts[f"{own}_key"] = mixer.content_to_position and not mixer.shared
        parts[f"{own}_query"] = mixer.position_to_content and not mixer.shared
    return tuple(name for name, present in parts.items() if not present)
