"""Debian's package descriptions as JSON lines: a title, then its paragraphs, each on a line.

    python recipes/debian_descriptions.py Translation-en.gz descriptions.jsonl

A Debian machine has the file after `apt-get update -o Acquire::Languages=en`, in
/var/lib/apt/lists.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path

TITLE = "Description-en: "


def main() -> None:
    """Write each text once."""
    source, target = map(Path, sys.argv[1:])
    texts = dict.fromkeys(descriptions(gzip.decompress(source.read_bytes()).decode()))
    with target.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    print(f"{target}: {len(texts):,} texts")


def descriptions(text: str) -> Iterator[str]:
    """The description of each package."""
    for package in text.split("\n\n"):
        _, found, described = package.partition(TITLE)
        if found:
            title, *lines = described.split("\n")
            paragraphs = "\n".join(line[1:] for line in lines).split("\n.\n")
            yield "\n".join([title.strip(), *filter(None, map(one_line, paragraphs))])


def one_line(paragraph: str) -> str:
    """A paragraph without its line breaks."""
    return " ".join(paragraph.split())


if __name__ == "__main__":
    main()
