import itertools
import json
import os
import subprocess
import sys
import threading
from pydoc_data.topics import topics

import pytest
from transformers import AutoTokenizer

from limner.tokenizers import load_tokenizer, training, training_kinds
from limner.tokenizers.training import save_new, train_tokenizer
from limner.tokenizers.training_sample import PIECE, measure, pieces_of, sample
from limner.tokenizers.training_settings import TokenizerSettings

TEXTS = [*list(topics.values())[:8], "naïve café 日本語 Привет 👩‍👩‍👧\n\n    if x:\n\treturn"]
KINDS = ["bpe", "wordpiece", "unigram", "character", "word"]
LOSSLESS = ["bpe", "unigram", "character"]


def documents():
    return iter(TEXTS)


def trained(kind="bpe", **settings):
    return train_tokenizer(documents, TokenizerSettings(kind=kind, **{"size": 600} | settings))


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_opens_it_with_equal_ids(kind, tmp_path):
    tokenizer = trained(kind, chat_template="chatml", special_tokens=("<|tool|>",))
    save_new(tokenizer, tmp_path / "made")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "made")
    assert [theirs.encode(text) for text in TEXTS] == tokenizer.encode_batch(TEXTS)
    again = load_tokenizer(tmp_path / "made")
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert again.roles == tokenizer.roles
    assert again.kind == {"bpe": "byte-level BPE", "wordpiece": "WordPiece"}.get(kind, kind)
    assert theirs.eos_token == "<|im_end|>"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    chat = again.apply_chat(messages, add_generation_prompt=False)
    assert chat.ids == theirs.apply_chat_template(messages, return_dict=False)


@pytest.mark.parametrize("kind", KINDS)
def test_the_vocabulary_has_the_size_and_starts_with_the_special_tokens(kind):
    tokenizer = trained(kind, size=400, special_tokens=("<|a|>",), sentinels=2)
    assert tokenizer.vocabulary_size <= 400
    specials = {tokenizer.token(number) for number in tokenizer.special_ids}
    assert {"<|a|>", "<extra_id_0>", "<extra_id_1>"} < specials
    assert max(tokenizer.special_ids) < 20
    if kind != "character":
        assert tokenizer.vocabulary_size == 400


@pytest.mark.parametrize("kind", LOSSLESS)
def test_every_text_comes_back(kind):
    tokenizer = trained(kind)
    for text in TEXTS:
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_what_no_token_writes_is_unknown_or_bytes():
    assert trained("unigram").decode(trained("unigram").encode("ꙮ")) == "ꙮ"
    for kind in ("character", "word"):
        tokenizer = trained(kind)
        assert tokenizer.encode("ꙮ") == [tokenizer.unknown_id]


def test_wordpiece_begins_and_ends_as_bert_does_and_ignores_case():
    tokenizer = trained("wordpiece")
    ids = tokenizer.encode("The Statement")
    assert (ids[0], ids[-1]) == (tokenizer.class_id, tokenizer.separator_id)
    assert ids == tokenizer.encode("the statement")
    cased = trained("wordpiece", lowercase=False)
    assert cased.encode("The") != cased.encode("the")


def test_a_text_can_begin_and_end_with_tokens():
    roles = {"bos_token": "<s>", "eos_token": "</s>"}
    tokenizer = trained(roles=roles, begin_with="<s>", end_with="</s>")
    ids = tokenizer.encode("x")
    assert (ids[0], ids[-1]) == (tokenizer.bos_id, tokenizer.eos_id)


def test_splits_cut_words_differently():
    digits = trained(split="qwen2").encode("12345678")
    assert len(digits) == 8  # each digit by itself
    assert len(trained().encode("12345678")) <= 8


