import pytest

from limner.tokenizers import tokenizer_from_gguf
from limner.tokenizers.pretokenizers import WORD_SPLITS, word_split
from tests.tokenizers.samples import byte_level_engine, gguf_of_bpe

TEXT = "I'LL pay 1234567 yen\r\n\r\n  for 日本語かな HelloWorld's e\u0301e\u0301, naïve_x!!\n"

# How models in use cut the same text, by what their tokenizer.json does with it.
WORDS = {
    "gpt-2": "1234567",
    "smollm": "1|2|3|4|5|6|7",
    "llama-bpe": "123|456|7",
    "qwen2": "1|2|3|4|5|6|7",
    "deepseek-v3": "123|456|7",
    "gpt-4o": "123|456|7",
    "tekken": "1|2|3|4|5|6|7",
    "superbpe": "1|234|567",
    "afmoe": "1|234|567",
    "tiny_aya": "1|234|567",
}


def words(name, text):
    split = word_split(name)
    # The byte alphabet is undone, so that words can be read.
    pieces = split.build().pre_tokenize_str(text)
    return [text[start:end] for _, (start, end) in pieces]


@pytest.mark.parametrize("name", WORDS)
def test_digits_are_grouped_as_the_models_are_used_to(name):
    assert "|".join(words(name, "1234567")) == WORDS[name]


@pytest.mark.parametrize("name", WORD_SPLITS)
def test_every_name_cuts_text_without_losing_any(name):
    assert "".join(words(name, TEXT)) == TEXT


BYTE_LEVEL = [name for name, split in WORD_SPLITS.items() if split.byte_level]


@pytest.fixture(scope="module")
def metadata():
    return gguf_of_bpe(byte_level_engine(), "default")


@pytest.mark.parametrize("name", BYTE_LEVEL)
def test_every_byte_level_name_gives_a_tokenizer_that_returns_its_text(metadata, name):
    tokenizer = tokenizer_from_gguf(metadata | {"tokenizer.ggml.pre": name})
    assert tokenizer.decode(tokenizer.encode(TEXT)) == TEXT


def test_contractions_differ_in_case():
    assert words("gpt-2", "I'LL we'll") == ["I", "'", "LL", " we", "'ll"]
    assert words("llama-bpe", "I'LL we'll") == ["I", "'LL", " we", "'ll"]
    assert words("gpt-4o", "I'LL we'll") == ["I'LL", " we'll"]


def test_words_break_at_capitals_in_gpt_4o_only():
    assert words("gpt-4o", "HelloWorld") == ["Hello", "World"]
    assert words("llama-bpe", "HelloWorld") == ["HelloWorld"]


def test_marks_stay_on_their_letters_where_the_model_learnt_so():
    assert words("qwen35", "e\u0301a") == ["e\u0301a"]
    assert words("qwen2", "e\u0301a") == ["e", "\u0301a"]


def test_kimi_keeps_han_apart():
    assert words("kimi-k2", "A漢字b") == ["A", "漢字", "b"]


def test_an_unknown_name_is_an_error_that_gives_the_nearest():
    with pytest.raises(ValueError, match=r"unknown pre-tokenizer 'llama-bpf'.*llama-bpe"):
        word_split("llama-bpf")
