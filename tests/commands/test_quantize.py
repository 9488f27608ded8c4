import json
import re

import pytest

import limner as package
from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from limner.evaluation.perplexity import perplexity
from limner.models.families import find_family
from limner.tokenizers import load_tokenizer
from tests.families import bert
from tests.quantization.networks import tiny as network
from tests.text_folders import tokenizer as words
from tests.tokenizers.samples import byte_level

TEXT = ("the cat sat on the big house in Paris\n\n" * 3 + "a dog ran under the red tree\n\n") * 9


@pytest.fixture
def model(tmp_path):
    words(framed=False).save_pretrained(tmp_path / "words")
    save_folder(network(), tmp_path / "model", load_tokenizer(tmp_path / "words"))
    return tmp_path / "model"


@pytest.fixture
def speller(tmp_path):
    """A model whose tokenizer llama.cpp knows."""
    tokenizer = byte_level()
    save_folder(network(vocab_size=tokenizer.vocabulary_size), tmp_path / "speller", tokenizer)
    return tmp_path / "speller"


@pytest.fixture
def settings(write):
    text = write("texts.txt", TEXT.encode())
    return [f"calibration={text}", "rows=4", "length=32", "measure=60"]


def told(lines):
    """The perplexity before and after."""
    found = re.search(r"perplexity +([\d.]+) before, ([\d.]+) after", lines)
    assert found is not None
    return float(found[1]), float(found[2])


@pytest.mark.parametrize(
    ("method", "layout", "bits"),
    [
        ("rtn", "compressed-tensors", "4.500"),
        ("fp8", "compressed-tensors", "8.467"),
        ("gptq", "gptq", "4.625"),
        ("awq", "awq", "4.625"),
        ("outliers", "limner_outliers", "9.188"),
    ],
)
def test_a_model_gets_fewer_bits_and_its_cost_is_told(
    limner, model, settings, tmp_path, method, layout, bits
):
    folder = tmp_path / "small"
    result = limner("quantize", model, folder, f"method={method}", *settings)
    assert (result.code, result.out) == (0, f"{folder}\n"), result.err
    config = json.loads((folder / "config.json").read_text())
    assert config["quantization_config"]["quant_method"] == layout
    assert f" {bits} bits each" in result.err
    before, after = told(result.err)
    assert after == pytest.approx(before, rel=0.2)
    assert "bits a byte" in result.err
    assert "size" in result.err
    assert limner("generate", folder, "the cat", "--raw", "max_tokens=3").code == 0


@pytest.mark.parametrize(
    ("source", "name", "close"), [("model", "small", 1e-3), ("speller", "small.gguf", 1e-4)]
)
def test_what_was_measured_is_what_was_written(
    limner, request, settings, tmp_path, source, name, close
):
    target, text = tmp_path / name, tmp_path / "texts.txt"
    model = request.getfixturevalue(source)
    after = told(limner("quantize", model, target, *settings, f"text={text}").err)[1]
    loaded = package.load(target)
    again = perplexity(loaded.network, loaded.tokenizer, TEXT, limit=60).perplexity
    assert again == pytest.approx(after, rel=close)


def test_eight_bits_are_symmetric_and_a_layout_can_be_chosen(limner, model, settings, tmp_path):
    words = ["method=rtn", "bits=8", "group=null", "layout=gptq", "measure=0"]
    result = limner("quantize", model, tmp_path / "small", *settings[:3], *words)
    assert result.code == 0, result.err
    fields = json.loads((tmp_path / "small" / "config.json").read_text())["quantization_config"]
    assert (fields["bits"], fields["group_size"], fields["sym"]) == (8, -1, True)
    assert "perplexity" not in result.err


