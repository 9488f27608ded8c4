import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import limner as package
from limner.checkpoints.checkpoint import open_checkpoint, save_folder
from tests.checkpoints.gguf_samples import read_there
from tests.quantization.networks import tiny as network
from tests.tokenizers.samples import byte_level


def test_the_folder_opens_in_transformers_with_equal_logits(limner, tiny, tmp_path):
    folder = tmp_path / "model"
    assert limner("convert", tiny, folder).out == f"{folder}\n"
    model = package.load(tiny)
    tokens = model.encode("the quick brown fox")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        expected = theirs(torch.tensor([tokens])).logits[0]
    torch.testing.assert_close(model.logits(tokens), expected, atol=1e-4, rtol=1e-4)
    assert AutoTokenizer.from_pretrained(folder)("the quick brown fox").input_ids == tokens


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_are_written_in_the_format_asked_for_and_keep_it(limner, tiny, tmp_path, dtype):
    limner("convert", tiny, tmp_path / "one", "--dtype", dtype)
    assert json.loads((tmp_path / "one" / "config.json").read_text())["dtype"] == dtype
    limner("convert", tmp_path / "one", tmp_path / "two")
    assert json.loads((tmp_path / "two" / "config.json").read_text())["dtype"] == dtype


def test_a_folder_with_something_in_it_is_kept_unless_forced(limner, refused, tiny, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    assert "is not empty" in refused("convert", tiny, folder)
    assert "is a file" in refused("convert", tiny, folder / "thesis.txt")
    assert limner("convert", tiny, folder, "--force").code == 0
    assert (folder / "thesis.txt").read_text() == "years of work"


def test_a_full_disk_is_said_before_writing(refused, tiny, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert "no disk space in" in refused("convert", tiny, tmp_path / "model")


@pytest.mark.parametrize("format", ["F32", "f16", "Q8_0"])
def test_a_gguf_file_answers_as_its_source_does(limner, tiny, tmp_path, format):
    file = tmp_path / "new" / "model.gguf"
    assert limner("convert", tiny, file, "--format", format).out == f"{file}\n"
    model, again = package.load(tiny), package.load(file)
    tokens = model.encode("the quick brown fox")
    assert again.encode("the quick brown fox") == tokens
    close = {"F32": 1e-5, "f16": 1e-2, "Q8_0": 0.1}[format]
    torch.testing.assert_close(again.logits(tokens), model.logits(tokens), atol=close, rtol=close)
    ours, theirs = model.tokenizer.chat_template, again.tokenizer.chat_template
    assert ours is not None
    assert theirs is not None
    assert theirs.sources == ours.sources


#: Rounded matrices, by their names in a folder and in a GGUF file.
MATRICES = {"self_attn.v_proj": "attn_v", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


@pytest.fixture
def quantized(limner, tmp_path):
    """A folder of a model rounded in groups."""
    tokenizer = byte_level()
    made = network(vocab_size=tokenizer.vocabulary_size, intermediate_size=128)
    save_folder(made, tmp_path / "whole", tokenizer)

    def write(*words):
        folder = tmp_path / "rounded"
        words = ("method=rtn", "measure=0", *words)
        assert limner("quantize", tmp_path / "whole", folder, *words).code == 0
        return folder

    return write


def matrices_of(folder):
    """Matrices of a folder, in float32, by their names in a GGUF file."""
    source = open_checkpoint(folder).source
    return {
        f"blk.{layer}.{there}.weight": source.read(f"model.layers.{layer}.{here}.weight")
        for here, there in MATRICES.items()
        for layer in range(3)
    }


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("layout=gptq", "symmetric=true"), "Q4_0"),
        (("layout=gptq", "symmetric=true", "group=64"), "Q4_0"),
        (("layout=compressed-tensors",), "Q4_0"),
        (("layout=gptq", "bits=8"), "Q8_0"),
        (("layout=gptq",), "Q4_1"),
        (("layout=awq", "group=64"), "Q4_1"),
    ],
)
def test_a_quantised_folder_becomes_blocks_with_its_own_codes(
    limner, quantized, tmp_path, words, kind
):
    folder, file = quantized(*words), tmp_path / "model.gguf"
    assert limner("convert", folder, file).err == ""
    found = read_there(file)
    # A minimum is a half of its own in Q4_1, and the product of scale and zero in the folder.
    rounding = 2**-10 if kind == "Q4_1" else 0.0
    for name, numbers in matrices_of(folder).items():
        assert found[name][0] == kind
        close = rounding * numbers.abs().max().item()
        torch.testing.assert_close(found[name][1], numbers, atol=close, rtol=0.0)
    kinds = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7}
    assert open_checkpoint(file).fields["general.file_type"] == kinds[kind]
    ours, theirs = package.load(folder), package.load(file)
    tokens = ours.encode("the quick brown fox")
    assert torch.equal(theirs.logits(tokens), ours.logits(tokens))


