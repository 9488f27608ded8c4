"""`limner chat`: talk with a model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from limner.commands import one_line
from limner.commands.answering import print_answer
from limner.commands.chat_session import ChatSession, Quit
from limner.commands.options import AdaptedSettings, SamplingSettings
from limner.commands.terminal import harmless, remark
from limner.config import decode_utf8

if TYPE_CHECKING:
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

    from limner.language_model import Stream


class Command(AdaptedSettings, SamplingSettings):
    """Talk with a model.

    /help lists what can be done besides talking. Without a terminal each line of standard input is
    a message or a / command.
    """

    system: str | None = None
    """what the model is told before the conversation"""


def run(settings: Command) -> None:
    """Take lines and answer them until the user leaves."""
    options = settings.sampling()
    session = ChatSession(settings.load(), settings.system, options, settings.adapter_name)
    interactive = sys.stdin.isatty()
    if interactive:
        remark(f"{session.model.name}. /help lists the commands, Ctrl-D leaves.")
    for line in typed_lines(session) if interactive else piped_lines():
        try:
            respond(session, line)
        except Quit:
            return
        except (ValueError, OSError) as error:
            if not interactive:
                raise
            remark(f"error: {one_line(error)}")


def respond(session: ChatSession, line: str) -> None:
    """Do what a line asks for and show what comes of it."""
    if not line.strip():
        return
    result = session.take(line)
    if isinstance(result, str):
        print(harmless(result))
    else:
        answer(session, result)


def answer(session: ChatSession, stream: Stream) -> None:
    """Print an answer; Ctrl-C stops it and what was written is kept."""
    try:
        printed = print_answer(stream, session.options.get("max_tokens"))
        if printed.cut_off:
            remark("(cut off; /set max_tokens=N sets how much is written)")
    except KeyboardInterrupt:
        stream.close()
        remark("\n(stopped)")
    except ValueError:
        session.unanswered()
        raise
    if not session.answered(stream.completion):
        remark("(no answer)")


def piped_lines() -> Iterator[str]:
    """The lines of standard input; ValueError if one is not UTF-8."""
    for number, line in enumerate(sys.stdin.buffer, 1):
        yield decode_utf8(line, f"line {number} of standard input").rstrip("\r\n")


def typed_lines(session: ChatSession) -> Iterator[str]:
    """What is typed at the terminal, with editing and the history of earlier chats.

    Ctrl-C empties the line, Ctrl-D ends.
    """
    from prompt_toolkit import PromptSession
    from prompt_toolkit.completion import WordCompleter
    from prompt_toolkit.history import FileHistory

    from limner.checkpoints.catalogue import cache_folder

    history = cache_folder() / "chat_history"
    history.parent.mkdir(parents=True, exist_ok=True)
    history.touch(mode=0o600)  # what was said to a model is nobody else's business
    prompt: PromptSession[str] = PromptSession(
        history=FileHistory(str(history)),
        completer=WordCompleter(list(session.commands), sentence=True),
        complete_while_typing=False,
        key_bindings=line_bindings(),
        prompt_continuation="  ",
        multiline=True,
    )
    while True:
        try:
            yield prompt.prompt("> ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def line_bindings() -> KeyBindings:
    """Enter sends, unless the line ends in a backslash; Alt-Enter begins a new line."""
    from prompt_toolkit.key_binding import KeyBindings

    bindings = KeyBindings()

    @bindings.add("enter")
    def _(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.document.current_line_before_cursor.endswith("\\"):
            buffer.delete_before_cursor()
            buffer.insert_text("\n")
        else:
            buffer.validate_and_handle()

    @bindings.add("escape", "enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    return bindings