@pytest.mark.parametrize(
    ("words", "kind", "bits"),
    [
        (["method=rtn", "bits=8"], "Q8_0", "8.500"),
        (["method=gptq"], "Q4_1", "5.000"),
        (["method=awq", "symmetric=true"], "Q4_0", "4.500"),
    ],
)
def test_a_gguf_file_holds_weights_and_tokenizer(
    limner, speller, settings, tmp_path, words, kind, bits
):
    file = tmp_path / "small.gguf"
    result = limner("quantize", speller, file, *words, *settings)
    assert (result.code, result.out) == (0, f"{file}\n"), result.err
    assert f" {bits} bits each" in result.err
    opened = open_checkpoint(file)
    assert opened.source.format("blk.0.ffn_up.weight") == kind
    assert opened.source.format("token_embd.weight") == "Q8_0"
    ours, theirs = opened.tokenizer(), byte_level()
    assert ours.encode("the cat's 12 naïve houses") == theirs.encode("the cat's 12 naïve houses")
    assert ours.chat_template
    assert theirs.chat_template
    assert ours.chat_template.sources == theirs.chat_template.sources
    assert limner("generate", file, "the cat", "--raw", "max_tokens=3").code == 0


def test_mistakes_in_asking_for_a_gguf_file_are_said(
    limner, refused, model, speller, settings, tmp_path, write
):
    file = tmp_path / "small.gguf"
    line = refused("quantize", model, file, "method=outliers", *settings)
    assert "layout=gguf has no place for method=outliers: leave it out and name a folder" in line
    line = refused("quantize", model, file, "layout=awq", *settings)
    assert "layout=awq is that of a folder" in line
    line = refused("quantize", model, file, "bits=8", "symmetric=false", *settings)
    assert "GGUF files hold 8 bits without zeros" in line
    line = refused("quantize", model, file, *settings)
    assert "a word tokenizer has no GGUF form" in line
    line = refused("quantize", model, file, "group=64", *settings)
    assert "GGUF files have groups of 32" in line
    assert not file.exists()
    write("small.gguf", b"mine")
    line = refused("quantize", model, file, *settings)
    assert "is there already: name another file, or give --force" in line
    assert file.read_bytes() == b"mine"
    assert limner("quantize", speller, file, "method=rtn", "measure=0", "--force").code == 0
    assert file.read_bytes().startswith(b"GGUF")


def test_encoders_are_sent_to_convert(limner, refused, settings, tmp_path):
    encoder = find_family("bert").read_config(bert(architectures=["BertModel"])).build()
    encoder.initialise(0.1)
    words().save_pretrained(tmp_path / "words")
    save_folder(encoder, tmp_path / "encoder", load_tokenizer(tmp_path / "words"))
    line = refused("quantize", tmp_path / "encoder", tmp_path / "e.gguf", "method=rtn", *settings)
    assert "use it with --format Q8_0" in line


def test_mistakes_come_before_the_work(refused, model, settings, tmp_path):
    folder = tmp_path / "small"
    line = refused("quantize", model, folder, "method=outliers", "bits=4", *settings)
    assert "method=outliers rounds to 8 bits" in line
    line = refused("quantize", model, folder, "method=outliers", "layout=gptq", *settings)
    assert "layout=gptq has no place for method=outliers" in line
    line = refused("quantize", model, folder, "method=fp8", "layout=gptq", *settings)
    assert "layout=gptq has no place for method=fp8: leave it out and name a folder" in line
    for word in ("bits=4", "group=32", "symmetric=false"):
        line = refused("quantize", model, folder, "method=fp8", word, *settings)
        assert f"8 bits and a scale for each row: leave {word.partition('=')[0]} out" in line
    line = refused("quantize", model, folder, "method=awq", "symmetric=true", *settings)
    assert "AWQ folders hold 4 bits with zeros" in line
    line = refused("quantize", model, folder, "group=64", *settings)
    assert "groups of 64 do not divide 96 inputs" in line
    line = refused("quantize", model, folder, "calibration=nowhere.txt")
    assert "nowhere.txt" in line
    assert not folder.exists()
