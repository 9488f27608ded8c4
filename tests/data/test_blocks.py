import pytest

from limner.data.blocks import BLOCK, read_blocks
from limner.data.sources import text_source


@pytest.mark.parametrize(
    "text",
    ["", "short", "line\n" * 40_000, "é日👩" * 30_000, "x" * (BLOCK - 1) + "é\nlast", "\n\n\n"],
)
def test_blocks_join_to_the_text(tmp_path, text):
    path = tmp_path / "text"
    path.write_text(text, encoding="utf-8")
    blocks = list(read_blocks(path))
    assert "".join(blocks) == text
    assert max(map(len, blocks)) <= 2 * BLOCK
    assert all(block.endswith("\n") for block in blocks[:-1] if "\n" in text[:BLOCK])
    assert "".join(text_source(path, unit="block")) == text


def test_what_is_not_utf8_is_placed(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"line\n" * 20_000 + b"\xff\n")
    with pytest.raises(ValueError, match=r"text, \d+ bytes on: not UTF-8 at byte \d+ \(0xff\)"):
        list(read_blocks(path))
