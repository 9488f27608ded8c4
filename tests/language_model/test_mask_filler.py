"""Blanks are filled as transformers fills them."""

import re

import pytest
import torch
from transformers import pipeline

from limner.language_model import load_mask_filler
from tests.families import bert, llama
from tests.text_folders import tokenizer, write_folder

TEXT = "the [MASK] sat on the red house in [MASK]"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A reference model and its folder."""
    folder = tmp_path_factory.mktemp("bert")
    return write_folder(folder, bert(architectures=["BertForMaskedLM"])), folder


def test_the_best_words_equal_the_reference(pair):
    model, folder = pair
    want = pipeline("fill-mask", model=model, tokenizer=tokenizer(), device="cpu")(TEXT, top_k=7)
    got = load_mask_filler(folder).fill(TEXT)
    for blank, expected in zip(got, want, strict=True):
        assert [candidate.id for candidate in blank.top(7)] == [each["token"] for each in expected]
        for candidate, each in zip(blank.top(7), expected, strict=True):
            assert candidate.probability == pytest.approx(each["score"], rel=1e-4)
            assert candidate.text.strip() == each["token_str"]


def test_a_text_without_a_blank_is_refused(pair):
    with pytest.raises(ValueError, match=r"the text has no blank: write \[MASK\] where"):
        load_mask_filler(pair[1]).fill("the cat sat")


def test_too_long_a_text_is_refused(pair):
    with pytest.raises(ValueError, match=r"the text has 63 tokens but '.*' takes 40"):
        load_mask_filler(pair[1]).fill("cat " * 60 + "[MASK]")


@pytest.mark.parametrize(
    ("fields", "kind", "fitting"),
    [
        (bert(architectures=["BertModel"]), "an encoder with pooled head", "`limner embed`"),
        (
            llama(architectures=["LlamaForCausalLM"]),
            "a decoder",
            "`limner generate`, `limner chat`, `limner embed`",
        ),
    ],
    ids=["encoder", "decoder"],
)
def test_what_fits_a_model_is_named(fields, kind, fitting, tmp_path):
    write_folder(tmp_path, fields)
    line = f"'{tmp_path}' does not fit `limner fill-mask`: it is {kind}, which fits {fitting}"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        load_mask_filler(tmp_path)


def test_a_tokenizer_without_a_mask_is_refused(tmp_path):
    write_folder(tmp_path, bert(architectures=["BertForMaskedLM"]))
    words = tokenizer()
    words._special_tokens_map["mask_token"] = None
    words.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="has no mask token"):
        load_mask_filler(tmp_path)


def test_probabilities_add_up(pair):
    first, _ = load_mask_filler(pair[1]).fill(TEXT)
    torch.testing.assert_close(first.probabilities.sum(), torch.tensor(1.0, dtype=torch.float64))
