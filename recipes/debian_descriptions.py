"""Debian's package descriptions as JSON lines: a title, then its paragraphs, each on a line.

    python recipes/debian_descriptions.py Translation-en.gz descriptions.jsonl
    python recipes/debian_descriptions.py Translation-en.gz sentences.jsonl --sentences

A Debian machine has the file after `apt-get update -o Acquire::Languages=en`, in
/var/lib/apt/lists. With --sentences each text is one sentence that begins with "This package": of
those a small model learns something in minutes.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

TITLE = "Description-en: "
SENTENCE = re.compile(r"This (?:\w+ )?package [^.!?].{10,220}?[.!?](?= |$)", re.MULTILINE)


def main() -> None:
    """Write each text once."""
    options = parse_options()
    whole = descriptions(gzip.decompress(options.source.read_bytes()).decode())
    texts = dict.fromkeys(sentences(whole) if options.sentences else whole)
    with options.target.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    print(f"{options.target}: {len(texts):,} texts")


def parse_options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--sentences", action="store_true")
    return parser.parse_args()


def descriptions(text: str) -> Iterator[str]:
    """The description of each package."""
    for package in text.split("\n\n"):
        _, found, described = package.partition(TITLE)
        if found:
            title, *lines = described.split("\n")
            paragraphs = "\n".join(line[1:] for line in lines).split("\n.\n")
            yield "\n".join([title.strip(), *filter(None, map(one_line, paragraphs))])


def sentences(texts: Iterable[str]) -> Iterator[str]:
    """The sentences that say what a package is or holds."""
    for text in texts:
        yield from SENTENCE.findall(text)


def one_line(paragraph: str) -> str:
    """A paragraph without its line breaks."""
    return " ".join(paragraph.split())


if __name__ == "__main__":
    main()
