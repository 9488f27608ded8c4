"""LLaVA: a decoder that sees through CLIP's tower of images (Liu et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from limner.models.decoder import DecoderConfig
from limner.models.families import find_family
from limner.models.families.clip import image_names, read_image, write_image
from limner.models.families.encoder_words import both
from limner.models.families.fields import read_activation, write_activation
from limner.models.seeing import SeeingConfig
from limner.models.translation import Translation, renamed

#: What config.json files leave out because it is so in Llama 7B.
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11_008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32_000,
}
PROJECTOR = {"multi_modal_projector.linear_1": "projector.up"} | {
    "multi_modal_projector.linear_2": "projector.down"
}


def read_config(fields: Mapping[str, Any]) -> SeeingConfig:
    """Our config from the fields of a config.json."""
    text = dict(fields.get("text_config") or {})
    text = LLAMA | text if text.get("model_type", "llama") == "llama" else text
    decoder = find_family(text["model_type"]).read_config(text)
    assert isinstance(decoder, DecoderConfig)
    image = read_image(fields.get("vision_config") or {})
    layer = fields.get("vision_feature_layer", -2)
    if not isinstance(layer, int):
        raise ValueError(f"vision_feature_layer {layer} names several layers: known is one")
    bend = read_activation(fields.get("projector_hidden_act", "gelu"))
    token = fields.get("image_token_index", fields.get("image_token_id", 32_000))
    return SeeingConfig(
        family="llava",
        image=image,
        decoder=decoder,
        image_token=token,
        # Theirs counts the input of the first block as a layer too, and may count from the end.
        depth=layer if layer >= 0 else len(image.blocks) + 1 + layer,
        class_token=fields.get("vision_feature_select_strategy", "default") == "full",
        activation=bend,
        bias=fields.get("multimodal_projector_bias", True),
    )


def write_config(config: SeeingConfig) -> dict[str, Any]:
    """The fields of a config.json."""
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": config.image_token,
        "image_seq_length": config.places,
        "vision_feature_layer": config.depth - len(config.image.blocks) - 1,
        "vision_feature_select_strategy": "full" if config.class_token else "default",
        "projector_hidden_act": write_activation(config.activation),
        "multimodal_projector_bias": config.bias,
        "tie_word_embeddings": config.decoder.head.tied,
        "text_config": find_family(config.decoder.family).write_config(config.decoder),
        "vision_config": write_image(config.image),
    }


def translations(config: SeeingConfig) -> Iterator[Translation]:
    """Every tensor of a checkpoint and the parameters it makes."""
    for rule in find_family(config.decoder.family).translations(config.decoder):
        yield replace(
            rule,
            theirs=tuple(f"language_model.{name}" for name in rule.theirs),
            ours=tuple(f"decoder.{name}" for name in rule.ours),
            instead=tuple(f"language_model.{name}" for name in rule.instead),
        )
    for rule in renamed(image_names("vision_tower", "image"), len(config.image.blocks)):
        (name,) = rule.theirs
        older = name.replace("vision_tower.", "vision_tower.vision_model.", 1)
        yield replace(rule, instead=(older,))
    for theirs, ours in PROJECTOR.items():
        names = both(theirs, ours) if config.bias else {f"{theirs}.weight": f"{ours}.weight"}
        yield from renamed(names, 1)
