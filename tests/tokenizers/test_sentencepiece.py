import unicodedata

import pytest
import sentencepiece
from hypothesis import assume, given, settings
from transformers import AutoTokenizer

from limner.tokenizers import load_tokenizer
from tests.tokenizers.samples import SENTENCEPIECE_SETTINGS, TEXTS, sentencepiece_model

MODELS = [(kind, name) for kind in ("bpe", "unigram") for name in SENTENCEPIECE_SETTINGS]


@pytest.fixture(scope="module", params=MODELS, ids="-".join)
def models(request, tmp_path_factory):
    """Our reading of a model file, the library's, and what transformers opens once we saved it."""
    folder = tmp_path_factory.mktemp("model")
    path = folder / "spiece.model"
    path.write_bytes(sentencepiece_model(*request.param))
    tokenizer = load_tokenizer(path)
    tokenizer.save(folder / "saved")
    reference = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return tokenizer, reference, AutoTokenizer.from_pretrained(folder / "saved")


@given(text=TEXTS)
@settings(deadline=None, max_examples=120)
def test_ids_are_those_of_the_library(models, text):
    tokenizer, reference, _ = models
    # `tokenizers` drops the marks that stand on a character which the model's table replaces.
    assume(not has_table(tokenizer) or not has_marks(unicodedata.normalize("NFC", text)))
    assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(text)


def has_table(tokenizer):
    return tokenizer.engine.normalizer.normalize_str("½").removeprefix("▁") != "½"


def has_marks(text):
    return any(unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf") for character in text)


@pytest.mark.parametrize("text", ["한국어 텍스트", "café", "Việt Nam tiếng", "ガギグ", "Ж́ й ё"])
def test_decomposed_text_has_the_ids_of_the_library(models, text):
    tokenizer, reference, _ = models
    text = unicodedata.normalize("NFD", text)
    assert tokenizer.encode(text, add_special_tokens=False) == reference.encode(text)


@given(text=TEXTS)
@settings(deadline=None, max_examples=150)
def test_a_saved_model_opens_in_transformers_with_equal_ids(models, text):
    tokenizer, _, saved = models
    # transformers reads "</s>" out of the text with a unigram model, even when told not to.
    names = [tokenizer.token(i) for i in (*tokenizer.special_ids, *range(260))]
    assume(not any(name in text for name in names if len(name) > 2 and name.endswith((">", "]"))))
    assert saved(text, split_special_tokens=True)["input_ids"] == tokenizer.encode(text)


@given(text=TEXTS)
@settings(deadline=None, max_examples=150)
def test_text_never_becomes_a_special_token(models, text):
    tokenizer, _, _ = models
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.special_ids.intersection(ids) <= {tokenizer.unknown_id}


def test_texts_come_back(models):
    tokenizer, reference, _ = models
    ids = tokenizer.encode("statements in the")
    assert tokenizer.decode(ids) == reference.decode(ids) == "statements in the"


def test_the_kind_and_the_roles_are_known(models):
    tokenizer, reference, _ = models
    assert tokenizer.kind in ("SentencePiece BPE", "unigram")
    assert tokenizer.vocabulary_size == reference.get_piece_size()
    assert (tokenizer.bos_id, tokenizer.eos_id) == (reference.bos_id(), reference.eos_id())
    assert tokenizer.unknown_id == reference.unk_id()
    assert tokenizer.encode("a")[0] == reference.bos_id()


def test_a_piece_that_names_a_byte_is_text_when_a_user_writes_it(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(sentencepiece_model("unigram", "llama"))
    tokenizer = load_tokenizer(path)
    assert tokenizer.decode(tokenizer.encode("<0x41> <unk>")) == "<0x41> <unk>"


@pytest.mark.parametrize(
    "content",
    [b"", b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"not a model at all", b"\x0a"],
)
def test_a_damaged_file_is_one_clear_error(tmp_path, content):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"tokenizer\.model: not a SentencePiece model"):
        load_tokenizer(path)


def test_a_file_cut_short_is_one_clear_error(tmp_path):
    path = tmp_path / "tokenizer.model"
    path.write_bytes(sentencepiece_model("bpe", "plain")[:5000])
    with pytest.raises(
        ValueError, match=r"tokenizer\.model: not a SentencePiece model, or cut short"
    ):
        load_tokenizer(path)
