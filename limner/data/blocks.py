"""Plain text in blocks, so that no file is too large, nor any line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from limner.config import decode_utf8
from limner.data.files import open_bytes

#: Bytes read at a time.
BLOCK = 65_536


def read_blocks(path: Path) -> Iterator[str]:
    """A file's text in blocks that end with a line, if it has lines of less than a block.

    Raises ValueError that says where the file is not UTF-8.
    """
    rest, start = b"", 0
    with open_bytes(path) as file:
        while read := file.read(BLOCK):
            data = rest + read
            cut = data.rfind(b"\n") + 1 or _between_characters(data)
            yield _decode(data[:cut], path, start)
            rest, start = data[cut:], start + cut
        yield _decode(rest, path, start)


def _between_characters(data: bytes) -> int:
    """The last place at which no character of UTF-8, which has four bytes at most, is cut."""
    places = range(len(data) - 1, max(len(data) - 5, -1), -1)
    lead = next((place for place in places if data[place] & 0xC0 != 0x80), len(data))
    return lead or len(data)


def _decode(data: bytes, path: Path, start: int) -> str:
    return decode_utf8(data, f"{path}, {start} bytes on" if start else str(path))