def test_what_is_not_quantised_is_f16_unless_a_format_is_asked_for(limner, quantized, tmp_path):
    folder = quantized("layout=gptq")
    limner("convert", folder, tmp_path / "stored.gguf")
    limner("convert", folder, tmp_path / "asked.gguf", "--format", "q4_1")
    stored, asked = read_there(tmp_path / "stored.gguf"), read_there(tmp_path / "asked.gguf")
    table = open_checkpoint(folder).source.read("model.embed_tokens.weight").float()
    assert stored["token_embd.weight"][0] == "F16"
    assert torch.equal(stored["token_embd.weight"][1], table)
    assert asked["token_embd.weight"][0] == "Q4_1"
    for name in matrices_of(folder):  # not rounded again
        assert torch.equal(asked[name][1], stored[name][1])


def test_a_line_says_what_has_no_form_in_a_gguf_file(limner, quantized, tmp_path):
    folder, file = quantized("layout=gptq", "symmetric=true"), tmp_path / "model.gguf"
    stored = load_file(folder / "model.safetensors")
    name = "model.layers.1.mlp.up_proj.g_idx"
    stored[name] = stored[name].flip(0).contiguous()  # act-order
    save_file(stored, folder / "model.safetensors")
    line = limner("convert", folder, file).err
    share = 64 * 128 / (3 * (3 * 64 * 128 + 2 * 64 * 64 + 2 * 64 * 32))
    assert line == (
        f"{share:.1%} of the quantised weights have no form in GGUF (like act-order or 8 bits with "
        "zeros) and become F16\n"
    )
    found = read_there(file)
    for there, numbers in matrices_of(folder).items():
        whole = there == "blk.1.ffn_up.weight"
        assert found[there][0] == ("F16" if whole else "Q4_0")
        assert torch.equal(found[there][1], numbers.half().float() if whole else numbers)


def test_a_line_says_what_is_rounded_again(limner, quantized, tmp_path):
    folder = quantized("layout=gptq")
    result = limner("convert", folder, tmp_path / "model.gguf", "--format", "q4_0")
    assert result.err == (
        "100.0% of the quantised weights are not in Q4_0 there and are rounded to Q4_0\n"
    )
    assert read_there(tmp_path / "model.gguf")["blk.0.ffn_up.weight"][0] == "Q4_0"


def test_a_folder_becomes_a_gguf_file_by_any_name(limner, tiny, tmp_path):
    limner("convert", tiny, tmp_path / "folder")
    assert limner("convert", tmp_path / "folder", tmp_path / "model", "--to", "gguf").code == 0
    assert (tmp_path / "model").read_bytes()[:4] == b"GGUF"


def test_a_file_is_kept_unless_forced(limner, refused, tiny, tmp_path):
    file = tmp_path / "model.gguf"
    file.write_text("years of work")
    assert "is there already" in refused("convert", tiny, file)
    assert "is a folder" in refused("convert", tiny, tmp_path, "--to", "gguf")
    assert file.read_text() == "years of work"
    assert limner("convert", tiny, file, "--force").code == 0
    assert file.read_bytes()[:4] == b"GGUF"


def test_settings_of_the_other_target_are_refused(refused, tiny, tmp_path):
    line = refused("convert", tiny, tmp_path / "model.gguf", "--dtype", "float16")
    assert "dtype is the number format of a folder: say format instead" in line
    line = refused("convert", tiny, tmp_path / "model", "--format", "Q8_0")
    assert "format is the number format of a GGUF file: say dtype instead" in line
    line = refused("convert", tiny, tmp_path / "model.gguf", "--format", "Q4_K")
    assert "'Q4_K' cannot be written" in line
