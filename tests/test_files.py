"""Files that are written whole or not at all."""

import errno
import os

import pytest

from limner.files import write_whole


def test_a_full_disk_keeps_the_old_file_and_is_named(tmp_path, monkeypatch):
    path = tmp_path / "tokenizer.json"
    write_whole(path, [b"old"])

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, [b"n", b"ew"])
    assert caught.value.filename == str(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == b"old"


def test_parts_are_written_in_order_in_place_of_what_was_there(tmp_path):
    path = tmp_path / "a"
    write_whole(path, [b"old and long"])
    write_whole(path, [b"n", b"ew"])
    assert path.read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
