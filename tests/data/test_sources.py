import bz2
import gzip
import json
import lzma
import sys

import pyarrow
import pyarrow.parquet
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from limner.data.records import read_records
from limner.data.sources import open_source, text_source

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RECORDS = [{"text": f"record {number}", "id": number} for number in range(2500)]


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


def write_parquet(path, records):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path, row_group_size=700)


def test_parquet_records_are_documents(tmp_path):
    write_parquet(tmp_path / "a.parquet", RECORDS)
    source = text_source(tmp_path)
    texts = [record["text"] for record in RECORDS]
    assert list(source) == texts
    again = text_source(tmp_path)
    again.load_state_dict({"items": 1, "item": 0, "document": 2100})
    assert list(again) == texts[2100:]
    assert list(read_records(tmp_path / "a.parquet")) == RECORDS


@pytest.mark.parametrize(
    ("records", "field", "message"),
    [
        (RECORDS[:3], "body", r"a\.parquet: no field 'body': it has text, id; name another"),
        (RECORDS[:3], "id", r"a\.parquet, record 1: 'id' is int, no text"),
        ([RECORDS[0], {"text": None, "id": 1}], "text", r"record 2: 'text' is NoneType, no text"),
    ],
)
def test_a_bad_parquet_record_is_named(tmp_path, records, field, message):
    write_parquet(tmp_path / "a.parquet", records)
    with pytest.raises(ValueError, match=message):
        list(text_source(tmp_path, field=field))


def test_a_file_that_only_says_it_is_parquet(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing more")
    with pytest.raises(ValueError, match=r"a\.parquet is no Parquet file, or a damaged one"):
        list(text_source(tmp_path))


@pytest.mark.parametrize(
    ("suffix", "compress"),
    [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstd.compress)],
)
def test_every_compression_of_texts_and_records(tmp_path, suffix, compress):
    lines = "\n".join(json.dumps(record) for record in RECORDS)
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(compress(lines.encode()))
    (tmp_path / f"b.txt.{suffix}").write_bytes(compress("größer".encode()))
    assert list(text_source(tmp_path)) == [*(record["text"] for record in RECORDS), "größer"]


def test_a_data_set_of_the_hub_is_its_files(tmp_path, monkeypatch):
    calls = []

    def snapshot(repository, **options):
        calls.append((repository, options))
        write_parquet(tmp_path / "train.parquet", RECORDS[:2])
        (tmp_path / "README.md").write_text("about")
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    source = open_source("hub:owner/some-set")
    assert source.name == "hub:owner/some-set"
    assert list(source) == ["record 0", "record 1"]
    open_source("hub:owner/some-set/train*.parquet")
    assert [repository for repository, _ in calls] == ["owner/some-set"] * 2
    assert calls[1][1] == {"repo_type": "dataset", "allow_patterns": ["train*.parquet"]}
    with pytest.raises(ValueError, match=r"owner/some-set has no file like test\*"):
        open_source("hub:owner/some-set/test*")
    with pytest.raises(ValueError, match="'hub:owner' is no data set: write hub:OWNER/NAME"):
        open_source("hub:owner")


def test_a_hub_that_is_not_there_is_one_line(monkeypatch):
    def snapshot(repository, **options):
        raise LocalEntryNotFoundError("no connection\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    with pytest.raises(ConnectionError, match=r"cannot fetch a/b from the hub \(no conn") as caught:
        open_source("hub:a/b")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "module"), [("a.parquet", "pyarrow.parquet"), ("a.txt.zst", "backports.zstd")]
)
def test_a_missing_library_is_named_with_its_extra(tmp_path, monkeypatch, name, module):
    (tmp_path / name).write_bytes(b"")
    modules = ("compression.zstd", "backports.zstd") if "zstd" in module else (module,)
    for missing in modules:
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=r"needs .*: pip install 'limner\[data\]' brings it"):
        list(text_source(tmp_path))
