import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import limner as package


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
