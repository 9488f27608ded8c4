"""Models that hear and see equal transformers' on random weights, whoever of us two saved them."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.models.contrastive import Contrastive
from limner.models.encoder import Encoder
from limner.models.encoder_decoder import EncoderDecoder
from limner.models.seeing import Seeing
from tests.families import VOCABULARY, Fields, llama

CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}
IMAGE_TOKEN, END = 90, 96

VISION: Fields = {
    "hidden_size": 40,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 14,  # its last rows and columns make no whole patch
    "patch_size": 4,
}
TEXT: Fields = {
    "hidden_size": 36,
    "intermediate_size": 50,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 20,
    "eos_token_id": END,
}
WHISPER: Fields = {
    "model_type": "whisper",
    "architectures": ["WhisperForConditionalGeneration"],
    "d_model": 36,
    "num_mel_bins": 10,
    "encoder_layers": 3,
    "encoder_attention_heads": 3,
    "encoder_ffn_dim": 50,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 44,
    "max_source_positions": 20,
    "max_target_positions": 30,
    "vocab_size": VOCABULARY,
    "decoder_start_token_id": 3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CLIP: Fields = {
    "model_type": "clip",
    "architectures": ["CLIPModel"],
    "text_config": TEXT,
    "vision_config": VISION,
    "projection_dim": 22,
}
LLAVA: Fields = {
    "model_type": "llava",
    "architectures": ["LlavaForConditionalGeneration"],
    "vision_config": VISION | {"model_type": "clip_vision_model"},
    "text_config": llama(),
    "image_token_index": IMAGE_TOKEN,
    "image_seq_length": 9,
}
MODELS: dict[str, Fields] = {
    "whisper": WHISPER,
    "vit": VISION | {"model_type": "vit", "architectures": ["ViTModel"]},
    "vit-classifier": VISION
    | {"model_type": "vit", "architectures": ["ViTForImageClassification"], "num_labels": 5}
    | {"qkv_bias": False},
    "clip": CLIP,
    "clip-old": CLIP | {"text_config": TEXT | {"eos_token_id": 2}},
    "llava": LLAVA,
    "llava-full": LLAVA
    | {"vision_feature_select_strategy": "full", "vision_feature_layer": 1}
    | {"projector_hidden_act": "relu", "multimodal_projector_bias": False, "image_seq_length": 10},
}


@pytest.fixture(params=MODELS, scope="module")
def saved(request, tmp_path_factory) -> tuple[PreTrainedModel, Path]:
    """A reference model with random weights, biases and gains included, and its folder."""
    fields = MODELS[request.param]
    torch.manual_seed(0)
    (architecture,) = fields["architectures"]
    model = getattr(transformers, architecture)(AutoConfig.for_model(**fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return model, folder


def images() -> torch.Tensor:
    """Two pictures of noise."""
    return torch.randn(2, 3, 14, 14, generator=torch.Generator().manual_seed(1))


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    """Two texts that end, and padding behind the shorter one; and their mask."""
    tokens = torch.randint(3, 90, (2, 11), generator=torch.Generator().manual_seed(2))
    tokens[0, 10] = tokens[1, 6] = END
    tokens[1, 7:] = 1
    mask = torch.ones_like(tokens)
    mask[1, 7:] = 0
    return tokens, mask


def sound() -> tuple[torch.Tensor, torch.Tensor]:
    """Two spectrograms of noise and the beginnings of what is said."""
    generator = torch.Generator().manual_seed(3)
    heard = torch.randn(2, 10, 40, generator=generator)
    return heard, torch.randint(3, VOCABULARY, (2, 7), generator=generator)


def prompt(places: int) -> torch.Tensor:
    """Two texts with one picture each, not at the same place."""
    tokens = torch.randint(3, 90, (2, 20), generator=torch.Generator().manual_seed(4))
    tokens[0, 2 : 2 + places] = tokens[1, 6 : 6 + places] = IMAGE_TOKEN
    return tokens


def ours(network: Any) -> list[torch.Tensor]:
    """What our network makes of these inputs."""
    if isinstance(network, EncoderDecoder):
        heard, said = sound()
        return [network.logits(said, network.read(heard))]
    if isinstance(network, Encoder):
        hidden = network(images())
        return [head(hidden) for head in network.heads.values()]
    if isinstance(network, Contrastive):
        tokens, mask = texts()
        text, image = network.embed_text(tokens, mask), network.embed_image(images())
        return [network(tokens, images(), mask), text, image]
    assert isinstance(network, Seeing)
    return [network.logits(prompt(network.config.places), images=images())]


def theirs(model: PreTrainedModel) -> list[torch.Tensor]:
    """What the reference makes of them."""
    kind = model.config.model_type
    if kind == "whisper":
        heard, said = sound()
        return [model(input_features=heard, decoder_input_ids=said).logits]
    if kind == "vit":
        answer = model(pixel_values=images())
        return [answer.logits if "logits" in answer else answer.pooler_output]
    if kind == "clip":
        tokens, mask = texts()
        answer = model(input_ids=tokens, attention_mask=mask, pixel_values=images())
        text = model.get_text_features(input_ids=tokens, attention_mask=mask).pooler_output
        image = model.get_image_features(pixel_values=images()).pooler_output
        return [answer.logits_per_image, text, image]
    return [model(input_ids=prompt(model.config.image_seq_length), pixel_values=images()).logits]


@torch.no_grad()
def test_outputs_equal_the_reference(saved):
    model, folder = saved
    for mine, reference in zip(ours(open_checkpoint(folder).network()), theirs(model), strict=True):
        torch.testing.assert_close(mine, reference, **CLOSE)


@torch.no_grad()
def test_the_reference_opens_what_is_saved(saved, tmp_path):
    model, folder = saved
    checkpoint = open_checkpoint(folder)
    save_folder(checkpoint.network(), tmp_path)
    assert open_checkpoint(tmp_path).config == checkpoint.config
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for mine, reference in zip(theirs(again.eval()), theirs(model), strict=True):
        torch.testing.assert_close(mine, reference, **CLOSE)


@torch.no_grad()
def test_cached_chunks_equal_the_whole(saved):
    _, folder = saved
    network = open_checkpoint(folder).network()
    if isinstance(network, EncoderDecoder):
        heard, tokens = sound()
        state = network.read(heard, state=network.new_cache(rows=2, capacity=8))
        chunks = [network.logits(chunk, state) for chunk in tokens.split([3, 1, 3], dim=1)]
    elif isinstance(network, Seeing):
        tokens, cache = prompt(network.config.places), network.new_cache(rows=2, capacity=20)
        begun, *rest = tokens.split([17, 1, 2], dim=1)
        chunks = [network.logits(begun, cache, images())]
        chunks += [network.logits(chunk, cache) for chunk in rest]
    else:
        pytest.skip("keeps nothing")
    torch.testing.assert_close(torch.cat(chunks, 1), ours(network)[0], **CLOSE)


@torch.no_grad()
def test_padding_does_not_change_a_text(saved):
    _, folder = saved
    network = open_checkpoint(folder).network()
    if not isinstance(network, Contrastive):
        pytest.skip("reads no padded texts")
    tokens, mask = texts()
    alone = network.embed_text(tokens[1:, :7])
    torch.testing.assert_close(network.embed_text(tokens, mask)[1:], alone, **CLOSE)


def test_wrong_images_are_refused(saved):
    _, folder = saved
    network = open_checkpoint(folder).network()
    if isinstance(network, Seeing):
        with pytest.raises(ValueError, match=r"the tokens have (18|20) places"):
            network.logits(prompt(network.config.places), images=images()[:1])
    elif not isinstance(network, EncoderDecoder):
        tower = network.image if isinstance(network, Contrastive) else network
        with pytest.raises(ValueError, match="is 12x14 pixels but must be 14x14"):
            tower(images()[..., :12])
