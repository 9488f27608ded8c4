import json

from limner.tokenizers import load_tokenizer

TEXT = "the lazy dög <|im_end|>\n"


def test_tokens_are_listed_one_a_line(limner, tiny):
    lines = limner("tokenize", tiny, "the\tdog").out.splitlines()
    ids, texts = zip(*(line.split("\t") for line in lines), strict=True)
    assert "".join(map(json.loads, texts)) == "the\tdog"
    assert limner("tokenize", tiny, "the\tdog", "--ids").out.split() == list(ids)


def test_text_is_only_read_as_special_tokens_if_asked_for(limner, tiny):
    plain = json.loads(limner("tokenize", tiny, TEXT, "--json").out)
    parsed = json.loads(limner("tokenize", tiny, TEXT, "--json", "--parse-special").out)
    assert "<|im_end|>" not in [row["token"] for row in plain]
    assert [row["text"] for row in parsed].count("<|im_end|>") == 1
    assert len(parsed) < len(plain)


def test_text_is_piped_in(limner, tiny):
    argument = limner("tokenize", tiny, "the dog", "--ids").out
    assert limner("tokenize", tiny, "--ids", stdin=b"the dog\n").out == argument


def test_a_tokenizer_alone_is_enough(limner, tiny, tmp_path):
    limner("convert", tiny, tmp_path / "model")
    whole = limner("tokenize", tiny, "the dog", "--ids").out
    assert (
        limner("tokenize", tmp_path / "model" / "tokenizer.json", "the dog", "--ids").out == whole
    )
    load_tokenizer(tmp_path / "model").save(tmp_path / "tokenizer")
    assert limner("tokenize", tmp_path / "tokenizer", "the dog", "--ids").out == whole


def test_bad_input_is_one_line(refused, tiny):
    assert "not UTF-8 at byte 1" in refused("tokenize", tiny, stdin=b"a\xff")
