import logging
import pickle
from pydoc_data.topics import topics

import numpy
import pytest
import tokenizers
from hypothesis import given, settings
from tokenizers import decoders, models, pre_tokenizers, trainers

from limner.tokenizers import Tokenizer, bulk
from limner.tokenizers.bulk import BulkEncoder, Encoded, joined, some_pieces
from limner.tokenizers.pretokenizers import word_split
from tests.tokenizers.samples import SPECIAL, TEXTS, byte_level, wordpiece

LIBRARIES = ("gigatok", "tokie")
LONG = list(topics.values())[:10]


def trained(split, alphabet=None):
    engine = tokenizers.Tokenizer(models.BPE())
    engine.pre_tokenizer = word_split(split).build()
    engine.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=SPECIAL,
        initial_alphabet=alphabet or sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    engine.train_from_iterator(LONG, trainer)
    return Tokenizer(engine, roles={"eos_token": "</s>"})


SAMPLES = {
    "gpt-2": trained("gpt-2"),
    "llama-bpe": trained("llama-bpe"),
    "gpt-4o": trained("gpt-4o"),
    "smollm without some bytes": trained("smollm", list("abc")),
    "wordpiece": wordpiece(),
    "added tokens": byte_level(),
}


def slowly(tokenizer, texts):
    return [tokenizer.encode(text, add_special_tokens=False) for text in texts]


@pytest.mark.parametrize("name", SAMPLES)
@settings(deadline=None, max_examples=50)
@given(text=TEXTS)
def test_ids_are_the_tokenizers_own(name, text):
    texts = [text, "", f"a{text}", " Ⅻ ٣½²"]
    tokenizer = SAMPLES[name]
    found = tokenizer.bulk.encode(texts)
    assert [ids.tolist() for ids in found.split()] == slowly(tokenizer, texts)


@pytest.mark.parametrize(
    ("name", "library"), [("gpt-2", "gigatok"), ("llama-bpe", "gigatok"), ("wordpiece", "tokie")]
)
def test_a_fast_library_is_used_where_it_is_right(name, library):
    pytest.importorskip(library)
    tokenizer = SAMPLES[name]
    encoder = BulkEncoder(tokenizer)
    found = encoder.encode(LONG)
    assert encoder.library == library
    assert [ids.tolist() for ids in found.split()] == slowly(tokenizer, LONG)


def test_without_the_libraries_tokenizers_does_it(monkeypatch):
    def absent(_spec):
        raise ModuleNotFoundError("No module named 'gigatok'")

    monkeypatch.setattr(bulk, "LIBRARIES", {"gigatok": absent})
    encoder = BulkEncoder(byte_level())
    found = encoder.encode(["some text", "more"])
    assert [ids.tolist() for ids in found.split()] == slowly(byte_level(), ["some text", "more"])
    assert encoder.library == "tokenizers"


def wrong_for(word):
    """A library that is right until a word comes."""

    def load(_spec):
        def encode(texts):
            found = joined(slowly(byte_level(), texts))
            return Encoded(found.ids + any(word in text for text in texts), found.lengths)

        return encode

    return load


def test_a_library_that_is_wrong_is_not_used(monkeypatch):
    monkeypatch.setattr(bulk, "LIBRARIES", {"wrong": wrong_for("naïve")})
    encoder = BulkEncoder(byte_level())
    encoder.encode(["plain"])
    assert encoder.library == "tokenizers"


def test_a_library_that_turns_out_wrong_is_given_up_with_a_warning(monkeypatch, caplog):
    monkeypatch.setattr(bulk, "LIBRARIES", {"wrong": wrong_for("zebra")})
    encoder = BulkEncoder(byte_level())
    encoder.encode(["plain"])
    assert encoder.library == "wrong"
    with caplog.at_level(logging.WARNING):
        found = encoder.encode(["a zebra"])
    assert "wrong has other tokens than tokenizers" in caplog.text
    assert [ids.tolist() for ids in found.split()] == slowly(byte_level(), ["a zebra"])
    assert encoder.library == "tokenizers"


class PanicException(BaseException):
    """As PyO3 raises it where Rust panics."""


def broken_for(word, error):
    """A library that is right until a word comes, and then fails."""

    def load(_spec):
        if not word:
            raise error

        def encode(texts):
            if any(word in text for text in texts):
                raise error
            return joined(slowly(byte_level(), texts))

        return encode

    return load


@pytest.mark.parametrize("word", ["", "naïve", "zebra"])
def test_a_library_that_panics_is_given_up_with_one_line(monkeypatch, caplog, word):
    panic = PanicException("index out of bounds: the len is 3\nat src/lib.rs")
    monkeypatch.setattr(bulk, "LIBRARIES", {"broken": broken_for(word, panic)})
    encoder = BulkEncoder(byte_level())
    with caplog.at_level(logging.INFO, "limner.tokenizers"):
        for text in ("plain", "a zebra", "a zebra"):
            found = encoder.encode([text])
            assert [ids.tolist() for ids in found.split()] == slowly(byte_level(), [text])
    assert encoder.library == "tokenizers"
    (line,) = [text for text in caplog.messages if "panicked" in text]
    assert line.startswith("broken ")
    assert "index out of bounds: the len is 3" in line
    assert "src/lib.rs" not in line


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("word", ["", "naïve", "zebra"])
def test_to_be_stopped_is_no_panic(monkeypatch, word, error):
    monkeypatch.setattr(bulk, "LIBRARIES", {"stopped": broken_for(word, error())})
    encoder = BulkEncoder(byte_level())
    with pytest.raises(error):
        list(map(encoder.encode, [["plain"], ["a zebra"]]))


def test_pieces_are_spread_over_all_texts():
    texts = ["x" * 30_000, "y" * 10, "z" * 70_000]
    pieces = list(some_pieces(texts, 0.1))
    assert 8_000 <= sum(map(len, pieces)) <= 14_000
    assert {piece[0] for piece in pieces} == {"x", "z"}
    assert list(some_pieces(["short"], 5.0)) == ["short"]


def test_frames_stand_around_each_text():
    encoded = joined([[1, 2], [], [3]])
    framed = encoded.framed([8], [9, 7])
    assert [ids.tolist() for ids in framed.split()] == [[8, 1, 2, 9, 7], [8, 9, 7], [8, 3, 9, 7]]
    assert joined([]).framed([1], [2]).ids.tolist() == []
    numpy.testing.assert_array_equal(framed.lengths, [5, 3, 4])


def test_another_process_chooses_for_itself():
    encoder = BulkEncoder(byte_level())
    encoder.encode(["x"])
    assert pickle.loads(pickle.dumps(joined([[1]]))).ids.tolist() == [1]
    kind, (tokenizer,) = encoder.__reduce__()
    assert kind(tokenizer).library == ""
