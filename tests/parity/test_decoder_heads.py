"""Decoders with heads of classes equal transformers', whoever of us two saved them."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, PreTrainedModel

from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.nn.state import Documents
from tests.decoder_families import DECODERS
from tests.families import VOCABULARY, Fields

CLOSE: dict[str, Any] = {"atol": 1e-5, "rtol": 1e-5}
PADDING = 0
CLASSES = {
    "Llama": ("llama", ["SequenceClassification", "TokenClassification", "QuestionAnswering"]),
    "GPT2": ("gpt2", ["SequenceClassification", "TokenClassification", "QuestionAnswering"]),
    "Qwen2": ("qwen2", ["SequenceClassification", "TokenClassification", "QuestionAnswering"]),
    "Bloom": ("bloom", ["SequenceClassification", "TokenClassification"]),
    "GPTNeoX": ("gpt-neox", ["SequenceClassification", "TokenClassification"]),
    "Gemma2": ("gemma2", ["SequenceClassification"]),
}
MODELS: dict[str, Fields] = {
    f"{stem}For{task}": DECODERS[family]
    | {"architectures": [f"{stem}For{task}"], "num_labels": 3, "pad_token_id": PADDING}
    for stem, (family, tasks) in CLASSES.items()
    for task in tasks
}
MODELS["reward"] = MODELS["LlamaForSequenceClassification"] | {"num_labels": 1}
MODELS["value"] = MODELS["LlamaForTokenClassification"] | {"num_labels": 1}


@pytest.fixture(params=MODELS, scope="module")
def saved(request, tmp_path_factory) -> tuple[PreTrainedModel, Path]:
    """A reference model with random weights and its folder."""
    fields = MODELS[request.param]
    torch.manual_seed(0)
    model = getattr(transformers, fields["architectures"][0])(AutoConfig.for_model(**fields))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path_factory.mktemp(request.param)
    model.eval().save_pretrained(folder)
    return model, folder


LAST = torch.tensor([12, 7])


def texts() -> tuple[torch.Tensor, torch.Tensor]:
    """Two texts, the second padded, and their mask."""
    tokens = torch.randint(3, VOCABULARY, (2, 13), generator=torch.Generator().manual_seed(1))
    mask = torch.arange(13) <= LAST[:, None]
    return tokens * mask, mask


def ours(network: Any) -> torch.Tensor:
    """Scores of texts, or of tokens that are no padding."""
    tokens, mask = texts()
    hidden = network(tokens, state=Documents(mask.long()))
    (head,) = network.heads.values()
    scores: torch.Tensor = head(hidden, LAST)
    return scores if scores.ndim == 2 else scores[mask]


def theirs(model: PreTrainedModel) -> torch.Tensor:
    """The same of the reference."""
    tokens, mask = texts()
    model.config.pad_token_id = PADDING
    answer = model(tokens, attention_mask=mask.long())
    if "start_logits" in answer:
        return torch.stack([answer.start_logits, answer.end_logits], -1)[mask]
    logits: torch.Tensor = answer.logits
    return logits if logits.ndim == 2 else logits[mask]


@torch.no_grad()
def test_scores_equal_the_reference(saved):
    model, folder = saved
    network: Any = open_checkpoint(folder).network()
    torch.testing.assert_close(ours(network), theirs(model), **CLOSE)
    if folder.name.startswith(("reward", "value")):
        assert folder.name.startswith(next(iter(network.heads)))


@torch.no_grad()
def test_the_reference_opens_what_is_saved(saved, tmp_path):
    model, folder = saved
    save_folder(open_checkpoint(folder).network(), tmp_path)
    again, report = type(model).from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    torch.testing.assert_close(theirs(again.eval()), theirs(model), **CLOSE)
    torch.testing.assert_close(ours(open_checkpoint(tmp_path).network()), theirs(model), **CLOSE)
