"""Decoders equal transformers' on random weights, whoever of us two saved them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.models.decoder import Decoder
from limner.nn.state import Documents
from tests.decoder_families import DECODERS
from tests.families import VOCABULARY, Fields
from tests.recurrent_families import PUBLISHED

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def reference(fields: Fields) -> PreTrainedModel:
    """A transformers model with random weights, biases and gains included."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**fields))
    with torch.no_grad():
        for tensor in model.state_dict().values():  # buffers that are saved, too
            tensor.add_(torch.randn_like(tensor) * 0.1)
    return model.eval()


def some_tokens(rows: int = 2, time: int = 21) -> torch.Tensor:
    """Random tokens that are not the special ones."""
    return torch.randint(3, VOCABULARY, (rows, time), generator=torch.Generator().manual_seed(1))


MODELS = DECODERS | PUBLISHED


@pytest.fixture(params=MODELS, scope="module")
def saved(request, tmp_path_factory) -> tuple[PreTrainedModel, Path]:
    """A reference model and the folder it was saved to."""
    model = reference(MODELS[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return model, folder


def opened(folder: Path) -> Decoder:
    """The network of a folder."""
    network = open_checkpoint(folder).network()
    assert isinstance(network, Decoder)
    return network


@torch.no_grad()
def test_logits_equal_the_reference(saved):
    model, folder = saved
    tokens = some_tokens()
    network = opened(folder)
    torch.testing.assert_close(network.logits(tokens), model(tokens).logits, **CLOSE)


@torch.no_grad()
def test_padded_rows_equal_the_reference(saved):
    model, folder = saved
    if "dynamic" in folder.name:
        pytest.skip("the reference lets padding lengthen a text, which changes its positions")
    tokens, lengths = some_tokens(rows=3), torch.tensor([21, 13, 1])
    real = torch.arange(21) < lengths[:, None]  # (3, 21)
    ours = opened(folder).logits(tokens, Documents(real.long()))
    theirs = model(tokens, attention_mask=real.long()).logits
    torch.testing.assert_close(ours[real], theirs[real], **CLOSE)


@torch.no_grad()
def test_cached_chunks_equal_the_reference(saved):
    model, folder = saved
    if "dynamic" in folder.name:
        pytest.skip("dynamic NTK turns cached keys by the base of their own time, here and there")
    tokens = some_tokens()
    network = opened(folder)
    cache = network.new_cache(rows=2, capacity=32)
    chunks = tokens.split([7, 1, 1, 3, 1, 8], dim=1)
    logits = torch.cat([network.logits(chunk, cache) for chunk in chunks], dim=1)
    torch.testing.assert_close(logits, model(tokens).logits, **CLOSE)


@torch.no_grad()
def test_the_reference_opens_what_is_saved(saved, tmp_path):
    model, folder = saved
    tokens = some_tokens()
    save_folder(open_checkpoint(folder).network(), tmp_path, max_shard_bytes=40_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(again.eval()(tokens).logits, model(tokens).logits, **CLOSE)


def test_the_config_survives_a_round_trip(saved, tmp_path):
    _, folder = saved
    checkpoint = open_checkpoint(folder)
    save_folder(checkpoint.network(), tmp_path)
    assert open_checkpoint(tmp_path).config == checkpoint.config
