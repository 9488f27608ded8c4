"""What stands between a command and the terminal: reading text, printing it, showing progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from limner.config import decode_utf8

#: Control characters that a model or a file may hold; a terminal would obey them.
_CONTROL = {code: "\ufffd" for code in [*range(32), *range(127, 160)] if chr(code) not in "\n\t"}


def read_text(argument: str | None, file: Path | None, what: str) -> str:
    """Text given as an argument, in a file, or on standard input, without its last line end.

    Raises ValueError if there is none or it is not UTF-8, FileNotFoundError if there is no file.
    """
    if argument is not None:
        return argument
    if file is not None:
        text = decode_utf8(file.read_bytes(), str(file))
    elif sys.stdin is None or sys.stdin.isatty():
        raise ValueError(f"no {what}: give it as an argument, with --file, or on standard input")
    else:
        text = decode_utf8(sys.stdin.buffer.read(), "standard input")
    return text.removesuffix("\n").removesuffix("\r")


def harmless(text: str) -> str:
    """Text for standard output; on a terminal without characters that would control it."""
    return text.translate(_CONTROL) if sys.stdout.isatty() else text


def say(text: str) -> None:
    """Print a piece of an answer at once."""
    sys.stdout.write(text)
    sys.stdout.flush()


def remark(text: str) -> None:
    """Tell the user something beside the answer, on standard error."""
    print(text, file=sys.stderr)


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None] | None]:
    """A callback for (what is done, how much, of how much) that draws a bar; None off a terminal.

    The bar goes to standard error, appears with the first call, and is wiped away at the end.
    """
    if not sys.stderr.isatty():
        yield None
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description:12}"),
        progress.BarColumn(),
        progress.TaskProgressColumn(),
        progress.TimeRemainingColumn(),
    )
    bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
    tasks: dict[str, progress.TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = bar.add_task(stage, total=total)
        bar.update(tasks[stage], completed=done, total=total)

    with bar:
        yield report
