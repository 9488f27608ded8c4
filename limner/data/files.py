"""Files of text: finding them, and opening them whatever their compression."""

from __future__ import annotations

import bz2
import glob
import gzip
import lzma
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, cast

from limner.data.extra import import_extra

Opener = Callable[[Path], IO[bytes]]


def find_files(patterns: Sequence[str | Path]) -> list[Path]:
    """Files that the patterns mean, in the order of the patterns and then of their names.

    A pattern is a file, a folder (all files below it but hidden ones) or a glob such as
    `texts/**/*.txt`. Raises FileNotFoundError if one means no file.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        files = list(_files_of(Path(pattern)))
        if not files:
            raise FileNotFoundError(f"no file at '{pattern}': give a file, a folder or a glob")
        found |= dict.fromkeys(files)
    return list(found)


def _files_of(pattern: Path) -> Iterator[Path]:
    if pattern.is_file():
        yield pattern
    elif pattern.is_dir():
        below = (path for path in pattern.rglob("*") if path.is_file())
        yield from sorted(path for path in below if not _hidden(path.relative_to(pattern)))
    else:
        names = glob.glob(str(pattern), recursive=True)
        yield from (path for path in map(Path, sorted(names)) if path.is_file())


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def open_bytes(path: Path) -> IO[bytes]:
    """The file's content as a stream, decompressed if its name ends in .gz, .bz2, .xz or .zst."""
    opener = OPENERS.get(path.suffix.lower(), _open_plain)
    return opener(path)


def bare_suffix(path: Path) -> str:
    """What a name ends in, apart from the compression: ".jsonl" of `a.jsonl.gz`."""
    compressed = path.suffix.lower() in OPENERS
    return (path.with_suffix("") if compressed else path).suffix.lower()


def _open_plain(path: Path) -> IO[bytes]:
    return path.open("rb")


def _open_zstd(path: Path) -> IO[bytes]:
    room = "compression" if sys.version_info >= (3, 14) else "backports"
    zstd = import_extra(f"{room}.zstd", "data", f"{path}: reading .zst")
    return cast("IO[bytes]", zstd.open(path, "rb"))


def _open_lzma(path: Path) -> IO[bytes]:
    return lzma.open(path, "rb")


def _open_bz2(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", bz2.open(path, "rb"))


def _open_gzip(path: Path) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path, "rb"))


OPENERS: dict[str, Opener] = {
    ".gz": _open_gzip,
    ".bz2": _open_bz2,
    ".xz": _open_lzma,
    ".zst": _open_zstd,
}
