"""Tokenizers through GGUF metadata and back: the same ids for any text."""

import random
import unicodedata

import pytest
import tokenizers
from hypothesis import given, settings
from tokenizers import decoders, models, normalizers, pre_tokenizers

from limner.tokenizers import ChatTemplate, Tokenizer, load_tokenizer, tokenizer_from_gguf
from limner.tokenizers.gguf_writing import merge_scores, split_name, tokenizer_to_gguf
from limner.tokenizers.pretokenizers import WORD_SPLITS, word_split
from tests.tokenizers.samples import (
    TEXTS,
    byte_level,
    byte_level_engine,
    gguf_of_sentencepiece,
    sentencepiece_model,
    wordpiece,
    wordpiece_engine,
)

GGML = "tokenizer.ggml."
KINDS = ["byte-level", "wordpiece", "unigram", "unigram-nfkc", "llama", "gemma"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A tokenizer of each kind, and what became of it in a GGUF file."""

    def from_sentencepiece(kind, style):
        path = tmp_path_factory.mktemp(kind) / "tokenizer.model"
        path.write_bytes(sentencepiece_model(kind, style))
        return load_tokenizer(path)

    made = {
        "byte-level": byte_level(),
        "wordpiece": wordpiece(),
        "unigram": from_sentencepiece("unigram", "llama"),
        "unigram-nfkc": from_sentencepiece("unigram", "plain"),
        "llama": from_sentencepiece("bpe", "llama"),
        "gemma": from_sentencepiece("bpe", "gemma"),
    }
    return {name: (made[name], tokenizer_from_gguf(tokenizer_to_gguf(made[name]))) for name in made}


@pytest.mark.parametrize("kind", KINDS)
@given(text=TEXTS)
@settings(deadline=None, max_examples=150)
def test_ids_are_the_same_after_the_way_there_and_back(originals, kind, text):
    original, again = originals[kind]
    assert again.encode(text) == original.encode(text)
    assert again.encode_pair(text, "b") == original.encode_pair(text, "b")
    assert again.decode(again.encode(text)) == original.decode(original.encode(text))


@pytest.mark.parametrize("kind", KINDS)
def test_special_tokens_are_the_same(originals, kind):
    original, again = originals[kind]
    assert again.special_ids == original.special_ids
    assert again.stop_ids >= original.stop_ids  # llama.cpp knows more by their names
    for role in original.roles:
        assert again.role_id(role) == original.role_id(role)


@pytest.mark.parametrize("name", [n for n, split in WORD_SPLITS.items() if split.byte_level])
def test_the_way_of_cutting_is_found_by_trying(name):
    split = word_split(name)
    engine = tokenizers.Tokenizer(models.BPE())
    engine.pre_tokenizer = split.build()
    found = word_split(split_name(engine, ignore_merges=split.ignore_merges))
    draw, ours, theirs = random.Random(0), found.build(), split.build()
    alphabet = " \n\r\t\u3000aB'sSlLd12٣½.,!/$+<_漢かम्\u0301한ǅʰé…\u2581👩\u200d"
    for _ in range(300):
        text = "".join(draw.choices(alphabet, k=12))
        assert ours.pre_tokenize_str(text) == theirs.pre_tokenize_str(text)
    assert found.ignore_merges == split.ignore_merges


def test_a_way_of_cutting_without_a_name_is_refused():
    engine = byte_level_engine()
    engine.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    with pytest.raises(ValueError, match=r"a way that llama.cpp has no name for"):
        tokenizer_to_gguf(Tokenizer(engine))


def test_what_a_file_cannot_say_is_refused_by_what_it_would_change():
    engine = wordpiece_engine()
    engine.normalizer = normalizers.Sequence([normalizers.NFKC(), engine.normalizer])
    with pytest.raises(ValueError, match=r"no GGUF form: llama.cpp would read '"):
        tokenizer_to_gguf(Tokenizer(engine, roles=wordpiece().roles))
    engine = tokenizers.Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    with pytest.raises(ValueError, match=r"a word tokenizer has no GGUF form: llama.cpp knows"):
        tokenizer_to_gguf(Tokenizer(engine))


def test_the_rest_of_a_larger_model_is_filled_up():
    metadata = tokenizer_to_gguf(wordpiece(), 640)
    assert len(metadata[GGML + "tokens"]) == len(set(metadata[GGML + "tokens"])) == 640
    assert metadata[GGML + "token_type"][600:] == [5] * 40
    with pytest.raises(ValueError, match="has 600 tokens but the model only 599"):
        tokenizer_to_gguf(wordpiece(), 599)


def test_templates_and_unusual_ends_are_kept():
    roles = {"bos_token": "<s>", "eos_token": "</s>"}
    template = ChatTemplate({"default": "{{ messages[0].content }}", "tool_use": "tools"})
    ends = [byte_level().token_id("[INST]"), byte_level().token_id("<think>")]
    tokenizer = Tokenizer(byte_level_engine(), roles=roles, chat_template=template, stop_ids=ends)
    again = tokenizer_from_gguf(tokenizer_to_gguf(tokenizer))
    assert again.chat_template is not None
    assert again.chat_template.sources == template.sources
    assert again.stop_ids >= tokenizer.stop_ids


def test_composing_is_left_out_with_a_warning(caplog):
    engine = byte_level_engine()
    engine.normalizer = normalizers.NFC()
    original = Tokenizer(engine, roles=byte_level().roles)
    again = tokenizer_from_gguf(tokenizer_to_gguf(original))
    assert "does not compose characters (NFC)" in caplog.text
    assert again.encode("e\u0301") != original.encode("e\u0301")
    assert again.encode(unicodedata.normalize("NFC", "e\u0301")) == original.encode("e\u0301")


def test_merges_become_scores_in_their_order():
    scores = merge_scores(["a", "b", "ab", "abb", "bb"], [["b", "b"], ["a", "bb"], ["ab", "b"]])
    assert scores == [-2.0, -2.0, -2.0, -1.0, 0.0]


def test_metaspace_as_transformers_writes_it_is_understood(caplog):
    """Llama's tokenizer.json has two forms: Prepend and Replace, and Metaspace."""
    original = load_llama()
    engine = tokenizers.Tokenizer.from_str(original.engine.to_str())
    engine.normalizer = None
    engine.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    engine.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    again = tokenizer_from_gguf(tokenizer_to_gguf(Tokenizer(engine, roles=original.roles)))
    assert again.encode("two  words") == original.encode("two  words")
    assert "spaces at the ends of a text otherwise" in caplog.text


def load_llama():
    """SentencePiece BPE as Llama has it, through the file of the reading tests."""
    return tokenizer_from_gguf(gguf_of_sentencepiece(sentencepiece_model("bpe", "llama"), "llama"))
