"""A conversation and the `/` commands that act on it; knows nothing of the terminal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from limner.commands.options import SamplingSettings
from limner.config import decode_utf8, nearest, parse_override

if TYPE_CHECKING:
    from limner.language_model import Completion, LanguageModel, Stream

Message = dict[str, Any]


class Quit(Exception):  # noqa: N818  no error: the user wants to leave
    """The user wants to leave."""


class ChatSession:
    """Messages, sampling options, and what `/` commands do with them.

    Commands return what is to be shown, or a stream to be printed; a user's mistake is a ValueError
    and leaves the conversation as it was.
    """

    def __init__(
        self,
        model: LanguageModel,
        system: str | None = None,
        options: dict[str, Any] | None = None,
        adapter: str | None = None,
    ) -> None:
        if model.tokenizer.chat_template is None:
            raise ValueError(f"'{model.name}' has no chat template: use `limner generate` with it")
        self.model, self.system, self.options = model, system, dict(options or {})
        self.adapter = adapter
        self.model.sampling(**self.options)
        self.messages: list[Message] = []
        self.commands: dict[str, Callable[[str], str | Stream]] = {
            "/help": self.show_help,
            "/system": self.set_system,
            "/clear": self.clear,
            "/undo": self.undo,
            "/retry": self.retry,
            "/save": self.save,
            "/load": self.load,
            "/set": self.set_option,
            "/tokens": self.count_tokens,
            "/quit": self.quit,
        }

    def take(self, line: str) -> str | Stream:
        """What the user typed: a command, or a message to be answered."""
        if not line.startswith("/"):
            return self.ask(line)
        if line.startswith("//"):
            return self.ask(line[1:])
        name, _, argument = line.partition(" ")
        if name not in self.commands:
            raise ValueError(f"unknown command '{name}'{nearest(name, self.commands)}")
        return self.commands[name](argument.strip())

    def ask(self, text: str) -> Stream:
        """Add a message; the stream of its answer, to be handed to `answered` at the end."""
        stream = self._begin([*self.messages, {"role": "user", "content": text}])
        self.messages.append({"role": "user", "content": text})
        return stream

    def answered(self, completion: Completion) -> bool:
        """Keep an answer, whole or stopped; without any text the question is taken back as well."""
        if not completion.text:
            self.unanswered()
            return False
        self.messages.append(completion.message)
        return True

    def unanswered(self) -> None:
        """Take back a question that got no answer."""
        self.messages.pop()

    def _begin(self, messages: list[Message]) -> Stream:
        try:
            return self.model.stream_chat(
                self._with_system(messages), adapter=self.adapter, **self.options
            )
        except ValueError as error:
            raise ValueError(f"{error} (/undo takes back an exchange, /clear all)") from None

    def _with_system(self, messages: list[Message]) -> list[Message]:
        system = [] if self.system is None else [{"role": "system", "content": self.system}]
        return [*system, *messages]

    # Commands; their docstrings are the help

    def show_help(self, _: str = "") -> str:
        """This list."""
        lines = [f"{name:9}{command.__doc__}" for name, command in self.commands.items()]
        return "\n".join([*lines, *KEYS])

    def set_system(self, text: str) -> str:
        """Show the system prompt, or with text set it; - removes it."""
        if text:
            self.system = None if text == "-" else text
        return f"system: {'none' if self.system is None else self.system}"

    def clear(self, _: str = "") -> str:
        """Forget the conversation; the system prompt stays."""
        self.messages.clear()
        return "(forgotten)"

    def undo(self, _: str = "") -> str:
        """Take back the last message and its answer."""
        self._last_question()
        while self.messages.pop()["role"] != "user":
            pass
        return f"(taken back; {len(self.messages)} messages are left)"

    def retry(self, _: str = "") -> Stream:
        """Answer the last message anew; at temperature 0 that gives the same answer."""
        place = self._last_question()
        stream = self._begin(self.messages[: place + 1])
        del self.messages[place + 1 :]
        return stream

    def save(self, name: str) -> str:
        """Write the conversation to a file of JSON messages."""
        path = _path(name)
        if path.exists():
            raise ValueError(f"'{path}' is there already: choose another name")
        messages = self._with_system(self.messages)
        path.write_text(json.dumps(messages, ensure_ascii=False, indent=2) + "\n", "utf-8")
        return f"(saved in {path})"

    def load(self, name: str) -> str:
        """Read a conversation that was saved, in place of this one."""
        path = _path(name)
        messages = read_messages(path)
        first_is_system = bool(messages) and messages[0]["role"] == "system"
        self.system = messages.pop(0)["content"] if first_is_system else None
        self.messages = messages
        return f"({len(messages)} messages)"

    def set_option(self, word: str) -> str:
        """Show the sampling options, or set one: /set temperature=0.7 (null: its default)."""
        if word:
            key, value = parse_override(SamplingSettings, word)
            options = {**self.options, key: value}
            options = {name: value for name, value in options.items() if value is not None}
            self.model.sampling(**options)
            self.options = options
        shown = {**self.model.defaults, **self.options}
        return " ".join(f"{name}={value}" for name, value in shown.items())

    def count_tokens(self, _: str = "") -> str:
        """How many tokens the conversation has, and how many fit."""
        messages = self._with_system(self.messages)
        count = len(self.model.tokenizer.apply_chat(messages).ids) if messages else 0
        return f"{count:,} of {self.model.context:,} tokens"

    def quit(self, _: str = "") -> str:
        """Leave (or Ctrl-D)."""
        raise Quit

    def _last_question(self) -> int:
        places = [i for i, message in enumerate(self.messages) if message["role"] == "user"]
        if not places:
            raise ValueError("there is no message yet")
        return places[-1]


KEYS = (
    "",
    "Ctrl-C stops an answer and keeps the chat. Alt-Enter, or \\ at the end of a line, goes on",
    "in a new line. // at the start of a message stands for /.",
)


def _path(name: str) -> Path:
    if not name:
        raise ValueError("name a file, such as /save talk.json")
    return Path(name).expanduser()


def read_messages(path: Path) -> list[Message]:
    """The messages in a JSON file; ValueError if they are none."""
    try:
        messages = json.loads(decode_utf8(path.read_bytes(), str(path)))
    except json.JSONDecodeError as error:
        raise ValueError(f"'{path}' is not JSON: {error}") from None
    if not isinstance(messages, list) or not all(map(is_message, messages)):
        raise ValueError(f"'{path}' holds no list of messages with a role and a content")
    return messages


def is_message(value: Any) -> bool:
    """Whether a value is a message of plain text."""
    return isinstance(value, dict) and all(
        isinstance(value.get(key), str) for key in ("role", "content")
    )
