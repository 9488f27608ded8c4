"""Draw the picture in the README: `.venv/bin/python docs/picture.py`.

It runs limner on a terminal, with the real model, and keeps what it shows.
"""

import io
import os
import pty
import re
import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

CHAT = "limner chat smollm2-135m-instruct temperature=0"
TYPED = [
    "What is a language model, in one sentence?",
    "What is the capital of France?",
    "And of Italy?",
    "/tokens",
]
TOKENIZE = 'limner tokenize smollm2-135m-instruct "An unhappiness of goblins: Grüße!"'
COLUMNS = 92
PICTURE = Path(__file__).parent / "pictures" / "session.svg"


def shown_by(command: str, typed: list[str]) -> str:
    """What a command shows on a terminal, colours and all, when these lines are its input."""
    ours, theirs = pty.openpty()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with subprocess.Popen(
        shlex.split(command),
        stdin=subprocess.PIPE,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PATH": path, "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)},
    ) as process:
        os.close(theirs)
        assert process.stdin is not None
        process.stdin.write("".join(f"{line}\n" for line in typed).encode())
        process.stdin.close()
        shown = b"".join(iter(lambda: read(ours), b""))
    os.close(ours)
    assert process.returncode == 0, f"{command} exited with {process.returncode}"
    return shown.decode().replace("\r\n", "\n")


def read(terminal: int) -> bytes:
    """The next bytes; none when the command has ended, which Linux reports as an error."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def chat(console: Console) -> None:
    """Print a chat. What a line is answered with is what the same chat without it lacks."""
    console.print(Text(f"$ {CHAT}", "bold green"))
    before = ""
    for count, line in enumerate(TYPED, start=1):
        after = shown_by(CHAT, TYPED[:count])
        assert after.startswith(before)
        console.print(Text(f"> {line}", "bold"))
        console.print(after.removeprefix(before).rstrip("\n"), markup=False, highlight=False)
        before = after


def draw() -> str:
    """The session as SVG, without the web fonts that rich would fetch."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    chat(console)
    console.print(Text(f"\n$ {TOKENIZE}", "bold green"))
    console.print(Text.from_ansi(shown_by(TOKENIZE, [])))
    svg = console.export_svg(title="limner", unique_id="limner")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL)


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(draw(), encoding="utf-8")
