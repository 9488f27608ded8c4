import json

import pytest
from transformers import AutoTokenizer

from limner.tokenizers import ChatTemplate, Tokenizer, load_tokenizer
from tests.tokenizers.samples import (
    CHATML,
    byte_level,
    byte_level_engine,
    sentencepiece_model,
    wordpiece,
)

TEXT = "The naïve statements\n\n in the 日本語."


@pytest.fixture
def folder(tmp_path):
    byte_level().save(tmp_path)
    return tmp_path


def change(path, **fields):
    content = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(content | fields))


def templates(folder):
    template = load_tokenizer(folder).chat_template
    return template.sources if template else None


def test_a_tokenizer_file_alone_is_enough(folder):
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    assert tokenizer.encode(TEXT) == byte_level().encode(TEXT)
    assert tokenizer.eos_id is None


def test_roles_described_by_objects_or_in_the_older_file_are_read(folder):
    token = {"content": "</s>", "lstrip": False, "__type": "AddedToken"}
    change(folder / "tokenizer_config.json", eos_token=token)
    change(folder / "special_tokens_map.json", sep_token="[INST]", eos_token="<s>")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.eos_id == tokenizer.token_id("</s>")
    assert tokenizer.separator_id == tokenizer.token_id("[INST]")


def test_a_token_with_a_role_is_special_even_if_new(folder):
    change(folder / "tokenizer_config.json", pad_token="<|pad|>")
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_id == byte_level().vocabulary_size
    assert tokenizer.pad_id in tokenizer.special_ids
    assert AutoTokenizer.from_pretrained(folder).pad_token_id == tokenizer.pad_id


@pytest.mark.parametrize("ends", [3, [3, 4]])
def test_ends_of_generation_are_read(folder, ends):
    change(folder / "generation_config.json", eos_token_id=ends)
    expected = {byte_level().eos_id} | ({ends} if isinstance(ends, int) else set(ends))
    assert load_tokenizer(folder).stop_ids == expected


def test_the_stated_length_is_kept_and_an_unstated_one_is_none(folder, tmp_path):
    assert load_tokenizer(folder).maximum_length is None
    change(folder / "tokenizer_config.json", model_max_length=int(1e30))
    assert load_tokenizer(folder).maximum_length is None
    change(folder / "tokenizer_config.json", model_max_length=512)
    load_tokenizer(folder).save(tmp_path / "again")
    assert load_tokenizer(tmp_path / "again").maximum_length == 512


def test_templates_in_the_configuration_are_read(folder):
    (folder / "chat_template.jinja").unlink()
    change(folder / "tokenizer_config.json", chat_template="one")
    assert templates(folder) == {"default": "one"}
    named = [{"name": "default", "template": "two"}, {"name": "tool_use", "template": "three"}]
    change(folder / "tokenizer_config.json", chat_template=named)
    assert templates(folder) == {"default": "two", "tool_use": "three"}


def test_named_templates_are_saved_where_transformers_looks(tmp_path):
    sources = {"default": CHATML, "tool_use": "tools"}
    Tokenizer(byte_level_engine(), chat_template=ChatTemplate(sources)).save(tmp_path)
    assert templates(tmp_path) == sources
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == sources


def write_gpt2_files(path):
    model = json.loads(byte_level_engine().to_str())["model"]
    (path / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "".join(f"{left} {right}\n" for left, right in model["merges"])
    (path / "merges.txt").write_text("#version: 0.2\n" + merges)


def test_the_files_of_gpt2_are_read(tmp_path):
    write_gpt2_files(tmp_path)
    change(tmp_path / "tokenizer_config.json", eos_token="<|endoftext|>")
    tokenizer = load_tokenizer(tmp_path)
    text = TEXT.replace("    ", "")
    assert tokenizer.encode(text) == byte_level().encode(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.eos_id == 0


def test_the_files_of_roberta_are_read(tmp_path):
    write_gpt2_files(tmp_path)
    mask = {"content": "[INST]", "lstrip": True}
    change(tmp_path / "special_tokens_map.json", cls_token="<s>", sep_token="</s>", mask_token=mask)
    tokenizer = load_tokenizer(tmp_path)
    start, end = tokenizer.class_id, tokenizer.separator_id
    body = byte_level().encode("the")
    assert tokenizer.encode("the") == [start, *body, end]
    assert tokenizer.encode_pair("the", "the").ids == [start, *body, end, end, *body, end]
    # The mask takes the space on its left with it.
    parsed = tokenizer.encode("the [INST]", parse_special=True)
    assert parsed == [start, *body, tokenizer.mask_id, end]


def test_the_file_of_bert_is_read(tmp_path):
    original = wordpiece()
    tokens = [original.token(token_id) for token_id in range(original.vocabulary_size)]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens) + "\n")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode(TEXT) == original.encode(TEXT)
    assert tokenizer.roles == original.roles
    change(tmp_path / "tokenizer_config.json", do_lower_case=False)
    assert tokenizer.unknown_id in load_tokenizer(tmp_path).encode("THE")


def test_a_sentencepiece_model_is_read_with_its_configuration(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(sentencepiece_model("bpe", "llama"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("a")[0] == tokenizer.bos_id
    change(tmp_path / "tokenizer_config.json", add_bos_token=False, add_eos_token=True)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.encode("a")[-1] == tokenizer.eos_id
    assert tokenizer.bos_id not in tokenizer.encode("a")


def test_a_missing_tokenizer_is_an_error_that_says_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none of tokenizer.json, vocab.json.*spiece"):
        load_tokenizer(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no tokenizer at .*nowhere"):
        load_tokenizer(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "message"),
    [("tokenizer.json", "is no tokenizer.json"), ("tokenizer_config.json", "is no JSON")],
)
def test_a_damaged_file_is_one_clear_error(folder, name, message):
    (folder / name).write_text('{"model": ')
    with pytest.raises(ValueError, match=f"{name} {message}"):
        load_tokenizer(folder)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "model.bin").write_text("")
    with pytest.raises(ValueError, match=r"model.bin is no tokenizer"):
        load_tokenizer(tmp_path / "model.bin")
