import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models
from transformers import AutoTokenizer

from limner.tokenizers import IncrementalDecoder, Tokenizer, load_tokenizer
from tests.tokenizers.samples import TEXTS, byte_level, sentencepiece_model, wordpiece

KINDS = ["byte-level", "wordpiece", "sentencepiece", "metaspace", "word end", "words"]


def words(decoder):
    vocabulary = {"▁the": 0, "cat": 1, "▁": 2, "s</w>": 3, "on": 4, "<unk>": 5}
    engine = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    if decoder is not None:
        engine.decoder = decoder
    return Tokenizer(engine)


@pytest.fixture(scope="module")
def tokenizers_by_kind(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tokenizer.model"
    path.write_bytes(sentencepiece_model("bpe", "llama"))
    return {
        "byte-level": byte_level(),
        "wordpiece": wordpiece(),
        "sentencepiece": load_tokenizer(path),
        "metaspace": words(decoders.Metaspace()),
        "word end": words(decoders.BPEDecoder()),
        "words": words(None),
    }


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), skip=st.booleans())
@settings(deadline=None, max_examples=150)
def test_pieces_joined_are_the_decoded_whole(tokenizers_by_kind, kind, data, skip):
    tokenizer = tokenizers_by_kind[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size + 3), max_size=20))
    decoder = IncrementalDecoder(tokenizer, skip_special_tokens=skip)
    pieces = [decoder.push(token_id) for token_id in ids]
    assert "".join(pieces) + decoder.finish() == tokenizer.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sentencepiece"])
@given(data=st.data(), skip=st.booleans())
@settings(deadline=None, max_examples=150)
def test_any_tokens_decode_as_the_tokenizers_package_has_them(tokenizers_by_kind, kind, data, skip):
    tokenizer = tokenizers_by_kind[kind]
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocabulary_size - 1), max_size=20))
    expected = tokenizer.engine.decode(ids, skip_special_tokens=skip)
    assert tokenizer.decode(ids, skip_special_tokens=skip) == expected


@given(text=TEXTS)
@settings(deadline=None, max_examples=150)
def test_byte_fallback_brings_any_text_back(tokenizers_by_kind, text):
    tokenizer = tokenizers_by_kind["sentencepiece"]
    ids = tokenizer.encode(text)
    text = text.replace("▁", " ")  # SentencePiece cannot tell them apart
    assert tokenizer.decode(ids) == text == tokenizer.engine.decode(ids)


@given(text=TEXTS)
@settings(deadline=None, max_examples=100)
def test_no_piece_ever_holds_half_a_character(text):
    tokenizer = byte_level()
    decoder = IncrementalDecoder(tokenizer)
    done = ""
    for token_id in tokenizer.encode(text):
        done += decoder.push(token_id)
        assert text.startswith(done)
    assert decoder.finish() == ""
    assert done == text


def test_an_emoji_of_several_tokens_comes_whole():
    tokenizer = byte_level()
    ids = tokenizer.encode("🦜")
    decoder = IncrementalDecoder(tokenizer)
    assert [decoder.push(token_id) for token_id in ids] == [*[""] * (len(ids) - 1), "🦜"]
    assert len(ids) > 1


def test_a_character_cut_short_becomes_a_replacement_at_the_end_only():
    tokenizer = byte_level()
    decoder = IncrementalDecoder(tokenizer)
    first, *others = [decoder.push(token_id) for token_id in tokenizer.encode("a🦜")[:-1]]
    assert first == "a"
    assert not any(others)
    assert decoder.finish() == "\ufffd"


def test_the_space_before_the_first_word_is_dropped_once(tokenizers_by_kind):
    tokenizer = tokenizers_by_kind["sentencepiece"]
    decoder = IncrementalDecoder(tokenizer)
    pieces = list(decoder.decode(tokenizer.encode("in  the")))
    assert pieces[0][0] == "i"
    assert "".join(pieces) == "in  the"


def test_words_of_wordpiece_are_spaced_as_they_come():
    tokenizer = wordpiece()
    decoder = IncrementalDecoder(tokenizer)
    assert "".join(decoder.decode(tokenizer.encode("The statements, in the"))) == (
        "the statements, in the"
    )


def test_a_decoder_for_speech_is_refused():
    with pytest.raises(ValueError, match="CTC"):
        words(decoders.CTC()).decode([1])


def test_transformers_streams_the_same_text(tmp_path):
    tokenizer = byte_level()
    tokenizer.save(tmp_path)
    ids = tokenizer.encode("naïve 日本語 👩‍👩‍👧 done")
    reference = AutoTokenizer.from_pretrained(tmp_path).decode(ids)
    assert "".join(IncrementalDecoder(tokenizer).decode(ids)) == reference


def test_tokens_that_are_only_fused_get_no_spaces():
    tokenizer = words(decoders.Fuse())
    assert tokenizer.decode([1, 4]) == tokenizer.engine.decode([1, 4]) == "caton"
