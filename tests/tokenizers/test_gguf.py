import pytest
import sentencepiece
from hypothesis import given, settings
from transformers import AutoTokenizer

from limner.tokenizers import Tokenizer, tokenizer_from_gguf
from tests.tokenizers.samples import (
    ADDED,
    TEXTS,
    byte_level_engine,
    gguf_of_bpe,
    gguf_of_sentencepiece,
    sentencepiece_model,
    wordpiece,
)

GGML = "tokenizer.ggml."


@pytest.fixture(scope="module")
def byte_level_metadata():
    return gguf_of_bpe(byte_level_engine(), "smollm")


@pytest.fixture(scope="module")
def byte_level_pair(byte_level_metadata):
    """A tokenizer from GGUF, and the one that the file was made of."""
    return tokenizer_from_gguf(byte_level_metadata), Tokenizer(byte_level_engine())


@given(text=TEXTS)
@settings(deadline=None, max_examples=150)
def test_byte_level_bpe_has_the_ids_of_the_original(byte_level_pair, text):
    tokenizer, original = byte_level_pair
    assert tokenizer.encode(text) == original.encode(text)
    assert tokenizer.encode(text, parse_special=True) == original.encode(text, parse_special=True)


def test_roles_template_and_ends_come_from_the_file(byte_level_pair):
    tokenizer, _ = byte_level_pair
    assert (tokenizer.token(tokenizer.bos_id), tokenizer.token(tokenizer.eos_id)) == (
        "<|im_start|>",
        "<|endoftext|>",
    )
    assert tokenizer.chat_template is not None
    # The file names only the end of text; the turn's end is known by its name.
    ends = {"<|endoftext|>", "<|im_end|>"}
    assert tokenizer.stop_ids == {tokenizer.token_id(token) for token in ends}
    assert not tokenizer.special_ids.intersection(map(tokenizer.token_id, ADDED))


def test_ends_that_the_file_states_are_taken(byte_level_metadata):
    stated = byte_level_metadata | {GGML + "eot_token_id": 300, GGML + "eom_token_id": 301}
    assert tokenizer_from_gguf(stated).stop_ids >= {300, 301}


@pytest.mark.parametrize("flag", [True, False])
def test_bos_and_eos_are_added_as_the_file_says(byte_level_metadata, flag):
    stated = byte_level_metadata | {GGML + "add_bos_token": flag, GGML + "add_eos_token": flag}
    tokenizer = tokenizer_from_gguf(stated)
    body = tokenizer.encode("the", add_special_tokens=False)
    start, end = [tokenizer.bos_id], [tokenizer.eos_id]
    assert tokenizer.encode("the") == (start + body + end if flag else body)


def test_a_name_whose_models_begin_with_bos_adds_it_unasked(byte_level_metadata):
    tokenizer = tokenizer_from_gguf(byte_level_metadata | {GGML + "pre": "llama-bpe"})
    assert tokenizer.encode("the")[0] == tokenizer.bos_id


def test_roberta_separates_two_texts_twice(byte_level_metadata):
    end = byte_level_metadata[GGML + "eos_token_id"]
    stated = byte_level_metadata | {GGML + "pre": "roberta-bpe", GGML + "seperator_token_id": end}
    tokenizer = tokenizer_from_gguf(stated)
    ids, segments = tokenizer.encode_pair("a", "b")
    assert [tokenizer.token(token_id) for token_id in ids] == [
        "<|im_start|>",
        "a",
        "<|endoftext|>",
        "<|endoftext|>",
        "b",
        "<|endoftext|>",
    ]
    assert set(segments) == {0}


def test_named_templates_are_read(byte_level_metadata):
    key = "tokenizer.chat_template"
    stated = byte_level_metadata | {
        key + "s": ["tool_use"],
        key + ".tool_use": "{{ tools|length }}",
    }
    chat = tokenizer_from_gguf(stated).apply_chat([{"role": "user", "content": ""}], tools=[{}, {}])
    assert chat.text == "2"


@pytest.fixture(scope="module")
def llama_pair(tmp_path_factory):
    """SentencePiece BPE from GGUF, and the library on the same model."""
    model = sentencepiece_model("bpe", "llama")
    tokenizer = tokenizer_from_gguf(gguf_of_sentencepiece(model, "llama"))
    folder = tmp_path_factory.mktemp("llama")
    tokenizer.save(folder)
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    return tokenizer, reference, AutoTokenizer.from_pretrained(folder)


