import gzip
import json

import pytest

from limner.commands import tokenizer

TEXT = b"\n\n".join(b"number %d is the number before %d." % (n, n + 1) for n in range(80))


@pytest.fixture
def text(write):
    return write("a.txt", TEXT)


def train(limner, *words):
    result = limner("tokenizer", "train", *words)
    assert result.code == 0, result.err
    return result.out


def test_from_texts_to_a_model(limner, text, tmp_path):
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b'{"text": "another number"}\n'))
    made = tmp_path / "made"
    out = train(limner, text, tmp_path / "b.jsonl.gz", made, "size=300", "--chat-template=chatml")
    assert out == f"{made}: byte-level BPE, 300 tokens\n"
    assert limner("tokenize", made, "number 7", "--ids").out.count(" ") < 5
    tokens = tmp_path / "tokens"
    prepared = limner("data", "prepare", text, tokens, "--tokenizer", made, "--unit", "paragraph")
    assert "documents   80" in prepared.out, prepared.err
    model = ["model.hidden_size=24", "model.intermediate_size=32", "depth=1", "length=16"]
    run = ["steps=2", "rows=2", "validation=0.2", "measure_peak=false"]
    trained = limner("pretrain", tokens, tmp_path / "run", *model, *run)
    assert trained.code == 0, trained.err
    answered = limner("generate", tmp_path / "run" / "model", "number", "--raw", "max_tokens=2")
    assert answered.code == 0, answered.err


def test_settings_come_from_a_file_too(limner, text, write, tmp_path):
    made = tmp_path / "made"
    words = f"names: [{text}, {made}]\nroles: {{pad_token: <pad>}}\nsize: 280\nsentinels: 2\n"
    settings = write("tokenizer.yaml", f"action: train\n{words}".encode())
    assert limner("tokenizer", settings).code == 0
    config = json.loads((made / "tokenizer_config.json").read_text())
    assert (config["pad_token"], config["eos_token"]) == ("<pad>", "<|endoftext|>")


def test_the_table_compares(limner, text, tmp_path):
    for kind, size in (("bpe", 300), ("word", 100)):
        train(limner, text, tmp_path / kind, f"kind={kind}", f"size={size}")
    words = ["tokenizer", "compare", tmp_path / "bpe", tmp_path / "word", "--text", text]
    head, *rows = limner(*words).out.splitlines()
    assert head.split() == [
        "tokenizer", "kind", "vocabulary", "bytes/token", "tokens/word", "whole", "words",
        "restored", "MB/s",
    ]  # fmt: skip
    assert [row.split()[0] for row in rows] == [str(tmp_path / "bpe"), str(tmp_path / "word")]
    pairs, whole = json.loads(limner(*words, "--json").out)
    assert (pairs["vocabulary"], whole["fertility"], pairs["restored"]) == (300, 1.0, 1.0)
    assert whole["whole_words"] == 1.0
    assert 1.0 < pairs["fertility"] < 4.0
    assert 1.0 < pairs["bytes_per_token"] < whole["bytes_per_token"] * 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "TEXT"], "SOURCE... FOLDER"),
        (["train", "nothing.txt", "out"], "no file at 'nothing.txt'"),
        (["train", "TEXT", "out", "size=20"], "bytes and special tokens are 257"),
        (["train", "TEXT", "out", "kind=bp"], "did you mean 'bpe'?"),
        (["train", "TEXT", "out", "chat_template=none.jinja"], "none.jinja: No such file"),
        (["train", "TEXT", "TEXT"], "exists: name another folder"),
        (["train", "TEXT", "out", "--json"], "`limner tokenizer train` has no such setting"),
        (["compare", "out"], "no model is called 'out'"),
        (["compare", "TINY", "size=5"], "`limner tokenizer compare` has no such setting"),
        (["compare", "TINY", "--text", "EMPTY"], "there is no text"),
        (["compare", "TINY", "--text", "LATIN"], "latin.txt, 3 bytes on: not UTF-8"),
    ],
)
def test_mistakes(refused, tiny, text, write, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    names = {"TEXT": text, "TINY": tiny, "EMPTY": write("empty.txt", b"")}
    names["LATIN"] = write("latin.txt", "café".encode("latin1"))
    assert message in refused("tokenizer", *[names.get(word, word) for word in words])
    assert not (tmp_path / "out").exists()


def test_a_terminal_sees_how_much_was_read(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with tokenizer.progress_line("unigram") as progress:
        assert progress is not None
        progress(2_000_000, False)
        progress(3_000_000, True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    with tokenizer.progress_line("unigram") as progress:
        assert progress is None
