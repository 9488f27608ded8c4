import json

import pytest

SETTINGS = b"""
repair: [html]
quality: {words: [3, null]}
personal: {action: redact}
duplicates: exact
"""
TEXT = (
    b"The <b>first</b> text of all.\n"
    b"Too short.\n"
    b"the first  text OF all.\n"
    b"Write to jane@company.com for more.\n"
)


@pytest.fixture
def prepare(limner, tiny, write, tmp_path):
    def run(*words, settings=SETTINGS):
        return limner(
            "data", write("filters.yaml", settings), "prepare", write("a.txt", TEXT),
            tmp_path / "tokens", "--tokenizer", tiny, "--unit", "line", *words,
        )  # fmt: skip

    return run


def test_what_was_left_out_is_printed_and_can_be_written(limner, prepare, tmp_path):
    done = prepare("--refused", tmp_path / "refused.jsonl")
    assert done.code == 0, done.err
    table = done.out.split("\n\n")[1].splitlines()
    assert table[0] == "4 documents were read, 2 kept"
    assert [line.split() for line in table[1:]] == [
        ["refused", "duplicate.exact", "1", "documents", "25.0%", "23", "bytes"],
        ["refused", "quality.words", "1", "documents", "25.0%", "10", "bytes"],
        ["kept,", "with", "personal.email", "1", "documents", "25.0%", "16", "bytes"],
        ["kept,", "with", "repair.html", "1", "documents", "25.0%", "7", "bytes"],
    ]
    assert done.out == limner("data", "info", tmp_path / "tokens").out
    written = (tmp_path / "refused.jsonl").read_text().splitlines()
    assert [json.loads(line)["reason"] for line in written] == ["quality.words", "duplicate.exact"]


def test_filters_can_be_given_as_words(prepare):
    done = prepare("quality.words=[1, null]", "--duplicates", "keep", "--repair", "unicode")
    assert "4 documents were read, 4 kept" in done.out
    assert "repair" not in done.out


def test_without_filters_there_is_no_table(prepare):
    assert "were read" not in prepare(settings=b"unit: line").out


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (b"qualty: {words: [3, null]}", "quality"),
        (b"quality: {word: [3, null]}", "did you mean 'words'?"),
        (b"repair: [htm]", "html"),
        (b"near: {threshold: 2}", "near.threshold"),
        (b"contamination: {against: [nowhere.jsonl]}", "no file at 'nowhere.jsonl'"),
    ],
)
def test_a_wrong_filter_is_one_line_that_says_what_is_right(prepare, setting, message):
    done = prepare(settings=setting)
    assert done.code == 2
    assert message in done.err
    assert done.err.count("\n") == 1
