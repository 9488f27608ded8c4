import itertools

import numpy
import pytest

from limner.data import manifest, preparing
from limner.data.corpus import lengths, open_corpus
from limner.data.manifest import MANIFEST, read_manifest
from limner.data.preparing import prepare
from limner.data.sources import text_source
from limner.files import write_whole
from limner.tokenizers import load_tokenizer
from tests.tokenizers.samples import byte_level, wordpiece

TEXTS = [f"text number {number} " * (number % 7 + 1) for number in range(60)]


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(preparing, "BATCH_CHARACTERS", 100)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "texts").write_text("\n".join(TEXTS))
    return lambda: text_source(tmp_path / "texts", unit="line")


def expected_documents():
    tokenizer = byte_level()
    return [[*tokenizer.encode(text), tokenizer.eos_id] for text in TEXTS]


def all_tokens(corpus):
    return corpus.read(0, len(corpus))[0].tolist()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_hold_every_document_with_its_end(source, tmp_path):
    made = prepare(source(), byte_level(), tmp_path / "tokens", shard_tokens=200)
    assert len(made.shards) > 3
    assert made.dtype == "uint16"
    corpus, again = open_corpus(tmp_path / "tokens", byte_level())
    assert again == made
    documents = expected_documents()
    assert all_tokens(corpus) == list(itertools.chain(*documents))
    assert lengths(corpus) == list(map(len, documents))
    assert made.text_bytes == sum(map(len, TEXTS))
    assert made.tokens == len(corpus)
    assert load_tokenizer(tmp_path / "tokens").encode("a text") == byte_level().encode("a text")


def test_any_stretch_across_shards_is_read_as_from_one_array(source, tmp_path):
    prepare(source(), byte_level(), tmp_path / "tokens", shard_tokens=50)
    corpus, _ = open_corpus(tmp_path / "tokens")
    documents = expected_documents()
    tokens = numpy.array(list(itertools.chain(*documents)))
    numbers = numpy.repeat(numpy.arange(len(documents)), list(map(len, documents)))
    for start in range(0, len(tokens), 37):
        for length in (0, 1, 60, 500):
            stop = min(start + length, len(tokens))
            got = corpus.read(start, stop)
            numpy.testing.assert_array_equal(got[0], tokens[start:stop])
            numpy.testing.assert_array_equal(got[1], numbers[start:stop])


@pytest.mark.parametrize("killed_at", range(2, 12, 3))
def test_a_killed_preparation_goes_on_to_the_same_files(source, tmp_path, monkeypatch, killed_at):
    prepare(source(), byte_level(), tmp_path / "straight", shard_tokens=200)
    writes = itertools.count(1)
    write = write_whole

    def killed(path, parts):
        if next(writes) == killed_at:
            raise KeyboardInterrupt
        write(path, parts)

    for room in (preparing, manifest):
        monkeypatch.setattr(room, "write_whole", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(source(), byte_level(), tmp_path / "tokens", shard_tokens=200)
    with pytest.raises(ValueError, match="not finished: run the same `limner data prepare` again"):
        open_corpus(tmp_path / "tokens")
    for room in (preparing, manifest):
        monkeypatch.setattr(room, "write_whole", write)
    prepare(source(), byte_level(), tmp_path / "tokens", shard_tokens=200)
    assert files(tmp_path / "tokens") == files(tmp_path / "straight")


def test_other_work_in_the_folder_is_refused(source, tmp_path):
    folder = tmp_path / "tokens"
    prepare(source(), byte_level(), folder)
    with pytest.raises(ValueError, match="made by another tokenizer"):
        prepare(source(), wordpiece(), folder)
    (tmp_path / "other").write_text("other")
    with pytest.raises(ValueError, match=r"holds tokens of '.*texts', not of '.*other'"):
        prepare(text_source(tmp_path / "other"), byte_level(), folder)
    with pytest.raises(ValueError, match="made by another tokenizer"):
        open_corpus(folder, wordpiece())


@pytest.mark.parametrize("what", ["byte", "length", "missing"])
def test_a_damaged_shard_is_named_and_refused(source, tmp_path, what):
    prepare(source(), byte_level(), tmp_path, shard_tokens=200)
    shard = tmp_path / "00002.tokens"
    content = bytearray(shard.read_bytes())
    if what == "byte":
        content[5] ^= 1
        shard.write_bytes(content)
    elif what == "length":
        shard.write_bytes(content[:-8])
    else:
        shard.unlink()
    with pytest.raises((ValueError, FileNotFoundError), match=r"the shard .*00002\.tokens"):
        open_corpus(tmp_path)


def test_a_damaged_manifest_is_named(tmp_path):
    (tmp_path / MANIFEST).write_text('{"dtype": "int8"}')
    with pytest.raises(ValueError, match=r"manifest\.json is damaged \(dtype"):
        read_manifest(tmp_path)


def test_a_tokenizer_that_ends_its_inputs_needs_no_other_end(source, tmp_path):
    prepare(source(), wordpiece(), tmp_path)
    corpus, _ = open_corpus(tmp_path)
    tokens, documents = corpus.read(0, len(corpus))
    tokenizer = wordpiece()
    assert tokens[documents == 3].tolist() == tokenizer.encode(TEXTS[3])


def test_no_text_is_an_error(tmp_path):
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(ValueError, match=r"holds no text"):
        prepare(text_source(tmp_path / "empty", unit="line"), byte_level(), tmp_path / "tokens")