def test_two_processes_make_the_same_bytes(tmp_path):
    script = (
        "import sys; from limner.commands import main\n"
        "for kind in ('bpe', 'wordpiece', 'unigram', 'word'):\n"
        "    main(['tokenizer', 'train', sys.argv[1], f'{sys.argv[2]}/{kind}', f'kind={kind}',\n"
        "          'size=500'])"
    )
    (tmp_path / "text").write_text("\n".join(TEXTS))
    made: list[list[bytes]] = []
    for run in ("one", "two"):
        words = [sys.executable, "-c", script, str(tmp_path / "text"), str(tmp_path / run)]
        environment = os.environ | {"PYTHONHASHSEED": str(len(made))}
        subprocess.run(words, check=True, env=environment, capture_output=True)
        made.append([(tmp_path / run / k / "tokenizer.json").read_bytes() for k in KINDS[:3]])
    assert made[0] == made[1]


# The sample


def test_a_sample_is_bounded_even_and_whole_if_there_is_room():
    texts = [f"{number:07} " * 100 for number in range(500)]
    size = measure(lambda: texts, False).size
    assert list(sample(lambda: texts, size, size)) == texts
    part = list(sample(lambda: texts, size, size // 10))
    assert size // 11 < sum(map(len, part)) <= size // 10
    numbers = [int(text[:7]) for text in part]
    gaps = [later - earlier for earlier, later in itertools.pairwise(numbers)]
    assert max(gaps) <= 11


def test_a_huge_document_is_read_in_pieces_that_join_to_it():
    text = "some words of a line\n" * 5000 + "x" * (3 * PIECE)
    pieces = list(pieces_of([text]))
    assert "".join(pieces) == text
    assert max(map(len, pieces)) <= PIECE
    assert pieces[0].endswith("\n")


def test_no_text_is_an_error():
    with pytest.raises(ValueError, match="no text to learn from"):
        train_tokenizer(lambda: iter([""]), TokenizerSettings())


# Mistakes, and what may go wrong


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"roles": {"eos": "x"}}, "no role 'eos'"),
        ({"split": "gpt-22"}, "did you mean 'gpt-2'"),
        ({"kind": "word", "split": "gpt-2"}, "split=gpt-2 is for kind=bpe"),
        ({"lowercase": True}, "lowercase is for kind=wordpiece"),
        ({"end_with": "</s>"}, "'</s>' begins or ends the input and is no special token"),
        ({"size": 10, "sentinels": 20}, "leaves no room beside 21 special tokens"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        TokenizerSettings(**settings)


def test_too_few_tokens_for_the_bytes():
    with pytest.raises(
        ValueError, match="size=200 is too little: bytes and special tokens are 257"
    ):
        trained(size=200)


def test_unigram_needs_sentencepiece_and_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ValueError, match=r"pip install 'limner\[train\]'"):
        trained("unigram")


def test_an_error_while_reading_reaches_the_caller():
    reads = itertools.count()

    def breaking():
        yield "text"
        if next(reads):
            raise ValueError("line 7 is broken")

    with pytest.raises(ValueError, match="line 7 is broken"):
        train_tokenizer(breaking, TokenizerSettings())


def test_ctrl_c_while_merging_is_answered_at_once(monkeypatch):
    merging, done = threading.Event(), threading.Event()

    def endless(*_, **__):
        merging.set()
        done.wait(30)

    def interrupted(self, timeout=None):
        assert merging.wait(10)
        if timeout == 0.1:
            raise KeyboardInterrupt

    monkeypatch.setattr(training_kinds, "byte_level", endless)
    monkeypatch.setattr(threading.Thread, "join", interrupted)
    with pytest.raises(KeyboardInterrupt):
        trained()
    done.set()


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    tokenizer = trained("character")

    def full(path):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(training, "_sync", full)
    with pytest.raises(OSError, match="No space left"):
        save_new(tokenizer, tmp_path / "made")
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_there_are_not_overwritten(tmp_path):
    (tmp_path / "made").mkdir()
    tokenizer = trained("character")
    save_new(tokenizer, tmp_path / "made")  # an empty folder is as good as none
    with pytest.raises(ValueError, match="exists: name another folder"):
        save_new(tokenizer, tmp_path / "made")
    assert json.loads((tmp_path / "made" / "tokenizer.json").read_text())
