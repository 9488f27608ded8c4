"""Sources: documents of text, one after another, that can be stopped and taken up again.

A source is an iterator of strings with `state_dict` and `load_state_dict`; after loading, it goes
on with exactly the documents it would have given.
"""

from __future__ import annotations

import sysconfig
import tokenize
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, Protocol

from limner.config import decode_utf8
from limner.data.blocks import read_blocks
from limner.data.files import find_files, open_bytes
from limner.data.hub import PREFIX, fetch_data_set
from limner.data.records import is_table, read_field, read_lines

#: What one document is in a plain text: the file, each line, what stands between empty lines, or
#: whole lines of some 64 kB, for those who want all text and never much of it in memory.
Unit = Literal["file", "line", "paragraph", "block"]


class Source(Protocol):
    """Documents of text."""

    name: str

    def __iter__(self) -> Iterator[str]: ...

    def __next__(self) -> str: ...

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as JSON can hold it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; ValueError if the state is not of this source."""
        ...


class SerialSource(Iterator[str]):
    """The documents of one item after another, such as the lines of several files.

    Empty documents are left out.

    Args:
        name: what it is called, in manifests and messages.
        items: what holds the documents.
        read: the documents of an item, always the same.
    """

    def __init__(
        self, name: str, items: Sequence[Any], read: Callable[[Any], Iterator[str]]
    ) -> None:
        self.name, self.items, self.read = name, items, read
        self.item = self.document = 0
        self._open: Iterator[str] | None = None

    def __next__(self) -> str:
        while self.item < len(self.items):
            if self._open is None:
                self._open = islice(self.read(self.items[self.item]), self.document, None)
            for text in self._open:
                self.document += 1
                if text:
                    return text
            self.item, self.document, self._open = self.item + 1, 0, None
        raise StopIteration

    def state_dict(self) -> dict[str, Any]:
        """How many items are done, and documents of the next."""
        return {"items": len(self.items), "item": self.item, "document": self.document}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there; ValueError if the number of items has changed."""
        if state["items"] != len(self.items):
            raise ValueError(
                f"'{self.name}' had {state['items']} files when it was left and now has "
                f"{len(self.items)}: start anew in another folder"
            )
        self.item, self.document, self._open = state["item"], state["document"], None


def text_source(
    patterns: str | Path | Sequence[str | Path], *, unit: Unit = "file", field: str = "text"
) -> SerialSource:
    """Documents in files, folders, globs and data sets of the hub, compressed or not.

    Of `.jsonl`, `.ndjson` and `.parquet` files each record is a document, the string in `field`; of
    others, which must be UTF-8, what `unit` says.

    Raises FileNotFoundError if a pattern means no file, ConnectionError if the hub is not there.
    """
    several = [patterns] if isinstance(patterns, str | Path) else list(patterns)
    files = [file for pattern in several for file in _files(pattern)]
    return SerialSource(
        ", ".join(map(str, several)),
        list(dict.fromkeys(files)),
        partial(read_documents, unit=unit, field=field),
    )


def _files(pattern: str | Path) -> list[Path]:
    return fetch_data_set(str(pattern)) if _on_hub(pattern) else find_files([pattern])


def _on_hub(pattern: str | Path) -> bool:
    return str(pattern).startswith(PREFIX) and not Path(pattern).exists()


def read_documents(path: Path, *, unit: Unit = "file", field: str = "text") -> Iterator[str]:
    """The documents in one file; ValueError names the line that is not what it should be."""
    if is_table(path):
        yield from read_field(path, field)
    elif unit == "file":
        with open_bytes(path) as file:
            yield decode_utf8(file.read(), str(path))
    elif unit == "line":
        yield from (line.rstrip("\r\n") for line in read_lines(path))
    elif unit == "block":
        yield from read_blocks(path)
    else:
        yield from _paragraphs(read_lines(path))


def _paragraphs(lines: Iterator[str]) -> Iterator[str]:
    gathered: list[str] = []
    for line in lines:
        if line.strip():
            gathered.append(line)
        elif gathered:
            yield "".join(gathered)
            gathered = []
    yield "".join(gathered)


# What every machine has


def python_source() -> SerialSource:
    """Python's own standard library, a document a file; a corpus that every machine has.

    Left out are files that are not in the encoding they declare (Python's own tests have some).
    """
    folder = Path(sysconfig.get_path("stdlib"))
    files = [path for path in folder.rglob("*.py") if "site-packages" not in path.parts]
    return SerialSource("python", sorted(files), _python_file)


def _python_file(path: Path) -> Iterator[str]:
    try:
        with tokenize.open(path) as file:
            yield file.read()
    except (SyntaxError, UnicodeDecodeError):
        return


def topics_source() -> SerialSource:
    """Python's language reference as `help()` shows it: 0.7 MB of technical English."""
    from pydoc_data.topics import topics

    return SerialSource("topics", list(topics.values()), lambda text: iter([text]))


BUILT_IN: dict[str, Callable[[], SerialSource]] = {
    "python": python_source,
    "topics": topics_source,
}


def open_source(
    names: str | Sequence[str], *, unit: Unit = "file", field: str = "text"
) -> SerialSource:
    """A source by its name: `python`, `topics`, or files, folders, globs and `hub:OWNER/NAME`.

    Raises FileNotFoundError if there is no such file, ValueError if built-in names are mixed with
    files (prepare them in folders of their own and mix those).
    """
    several = [names] if isinstance(names, str) else list(names)
    if len(several) == 1 and several[0] in BUILT_IN:
        return BUILT_IN[several[0]]()
    mixed = [name for name in several if name in BUILT_IN and not Path(name).exists()]
    if mixed:
        raise ValueError(
            f"'{mixed[0]}' cannot be joined with files: prepare it in a folder of its own, "
            "and train on both folders"
        )
    return text_source(several, unit=unit, field=field)
