"""Encoders equal transformers' on random weights, whoever of us two saved them."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.models.encoder import Encoder
from limner.nn.state import Documents
from tests.families import ENCODERS, VOCABULARY, Fields

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}


def reference(fields: Fields) -> PreTrainedModel:
    """A transformers model with random weights, biases and gains included."""
    torch.manual_seed(0)
    (architecture,) = fields["architectures"]
    model = getattr(transformers, architecture)(AutoConfig.for_model(**fields))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.fixture(params=ENCODERS, scope="module")
def saved(request, tmp_path_factory) -> tuple[PreTrainedModel, Path]:
    """A reference model and the folder it was saved to."""
    model = reference(ENCODERS[request.param])
    folder = tmp_path_factory.mktemp(request.param)
    model.save_pretrained(folder)
    return model, folder


def some_texts() -> dict[str, torch.Tensor]:
    """Two texts, the second padded, with two kinds of token."""
    tokens = torch.randint(3, VOCABULARY, (2, 13), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(tokens)
    mask[1, 9:] = 0
    types = (torch.arange(13) > 5).long().expand(2, -1)
    return {"input_ids": tokens * mask, "attention_mask": mask, "token_type_ids": types}


def outputs(network: Encoder, texts: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Hidden vectors, then what each head says."""
    state = Documents(texts["attention_mask"])
    hidden = network(texts["input_ids"], state=state, types=texts["token_type_ids"])
    return [hidden] + [head(hidden) for head in network.heads.values()]


def expected(model: PreTrainedModel, texts: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The same of the reference."""
    if type(model).__name__.endswith("ForMultipleChoice"):
        texts = {name: tensor[None] for name, tensor in texts.items()}
    accepted = inspect.signature(model.forward).parameters
    texts = {name: tensor for name, tensor in texts.items() if name in accepted}
    answer = model(**texts, output_hidden_states=True)
    if "start_logits" in answer:
        return [answer.hidden_states[-1], torch.stack([answer.start_logits, answer.end_logits], -1)]
    rest = [value for name, value in answer.items() if name != "hidden_states"]
    if "last_hidden_state" in answer:
        return rest
    return [answer.hidden_states[-1], *rest]


def assert_same(folder: Path, model: PreTrainedModel) -> None:
    """What we load from there is equal wherever there is no padding."""
    network = open_checkpoint(folder).network()
    assert isinstance(network, Encoder)
    texts = some_texts()
    real = texts["attention_mask"].bool()
    ours, theirs = outputs(network, texts), expected(model, texts)
    assert len(ours) == len(theirs)
    for mine, reference in zip(ours, theirs, strict=True):
        each = mine.ndim == 3 and mine.shape[:2] == real.shape
        reference = reference.reshape(mine.shape)
        want = reference[real] if each else reference
        torch.testing.assert_close(mine[real] if each else mine, want, **CLOSE)


@torch.no_grad()
def test_outputs_equal_the_reference(saved):
    model, folder = saved
    assert_same(folder, model)


@torch.no_grad()
def test_the_reference_opens_what_is_saved(saved, tmp_path):
    model, folder = saved
    save_folder(open_checkpoint(folder).network(), tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert_same(tmp_path, again.eval())
    assert_same(tmp_path, model)