@given(text=TEXTS)
@settings(deadline=None, max_examples=150)
def test_sentencepiece_bpe_has_the_ids_of_the_library(llama_pair, text):
    tokenizer, reference, saved = llama_pair
    assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(text)
    ids = tokenizer.encode(text)
    assert ids == [reference.bos_id(), *reference.encode(text)]
    assert tokenizer.decode(ids) == reference.decode(ids)
    assert saved(text, split_special_tokens=True)["input_ids"] == ids


def test_a_file_may_forbid_the_space_before_text():
    model = gguf_of_sentencepiece(sentencepiece_model("bpe", "llama"), "llama")
    tokenizer = tokenizer_from_gguf(model | {GGML + "add_space_prefix": False})
    ids = tokenizer.encode("the", add_special_tokens=False)
    assert "▁" not in tokenizer.token(ids[0])
    assert tokenizer.decode(tokenizer.encode(" the")) == " the"


def test_text_after_a_special_token_gets_its_space():
    model = gguf_of_sentencepiece(sentencepiece_model("bpe", "llama"), "llama")
    tokenizer = tokenizer_from_gguf(model)
    body = tokenizer.encode("the", add_special_tokens=False)
    end = tokenizer.eos_id
    ids = tokenizer.encode("the</s>the", parse_special=True, add_special_tokens=False)
    assert ids == [*body, end, *body]


def test_unigram_has_the_ids_of_the_library_and_ends_with_eos():
    model = sentencepiece_model("unigram", "llama")
    reference = sentencepiece.SentencePieceProcessor(model_proto=model)
    tokenizer = tokenizer_from_gguf(gguf_of_sentencepiece(model, "t5"))
    text = "statements  in the naïve 日本語 🦜"
    assert tokenizer.encode(text) == [*reference.encode(text), reference.eos_id()]
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.kind == "unigram"


@given(text=TEXTS)
@settings(deadline=None, max_examples=100)
def test_wordpiece_has_the_ids_of_the_original(text):
    assert from_phantom_spaces().encode(text) == wordpiece().encode(text)


def from_phantom_spaces():
    """BERT as GGUF spells it: "▁" before a word's first piece, nothing before the others."""
    original = wordpiece()
    tokens = [original.token(token_id) for token_id in range(original.vocabulary_size)]
    spelled = [
        token
        if token.startswith("[") and token.endswith("]") and len(token) > 1
        else token.removeprefix("##")
        if token.startswith("##")
        else "▁" + token
        for token in tokens
    ]
    ids = {"bos": 2, "unknown": 1, "seperator": 3, "padding": 0, "mask": 4}
    return tokenizer_from_gguf(
        {GGML + "model": "bert", GGML + "tokens": spelled, GGML + "token_type": [3] * 5 + [1] * 595}
        | {f"{GGML}{name}_token_id": token_id for name, token_id in ids.items()}
    )


def test_wordpiece_spells_its_tokens_as_bert_does():
    tokenizer, original = from_phantom_spaces(), wordpiece()
    assert tokenizer.vocabulary_size == original.vocabulary_size == 600
    assert [tokenizer.token(i) for i in range(600)] == [original.token(i) for i in range(600)]
    assert tokenizer.class_id == 2
    assert tokenizer.bos_id is None


def test_padding_tokens_of_one_name_keep_their_ids(byte_level_metadata):
    tokens = [*byte_level_metadata[GGML + "tokens"], "<pad>", "<pad>", ""]
    kinds = [*byte_level_metadata[GGML + "token_type"], 1, 1, 1]
    stated = byte_level_metadata | {GGML + "tokens": tokens, GGML + "token_type": kinds}
    tokenizer = tokenizer_from_gguf(stated)
    assert tokenizer.vocabulary_size == len(tokens)
    assert tokenizer.token_id("<pad>") == len(tokens) - 3


BROKEN = {
    "no model": ({GGML + "model": None}, "tokenizer.ggml.model is None; the known ones are gpt2"),
    "unknown model": ({GGML + "model": "rwkv"}, "is 'rwkv'; the known ones are gpt2"),
    "no tokens": ({GGML + "tokens": None}, "has no tokenizer.ggml.tokens"),
    "no merges": ({GGML + "merges": None}, "has no tokenizer.ggml.merges"),
    "short types": ({GGML + "token_type": [1]}, "token_type has 1 entries for 705 tokens"),
    "bos outside": ({GGML + "bos_token_id": 9999}, "gives bos_token the id 9999"),
    "near name": ({GGML + "pre": "qwen-2"}, "unknown pre-tokenizer 'qwen-2'.*qwen2"),
}


@pytest.mark.parametrize("change", BROKEN)
def test_an_incomplete_file_is_one_clear_error(byte_level_metadata, change):
    fields, message = BROKEN[change]
    with pytest.raises(ValueError, match=message):
        tokenizer_from_gguf(byte_level_metadata | fields)
