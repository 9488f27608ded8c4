"""Texts become the texts that transformers would write, with the options of the checkpoint."""

import pytest
import torch
from transformers import GenerationConfig

from limner.language_model import load, load_translator
from tests.families import llama, t5
from tests.text_folders import tokenizer, write_folder

TEXTS = ["the cat sat on the red house", "a dog", "the old king and the young queen"]
STATED = {
    "num_beams": 3,
    "length_penalty": 0.8,
    "early_stopping": True,
    "max_new_tokens": 9,
    "bad_words_ids": [[7], [9]],
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A reference model that ends its texts at [SEP], and its folder."""
    folder = tmp_path_factory.mktemp("t5")
    fields = t5(tie_word_embeddings=False, scale_decoder_outputs=False, eos_token_id=3)
    model = write_folder(folder, fields, framed=False, noise=1.0, eos_token="[SEP]")
    config = GenerationConfig(
        **STATED, eos_token_id=3, pad_token_id=0, decoder_start_token_id=0, do_sample=False
    )
    model.generation_config = config
    model.save_pretrained(folder)
    return model, folder


@torch.no_grad()
def expected(model, **options) -> list[str]:
    """What transformers writes, each text by itself."""
    words = tokenizer(framed=False, eos_token="[SEP]")
    written = []
    for text in TEXTS:
        inputs = words([text], return_tensors="pt")
        ids = model.generate(inputs.input_ids, attention_mask=inputs.attention_mask, **options)
        written.append(words.decode(ids[0], skip_special_tokens=True))
    return written


def test_the_checkpoints_own_options_are_followed(pair):
    model, folder = pair
    translator = load_translator(folder)
    assert translator.translate(TEXTS) == expected(model)
    assert translator.translate(TEXTS[0]) == expected(model)[0]


def test_options_of_the_call_come_first(pair):
    model, folder = pair
    translator = load_translator(folder)
    got = translator.translate(TEXTS, num_beams=1, max_tokens=5)
    assert got == expected(model, num_beams=1, max_new_tokens=5, early_stopping=False)
    assert got != translator.translate(TEXTS)


def test_drawing_repeats_with_its_seed(pair):
    translator = load_translator(pair[1])
    drawn = [translator.translate(TEXTS, temperature=5.0, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_target_begins_with_the_token_asked_for(pair):
    translator = load_translator(pair[1])
    assert translator.translate(TEXTS[0], target="Paris").startswith("Paris")
    with pytest.raises(ValueError, match="has no token 'Rome'"):
        translator.translate(TEXTS[0], target="Rome")


def test_special_tokens_are_read_and_written_where_that_is_asked_for(pair):
    model, folder = pair
    translator, words = load_translator(folder), tokenizer(framed=False, eos_token="[SEP]")
    text = "the [MASK] sat on the red house"
    ids = words([text], return_tensors="pt").input_ids
    with torch.no_grad():
        written = model.generate(ids)[0, 1:].tolist()
    plain, special = translator.translate(text), translator.translate(text, parse_special=True)
    assert special == words.decode([i for i in written if i != 3])
    assert special != plain


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"num_beam": 2}, TypeError, r"unknown option 'num_beam'.*num_beams"),
        ({"num_beams": 2, "temperature": 1.0}, ValueError, "num_beams is for searching and temp"),
        ({"num_beams": 0}, ValueError, "num_beams must be 1 or more, not 0"),
        ({"early_stopping": "often"}, ValueError, "early_stopping must be true, false or 'never'"),
    ],
)
def test_wrong_options_are_named(pair, options, error, message):
    with pytest.raises(error, match=message):
        load_translator(pair[1]).translate(TEXTS[0], **options)


def test_what_fits_a_model_is_named(pair, tmp_path):
    with pytest.raises(ValueError, match=r"encoder-?decoder"):
        load(pair[1])
    write_folder(tmp_path, llama(architectures=["LlamaForCausalLM"]))
    with pytest.raises(ValueError, match="it is a decoder, which fits `limner generate`"):
        load_translator(tmp_path)
