"""What a config.json of any family may say besides: a decoder's heads, attention heads removed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any

from limner.models.decoder import DecoderConfig
from limner.models.encoder import EncoderConfig
from limner.models.families.encoder_words import count_labels, write_labels
from limner.models.heads import ClassifierConfig
from limner.models.network import NetworkConfig
from limner.models.pruning import pruned_config, removed_heads, whole_config
from limner.models.translation import Translation

#: Ends of their class names, and where such a class keeps its scores.
LANGUAGE = ("ForCausalLM", "LMHeadModel")
SEQUENCE, TOKENS, SPAN = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
)
#: Our heads of a decoder, and the ends of their classes.
CLASSES = {
    "sequence": SEQUENCE,
    "reward": SEQUENCE,
    "tokens": TOKENS,
    "value": TOKENS,
    "span": SPAN,
}


class WithAdditions:
    """A family's file, and what all families' config.json files may say."""

    def __init__(self, family: ModuleType) -> None:
        self.family = family

    def __getattr__(self, name: str) -> Any:
        return getattr(self.family, name)

    def read_config(self, fields: Mapping[str, Any]) -> NetworkConfig:
        """Our config from the fields of a config.json."""
        config: NetworkConfig = self.family.read_config(fields)
        if isinstance(config, DecoderConfig):
            config = read_heads(config, fields)
        removed = fields.get("pruned_heads")
        if removed and isinstance(config, DecoderConfig | EncoderConfig):
            by_layer = {int(layer): tuple(heads) for layer, heads in removed.items()}
            config = pruned_config(config, by_layer)
        return config

    def write_config(self, config: Any) -> dict[str, Any]:
        """The fields of a config.json."""
        fields: dict[str, Any] = self.family.write_config(whole_config(config))
        if isinstance(config, DecoderConfig) and config.heads:
            fields |= write_heads(config, fields)
        removed = removed_heads(config)
        if removed:
            fields["pruned_heads"] = {str(layer): list(heads) for layer, heads in removed.items()}
        return fields

    def translations(self, config: Any) -> Iterator[Translation]:
        """Every tensor of a checkpoint and the parameters it makes."""
        if not isinstance(config, DecoderConfig) or not config.heads:
            yield from self.family.translations(config)
            return
        (name,) = config.heads
        for rule in self.family.translations(config):
            yield _in_question_answering(rule) if name == "span" else rule
        # Most keep the scores of tokens where they keep those of texts.
        tokens = getattr(self.family, "TOKEN_SCORES", "score")
        theirs = {SEQUENCE: "score", TOKENS: tokens, SPAN: "qa_outputs"}[CLASSES[name]]
        head = config.heads[name]
        assert isinstance(head, ClassifierConfig)
        for kind in ("weight", "bias") if head.bias else ("weight",):
            yield Translation((f"{theirs}.{kind}",), (f"heads.{name}.output.{kind}",))


def read_heads(config: DecoderConfig, fields: Mapping[str, Any]) -> DecoderConfig:
    """A decoder with the head that its architecture names, if that is none of language."""
    architecture = (fields.get("architectures") or [""])[0]
    labels = count_labels(fields)
    if architecture.endswith(SEQUENCE):
        name, head = "sequence", ClassifierConfig(labels, "last", bias=False)
    elif architecture.endswith(TOKENS):
        name, head = "tokens", ClassifierConfig(labels, "each")
    elif architecture.endswith(SPAN):
        name, head = "span", ClassifierConfig(2, "each")
    else:
        return config
    if labels == 1:
        name = {"sequence": "reward", "tokens": "value"}.get(name, name)
    # Such a checkpoint has no language head; tied to the token vectors, it needs no tensor.
    return replace(config, heads={name: head}, head=replace(config.head, tied=True))


def write_heads(config: DecoderConfig, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a decoder's head; ValueError if there are several, which no file can say."""
    if len(config.heads) > 1:
        names = ", ".join(config.heads)
        raise ValueError(f"a checkpoint holds one head but this model has {names}: drop the others")
    (name,) = config.heads
    stem = fields["architectures"][0]
    for end in LANGUAGE:
        stem = stem.removesuffix(end)
    return {"architectures": [stem + CLASSES[name]], **write_labels(config)}


def _in_question_answering(rule: Translation) -> Translation:
    """There the stack is called otherwise."""
    renamed = tuple(
        "transformer." + name.removeprefix("model.") if name.startswith("model.") else name
        for name in rule.theirs
    )
    return replace(rule, theirs=renamed, instead=rule.instead or rule.theirs)
