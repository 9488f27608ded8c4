"""Every command and snippet of the README and the pages is run, and must succeed.

A page is run from top to bottom in an empty folder, as its reader would:

- `console` blocks: each line after `$ ` is a command (a backslash at its end joins it to the next),
  and the lines below are what it printed. If they are an `error: ...`, the command must say just
  that and exit with 2; otherwise it must exit with 0, and what it prints is not compared, because
  the real model's answers are not the tiny one's.
- `python` blocks: the blocks of a page continue one another.
- `yaml` blocks that begin with a comment naming a file (`# settings.yaml`) become that file.
- A block after `<!-- not run: the reason -->` is left alone.
"""

import logging
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from limner.commands import main

Capture = pytest.CaptureFixture[str]

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if "_build" not in page.parts),
]
SHOWN_ONLY = {"text", "yaml", "json", "toml"}
RUN = {"console", "python"}
NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
SHELL = re.compile(r"[|&;<>$`*~]")
FILE_NAME = re.compile(r"# ([\w.-]+\.ya?ml)\n")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, where it starts, and whether a reason excuses it."""

    language: str
    text: str
    page: Path
    line: int
    excused: bool

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> Iterator[Block]:
    before = None
    for token in MarkdownIt("commonmark").parse(page.read_text(encoding="utf-8")):
        if token.type == "fence" and not token.info.startswith("{"):
            assert token.map is not None
            excused = before is not None and NOT_RUN.fullmatch(before.content.strip()) is not None
            yield Block(token.info.strip(), token.content, page, token.map[0] + 2, excused)
        before = token if token.type == "html_block" else None


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """Each command of a block, and the error that it is shown to end with, if any."""
    lines = block.text.replace("\\\n", "").splitlines()
    for line, below in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("$ "):
            yield line.removeprefix("$ "), below if below.startswith("error: ") else ""


def run_command(command: str, capsys: Capture) -> tuple[int, str]:
    """The exit code of a command and what it wrote to standard error.

    limner by itself is called in this process, which already has what it imports; anything else,
    pipes too, is left to the shell.
    """
    words = shlex.split(command)
    if words[0] == "limner" and not SHELL.search(command):
        capsys.readouterr()
        return main(words[1:]), capsys.readouterr().err
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stderr


def check_command(command: str, error: str, place: str, capsys: Capture) -> None:
    code, said = run_command(command, capsys)
    assert code == (2 if error else 0), f"{place}: `{command}` exited with {code}:\n{said}"
    assert error in said.splitlines() or not error, f"{place}: `{command}` said:\n{said}"


def run_python(block: Block, names: dict[str, Any]) -> None:
    """Run a block; the empty lines put before it make a traceback name the page's own line."""
    source = "\n" * (block.line - 1) + block.text
    exec(compile(source, str(block.page), "exec"), names)


def run(block: Block, names: dict[str, Any], capsys: Capture) -> None:
    if block.language == "python":
        run_python(block, names)
    elif block.language == "console":
        for command, error in commands(block):
            check_command(command, error, block.place, capsys)
    elif named := FILE_NAME.match(block.text):
        Path(named[1]).write_text(block.text, encoding="utf-8")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


PAGES_THAT_RUN = [
    page for page in PAGES if any(b.language in RUN and not b.excused for b in blocks(page))
]


@pytest.fixture
def reader(tiny_cache, tmp_path, monkeypatch):
    """In an empty folder, with limner installed and the tiny model in the place of the real one."""
    level = logging.getLogger("limner").level
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIMNER_CACHE", str(tiny_cache))
    monkeypatch.setenv("LIMNER_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        yield
    logging.getLogger("limner").setLevel(level)


@pytest.mark.parametrize("page", PAGES_THAT_RUN, ids=name)
def test_what_a_page_shows_works(page, reader, capsys):
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if not block.excused:
            run(block, names, capsys)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_block_escapes_being_run(page):
    for block in blocks(page):
        assert block.language in RUN | SHOWN_ONLY, (
            f"{block.place}: the block's language is {block.language!r}, "
            f"and none of {sorted(RUN | SHOWN_ONLY)}"
        )
        if block.language == "console":
            assert any(commands(block)), (
                f"{block.place}: a command starts with '$ '; there is none here"
            )
