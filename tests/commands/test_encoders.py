"""`limner embed`, `fill-mask`, `translate` and `transcribe` on tiny models."""

import json

import pytest

from tests.families import bert, t5
from tests.text_folders import write_folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT with a masked head."""
    folder = tmp_path_factory.mktemp("bert")
    write_folder(folder, bert(architectures=["BertForMaskedLM"]))
    return folder


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    """A T5."""
    folder = tmp_path_factory.mktemp("t5")
    write_folder(folder, t5(), framed=False, eos_token="[SEP]")
    return folder


def test_embed_prints_a_vector_for_each_line(limner, encoder):
    lines = limner("embed", encoder, stdin=b"the cat\n\na dog in Paris\n").out.splitlines()
    found = [json.loads(line) for line in lines]
    assert [each["text"] for each in found] == ["the cat", "a dog in Paris"]
    assert {len(each["embedding"]) for each in found} == {42}
    (alone,) = limner("embed", encoder, "the cat").out.splitlines()
    assert json.loads(alone)["embedding"] == pytest.approx(found[0]["embedding"], abs=1e-5)


def test_embed_says_how_alike_texts_are(limner, encoder):
    result = limner("embed", encoder, "--to", "the cat", stdin=b"the cat\na dog\n")
    first, second = (json.loads(line) for line in result.out.splitlines())
    assert first == {"text": "the cat", "similarity": pytest.approx(1, abs=1e-5)}
    assert second["similarity"] < 1


def test_fill_mask_prints_candidates_for_each_blank(limner, encoder):
    text = "the [MASK] sat in [MASK]"
    blanks = limner("fill-mask", encoder, text, "--top", "3").out.split("\n\n")
    assert len(blanks) == 2
    for blank in blanks:
        shares = [float(line.split("%")[0]) for line in blank.strip().splitlines()]
        assert len(shares) == 3
        assert shares == sorted(shares, reverse=True)


def test_fill_mask_names_how_blanks_are_written(refused, encoder):
    assert "write [MASK] where a word is missing" in refused("fill-mask", encoder, "the cat")


def test_translate_prints_a_text(limner, writer):
    words = ("translate", writer, "the cat sat", "--max-tokens", "4")
    greedy = limner(*words, "--num-beams", "1")
    assert greedy.code == 0
    assert len(greedy.out.split()) <= 4
    assert limner(*words, "--temperature", "9", "--seed", "1").out != greedy.out


def test_translate_reads_special_tokens_where_that_is_asked_for(limner, writer):
    words = ("translate", writer, "the [MASK] sat", "--max-tokens", "4", "--num-beams", "1")
    assert limner(*words, "--parse-special").out != limner(*words).out


@pytest.mark.parametrize(
    ("command", "kind"), [("embed", "t5"), ("fill-mask", "t5"), ("translate", "bert")]
)
def test_a_model_that_does_not_fit_is_told_what_does(limner, encoder, writer, command, kind):
    folder = encoder if kind == "bert" else writer
    result = limner(command, folder, "the cat")
    if command == "embed":  # the vectors of its encoder
        assert result.code == 0
        return
    fitting = {"t5": "`limner translate`", "bert": "`limner fill-mask`, `limner embed`"}[kind]
    assert result.code == 2
    assert f"does not fit `limner {command}`: it is an encoder" in result.err
    assert fitting in result.err


def test_transcribe_wants_a_file_that_exists(refused, writer):
    assert "no sound file 'missing.wav'" in refused("transcribe", writer, "missing.wav")


def test_transcribe_wants_a_model_that_hears(refused, writer, tmp_path):
    (tmp_path / "x.wav").write_bytes(b"RIFF")
    line = refused("transcribe", writer, tmp_path / "x.wav")
    assert "does not fit `limner transcribe`" in line
