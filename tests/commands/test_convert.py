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
