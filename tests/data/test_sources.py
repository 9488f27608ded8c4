import bz2
import gzip
import json
import lzma

import pytest

from limner.data.sources import open_source, text_source


def test_a_folder_is_read_in_order_with_compressed_and_json_lines_files(tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.txt.gz").write_bytes(gzip.compress("ünf".encode()))
    (tmp_path / "b" / "two.txt.xz").write_bytes(lzma.compress(b"xz"))
    (tmp_path / "a.txt").write_text("first\nfile\n")
    lines = [json.dumps({"body": text}) for text in ("x", "", "y")]
    (tmp_path / "c.jsonl.bz2").write_bytes(bz2.compress("\n".join(lines).encode()))
    (tmp_path / ".hidden").write_text("no")
    assert list(text_source(tmp_path, field="body")) == ["first\nfile\n", "ünf", "xz", "x", "y"]
    assert list(text_source(str(tmp_path / "**/*.txt.gz"))) == ["ünf"]


@pytest.mark.parametrize(
    ("unit", "documents"),
    [("line", ["a", "b", "c", "d"]), ("paragraph", ["a\nb\n", "c\n", "d"])],
)
def test_units_of_a_text(tmp_path, unit, documents):
    (tmp_path / "text").write_text("a\nb\n\n\nc\n \nd")
    found = list(text_source(tmp_path / "text", unit=unit))
    assert [text for text in found if text.strip()] == documents


@pytest.mark.parametrize("taken", range(6))
def test_a_source_goes_on_where_it_was_left(tmp_path, taken):
    for name in "ab":
        (tmp_path / name).write_text(f"{name}1\n{name}2\n\n{name}3\n")
    source = text_source(tmp_path, unit="line")
    for _ in range(taken):
        next(source)
    state = json.loads(json.dumps(source.state_dict()))
    rest = list(source)
    again = text_source(tmp_path, unit="line")
    again.load_state_dict(state)
    assert list(again) == rest
    assert len(rest) == 6 - taken


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"body": "b"}\n', r"d.jsonl:2: no text in field 'text': it has body"),
        (b'{"text": "a"}\n[1]\n', r"d.jsonl:2: no text in field 'text': it has list"),
        (b'{"text": "a"}\n{"text"\n', r"d.jsonl:2: not JSON"),
        (b'{"text": "a"}\n\xff\n', r"d.jsonl:2: not UTF-8 at byte 0"),
    ],
)
def test_a_bad_line_is_named(tmp_path, content, message):
    (tmp_path / "d.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        list(text_source(tmp_path / "d.jsonl"))


def test_nothing_there_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file at '.*\*\.txt'"):
        text_source(tmp_path / "*.txt")
    with pytest.raises(ValueError, match="'python' cannot be joined"):
        open_source(["python", str(tmp_path)])


def test_a_source_whose_files_have_changed_refuses_to_go_on(tmp_path):
    (tmp_path / "a").write_text("a")
    state = text_source(tmp_path).state_dict()
    (tmp_path / "b").write_text("b")
    with pytest.raises(ValueError, match="had 1 files when it was left and now has 2"):
        text_source(tmp_path).load_state_dict(state)


def test_the_corpora_that_every_machine_has():
    python, topics = open_source("python"), open_source("topics")
    assert len(python.items) > 300
    assert "def " in next(python)
    assert 300_000 < sum(map(len, topics)) < 2_000_000
