import json
import os
import pty
import re
import select
import subprocess
import sys
import time

import pytest

import limner as package
from limner.commands.chat_session import ChatSession, Quit


@pytest.fixture(scope="module")
def model(tiny):
    return package.load(tiny)


@pytest.fixture
def session(model):
    return ChatSession(model, options={"max_tokens": 5, "ignore_eos": True, "temperature": 0.0})


def say(session, text):
    stream = session.take(text)
    for _ in stream:
        pass
    session.answered(stream.completion)
    return stream.completion


def test_the_model_sees_the_whole_conversation(session, model):
    first = say(session, "the quick")
    second = say(session, "brown fox")
    assert [message["role"] for message in session.messages] == ["user", "assistant"] * 2
    expected = model.tokenizer.apply_chat(
        [
            {"role": "user", "content": "the quick"},
            {"role": "assistant", "content": first.text},
            {"role": "user", "content": "brown fox"},
        ]
    )
    assert second.usage.prompt_tokens == len(expected.ids)
    assert session.take("/tokens").endswith("of 8,192 tokens")


def test_undo_retry_and_clear(session):
    say(session, "one")
    answer = say(session, "two")
    again = session.take("/retry")
    assert "".join(again) == answer.text
    session.answered(again.completion)
    assert len(session.messages) == 4
    session.take("/undo")
    assert [message["role"] for message in session.messages] == ["user", "assistant"]
    assert session.messages[0]["content"] == "one"
    session.take("/clear")
    assert session.messages == []
    for command in ("/undo", "/retry"):
        with pytest.raises(ValueError, match="there is no message yet"):
            session.take(command)


def test_the_system_prompt_can_be_set_shown_and_removed(session):
    without = say(session, "hi").usage.prompt_tokens
    session.take("/clear")
    assert session.take("/system You are a fox.") == "system: You are a fox."
    assert say(session, "hi").usage.prompt_tokens > without
    assert session.take("/system -") == session.take("/system") == "system: none"


def test_options_are_set_checked_and_unset(session):
    assert "top_p=0.5" in session.take("/set top_p=0.5")
    for word, message in (
        ("top_p=2", "top_p must be from 0 to 1, not 2"),
        ("tempratur=1", "did you mean 'temperature'?"),
        ("top_k=many", "top_k"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            session.take(f"/set {word}")
    assert session.options["top_p"] == 0.5
    assert "top_p" not in session.take("/set top_p=null")


def test_a_conversation_is_saved_and_loaded(session, model, tmp_path):
    session.take("/system Be brief.")
    say(session, "hi")
    path = tmp_path / "talk.json"
    session.take(f"/save {path}")
    with pytest.raises(ValueError, match="is there already"):
        session.take(f"/save {path}")
    other = ChatSession(model)
    other.take(f"/load {path}")
    assert (other.system, other.messages) == ("Be brief.", session.messages)
    for text in ('{"role": "user"}', '[{"role": "user"}]', "[", "[1]"):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"talk\.json"):
            other.take(f"/load {path}")
    assert other.messages == session.messages


def test_unknown_commands_suggest_the_nearest_and_two_slashes_are_text(session):
    with pytest.raises(ValueError, match=r"unknown command '/sytem'; did you mean '/system'\?"):
        session.take("/sytem x")
    say(session, "//etc is a folder")
    assert session.messages[0]["content"] == "/etc is a folder"
    with pytest.raises(Quit):
        session.take("/quit")


def test_help_lists_every_command(session):
    shown = session.take("/help")
    for name, command in session.commands.items():
        assert f"{name} " in shown
        assert command.__doc__ in shown


def test_a_question_that_does_not_fit_leaves_the_conversation_as_it_was(session):
    say(session, "hi")
    before = list(session.messages)
    with pytest.raises(ValueError, match=r"tokens .* 8192.*/undo takes back"):
        session.take("hello " * 9000)
    assert session.messages == before


def test_a_stopped_answer_is_kept(session):
    stream = session.take("the quick")
    next(stream)
    stream.close()
    assert session.answered(stream.completion)
    assert session.messages[-1]["content"] == stream.completion.text
    assert say(session, "and then?").finish_reason == "length"


def test_without_a_terminal_each_line_is_a_message(limner, tiny):
    lines = b"hello\n\n/set temperature=0\n/tokens\n/quit\nnever read\n"
    result = limner("chat", tiny, "--max-tokens", 5, "--ignore-eos", stdin=lines)
    assert result.code == 0
    assert "max_tokens=5" in result.out
    assert re.search(r"^\d+ of 8,192 tokens$", result.out, re.MULTILINE)


def test_without_a_terminal_a_mistake_ends_it(refused, tiny):
    assert "did you mean '/help'?" in refused("chat", tiny, stdin=b"/hlep\n")
    assert "line 1 of standard input: not UTF-8 at byte 1" in refused("chat", tiny, stdin=b"a\xff")


# A process that leads a session gets the first terminal it opens as its own, for Ctrl-C to act on.
# One started in the background, as these tests may be, ignores Ctrl-C until it is told not to.
PROGRAM = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
os.close(os.open(os.ttyname(0), os.O_RDWR))
from limner.commands import main
sys.exit(main(sys.argv[1:]))
"""


class Terminal:
    """limner on a terminal of its own."""

    def __init__(self, *words):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *map(str, words)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=os.environ | {"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        )
        os.close(slave)
        self.seen = ""

    def wait_for(self, text="", length=0, seconds=60):
        """Read until `text`, and at least `length` characters, come after the last waited for."""
        deadline = time.monotonic() + seconds
        while text not in self.seen or len(self.seen) < length:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0]:
                self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
        self.seen = self.seen.partition(text)[2] if text else ""

    def type(self, text):
        os.write(self.master, text.encode())

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminal():
    opened = []

    def run(*words):
        opened.append(Terminal(*words))
        return opened[-1]

    yield run
    for each in opened:
        each.close()


def test_ctrl_c_stops_the_answer_and_keeps_the_chat(terminal, tiny, tmp_path):
    chat = terminal("chat", tiny, "--ignore-eos", "--max-tokens", 8000)
    chat.wait_for("Ctrl-D leaves")
    chat.wait_for(">")
    chat.type("tell me all\r")
    chat.wait_for("tell me all")
    chat.wait_for(length=1000)
    chat.type("\x03")
    chat.wait_for("(stopped)")
    chat.wait_for(">")
    chat.type("/undo\r")
    chat.wait_for("0 messages are left")
    chat.wait_for(">")
    chat.type("half a line")
    chat.wait_for("line")
    chat.type("\x03")
    chat.wait_for(">")
    chat.type("/tokens\r")
    chat.wait_for("0 of 8,192 tokens")
    chat.wait_for(">")
    chat.type("\x04")
    assert chat.process.wait(30) == 0
    assert "+tell me all" in (tmp_path / "cache" / "chat_history").read_text("utf-8")


def test_ctrl_c_ends_a_generation_with_130(terminal, tiny):
    generation = terminal("generate", tiny, "hello", "--ignore-eos", "--max-tokens", 8000)
    generation.wait_for(length=100)
    generation.type("\x03")
    assert generation.process.wait(30) == 130
    assert "Traceback" not in generation.seen


def test_a_saved_conversation_is_a_list_of_messages(session, tmp_path):
    say(session, "hi")
    session.take(f"/save {tmp_path / 'talk.json'}")
    assert json.loads((tmp_path / "talk.json").read_text("utf-8")) == session.messages
