import subprocess
import sys

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import models, pre_tokenizers
from transformers import AutoTokenizer

from limner.tokenizers import Tokenizer, load_tokenizer
from tests.tokenizers.samples import ADDED, SPECIAL, TEXTS, byte_level, wordpiece

KINDS = {"byte-level BPE": byte_level, "WordPiece": wordpiece}


@pytest.fixture(scope="module", params=KINDS)
def saved(request, tmp_path_factory):
    """A tokenizer, and what transformers and limner open from its folder."""
    tokenizer = KINDS[request.param]()
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return tokenizer, AutoTokenizer.from_pretrained(folder), load_tokenizer(folder)


@given(text=TEXTS)
@settings(deadline=None, max_examples=150)
def test_a_saved_tokenizer_opens_in_transformers_with_equal_ids_and_texts(saved, text):
    tokenizer, reference, reloaded = saved
    ids = tokenizer.encode(text)
    assert reference(text, split_special_tokens=True)["input_ids"] == ids
    assert reloaded.encode(text) == ids
    assert reference(text)["input_ids"] == tokenizer.encode(text, parse_special=True)
    assert reference.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids)
    assert reference.decode(ids) == tokenizer.decode(ids, skip_special_tokens=False)


def test_a_saved_tokenizer_keeps_its_roles_and_template(saved):
    tokenizer, reference, reloaded = saved
    assert reloaded.roles == tokenizer.roles
    assert reloaded.special_ids == tokenizer.special_ids
    assert reloaded.stop_ids == tokenizer.stop_ids
    assert reference.pad_token_id == tokenizer.pad_id
    template = tokenizer.chat_template
    assert reference.chat_template == (template.source if template else None)


@pytest.mark.parametrize("tokenizer", [byte_level(), wordpiece()], ids=KINDS)
@given(text=TEXTS)
@settings(deadline=None, max_examples=100)
def test_text_never_becomes_a_special_token(tokenizer, text):
    found = tokenizer.special_ids.intersection(tokenizer.encode(text, add_special_tokens=False))
    assert found <= {tokenizer.unknown_id}


def test_special_tokens_are_read_from_text_only_when_asked():
    tokenizer = byte_level()
    end = tokenizer.eos_id
    assert end not in tokenizer.encode("so<|im_end|>")
    assert tokenizer.encode("so<|im_end|>", parse_special=True) == [*tokenizer.encode("so"), end]


def test_added_tokens_that_are_not_special_are_found_in_text():
    tokenizer = byte_level()
    assert tokenizer.token_id("    ") in tokenizer.encode("if x:\n    y")


def test_a_model_that_reaches_special_tokens_by_itself_is_kept_from_it():
    words = {"<unk>": 0, "<s>": 1, "a": 2, "<": 3, "s>": 4}
    engine = tokenizers.Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = Tokenizer(engine, roles={"bos_token": "<s>", "unk_token": "<unk>"})
    assert tokenizer.encode("a <s> a") == [2, 3, 4, 2]
    assert tokenizer.encode_batch(["<s>", "a"]) == [[3, 4], [2]]
    assert tokenizer.encode("a <s>", parse_special=True) == [2, 1]


def test_a_single_character_that_is_special_becomes_unknown():
    engine = tokenizers.Tokenizer(models.WordLevel({"<unk>": 0, "§": 1, "a": 2}, "<unk>"))
    engine.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = Tokenizer(engine, roles={"eos_token": "§", "unk_token": "<unk>"})
    assert tokenizer.encode("a § a") == [2, 0, 2]


@given(texts=st.lists(TEXTS, max_size=5), special=st.booleans())
@settings(deadline=None, max_examples=100)
def test_a_batch_is_its_texts_one_by_one(texts, special):
    for tokenizer in (byte_level(), wordpiece()):
        one_by_one = [tokenizer.encode(text, parse_special=special) for text in texts]
        assert tokenizer.encode_batch(texts, parse_special=special) == one_by_one


def test_a_pair_is_framed_as_bert_wants_it():
    tokenizer = wordpiece()
    first, second = tokenizer.encode("the", add_special_tokens=False), tokenizer.encode("in")[1:-1]
    start, end = tokenizer.class_id, tokenizer.separator_id
    ids, segments = tokenizer.encode_pair("the", "in")
    assert ids == [start, *first, end, *second, end]
    assert segments == [0] * (len(first) + 2) + [1] * (len(second) + 1)


def test_a_special_token_that_begins_the_text_is_not_doubled():
    tokenizer = wordpiece()
    assert tokenizer.encode("[CLS] the", parse_special=True) == tokenizer.encode("the")


def test_truncation_and_padding_from_the_file_cut_nothing():
    tokenizer = byte_level()
    engine = tokenizers.Tokenizer.from_str(tokenizer.engine.to_str())
    engine.enable_truncation(3)
    engine.enable_padding(length=50)
    assert Tokenizer(engine).encode("the longest text there is") == tokenizer.encode(
        "the longest text there is"
    )


def test_the_vocabulary_can_be_asked():
    tokenizer = byte_level()
    assert tokenizer.kind == "byte-level BPE"
    assert wordpiece().kind == "WordPiece"
    assert tokenizer.vocabulary_size == 700 + len(ADDED)
    assert {tokenizer.token_id(token) for token in SPECIAL} == tokenizer.special_ids
    assert tokenizer.bos_id == tokenizer.token_id("<|im_start|>")
    assert tokenizer.token_id("no such token") is None
    assert tokenizer.mask_id is None
    assert tokenizer.stop_ids == {tokenizer.eos_id}


@pytest.mark.parametrize("token_id", [-1, 100_000])
def test_an_id_outside_the_vocabulary_is_an_error_that_names_it(token_id):
    with pytest.raises(ValueError, match=rf"no token {token_id}: ids run from 0 to 704"):
        byte_level().token(token_id)


def test_bytes_of_tokens_join_to_the_text():
    tokenizer = byte_level()
    ids = tokenizer.encode("naïve 👩‍👩‍👧")
    assert b"".join(map(tokenizer.token_bytes, ids)) == "naïve 👩‍👩‍👧".encode()


def test_importing_tokenizers_imports_nothing_heavy():
    code = (
        "import sys, limner.tokenizers; "
        "print(sorted({'torch', 'transformers', 'jinja2', 'sentencepiece'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
