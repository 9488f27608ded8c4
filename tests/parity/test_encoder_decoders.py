"""Encoder-decoders equal transformers' on random weights, whoever of us two saved them."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.models.encoder_decoder import EncoderDecoder
from tests.families import ENCODER_DECODERS, VOCABULARY, Fields

CLOSE: dict[str, Any] = {"atol": 1e-4, "rtol": 1e-4}


def reference(fields: Fields) -> PreTrainedModel:
    """A transformers model with random weights, biases and gains included."""
    torch.manual_seed(0)
    (architecture,) = fields["architectures"]
    model = getattr(transformers, architecture)(AutoConfig.for_model(**fields))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:  # fixed sinusoids are parameters there too
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.fixture(params=ENCODER_DECODERS, scope="module")
def saved(request, tmp_path_factory) -> tuple[PreTrainedModel, Path]:
    """A reference model and the folder it was saved to."""
    model = reference(ENCODER_DECODERS[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return model, folder


def some_tokens(rows: int, time: int, seed: int) -> torch.Tensor:
    """Random tokens that are not the special ones."""
    return torch.randint(3, VOCABULARY, (rows, time), generator=torch.Generator().manual_seed(seed))


SOURCE, TARGET = some_tokens(2, 25, 1), some_tokens(2, 11, 2)
MASK = (torch.arange(25) < torch.tensor([[25], [17]])).long()


def expected(model: PreTrainedModel) -> torch.Tensor:
    """Logits of the reference."""
    return model(input_ids=SOURCE, attention_mask=MASK, decoder_input_ids=TARGET).logits


def load(folder: Path) -> EncoderDecoder:
    """What we load from there."""
    network = open_checkpoint(folder).network()
    assert isinstance(network, EncoderDecoder)
    return network


@torch.no_grad()
def test_logits_equal_the_reference(saved):
    model, folder = saved
    network = load(folder)
    logits = network.logits(TARGET, network.read(SOURCE, MASK))
    torch.testing.assert_close(logits, expected(model), **CLOSE)


@torch.no_grad()
def test_cached_chunks_equal_the_reference(saved):
    model, folder = saved
    network = load(folder)
    state = network.read(SOURCE, MASK, network.new_cache(rows=2, capacity=16))
    chunks = [network.logits(chunk, state) for chunk in TARGET.split([4, 1, 1, 3, 2], dim=1)]
    torch.testing.assert_close(torch.cat(chunks, dim=1), expected(model), **CLOSE)


@torch.no_grad()
def test_a_padded_source_equals_the_source_alone(saved):
    _, folder = saved
    network = load(folder)
    both = network.logits(TARGET, network.read(SOURCE, MASK))
    alone = network.logits(TARGET[1:], network.read(SOURCE[1:, :17]))
    torch.testing.assert_close(both[1:], alone, **CLOSE)


@torch.no_grad()
def test_the_reference_opens_what_is_saved(saved, tmp_path):
    model, folder = saved
    save_folder(load(folder), tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(expected(again.eval()), expected(model), **CLOSE)
    assert open_checkpoint(tmp_path).config == open_checkpoint(folder).config
