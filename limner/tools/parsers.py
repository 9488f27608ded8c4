"""Calls of functions out of what a model writes, piece by piece, in the forms in use.

Names of functions and arguments pass as soon as they are certain. What looks like a call and turns
out to be none, before a function's name stood there, is text. Arguments are passed on as the model
wrote them; that they are JSON, and fit the function, only a constraint makes sure of.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from limner.tools.json_calls import call_object, call_or_text, value
from limner.tools.python_calls import PYTHONS, python_arguments
from limner.tools.source import (
    SPACE,
    EndedError,
    NoCallError,
    Piece,
    Reading,
    Source,
    Writer,
    text_until,
)

OPENING, CLOSING = "<tool_call>", "</tool_call>"
PYTHON_TAG = "<|python_tag|>"
TOOL_CALLS = "[TOOL_CALLS]"
FUNCTION = "<function="
CALL_START, CALL_END = "<|tool_call_start|>", "<|tool_call_end|>"

Functions = Mapping[str, Mapping[str, Any]]
"""The JSON Schema of the parameters of each function, by its name."""
Parser = Callable[[Source, Writer, Functions], Reading[None]]


class CallParser:
    """Takes an answer in pieces, and gives back text and calls.

    Args:
        parser: one of this module's.
        functions: those that the model may call.
    """

    def __init__(self, parser: Parser, functions: Functions) -> None:
        self._writer = Writer()
        self._reading = _to_the_end(parser, self._writer, functions)
        next(self._reading)

    def push(self, text: str) -> list[Piece]:
        """What a further piece of the answer makes certain."""
        for character in text:
            self._reading.send(character)
        return self._writer.take()

    def finish(self) -> list[Piece]:
        """The rest."""
        with suppress(StopIteration):
            self._reading.send("")
        return self._writer.take()


def _to_the_end(parser: Parser, writer: Writer, functions: Functions) -> Reading[None]:
    source = Source()
    try:
        yield from parser(source, writer, functions)
    except EndedError:
        return


def hermes(source: Source, writer: Writer, _functions: Functions) -> Reading[None]:
    """`<tool_call>{"name": ..., "arguments": {...}}</tool_call>`: Hermes, Qwen, and many more."""
    while True:
        space, mark = yield from text_until(source, writer, OPENING)
        if (yield from call_or_text(source, writer, _hermes_call(source, writer), space + mark)):
            yield from _closing(source)


def _hermes_call(source: Source, writer: Writer) -> Reading[None]:
    if (yield from source.next_word()) != "{":
        raise NoCallError
    yield from call_object(source, writer)


def _closing(source: Source) -> Reading[None]:
    """Take the mark that closes a call, where the model has not forgotten it."""
    space = yield from _space(source)
    if not (yield from source.expect(CLOSING)):
        source.give_back(space)


def _space(source: Source) -> Reading[str]:
    space = ""
    while True:
        character = yield from source.next()
        if character not in SPACE:
            source.give_back(character)
            return space
        space += character


def llama(source: Source, writer: Writer, functions: Functions) -> Reading[None]:
    """An answer that is `{"name": ..., "parameters": {...}}`, perhaps several with `;` between.

    Nothing marks such a call, so it is one only if it names one of the functions. The token
    `<|python_tag|>` may stand before it.
    """
    first = _llama_call(source, writer, functions)
    going_on = yield from call_or_text(source, writer, first)
    while going_on:
        separator = yield from _separator(source)
        if not (yield from source.expect("{")):
            source.give_back(separator)
            break
        call = call_object(source, writer, functions)
        going_on = yield from call_or_text(source, writer, call, separator + "{")
    yield from text_until(source, writer)


def _llama_call(source: Source, writer: Writer, functions: Functions) -> Reading[None]:
    yield from _space(source)
    if (yield from source.expect(PYTHON_TAG)):
        yield from _space(source)
    if (yield from source.next()) != "{":
        raise NoCallError
    yield from call_object(source, writer, functions)


def _separator(source: Source) -> Reading[str]:
    """Space, with one `;` or `,` in it."""
    before = yield from _space(source)
    for mark in ";,":
        if (yield from source.expect(mark)):
            return before + mark + (yield from _space(source))
    return before


def mistral(source: Source, writer: Writer, _functions: Functions) -> Reading[None]:
    """`[TOOL_CALLS][{"name": ..., "arguments": {...}}]`, or `[TOOL_CALLS]name[ARGS]{...}`."""
    while True:
        space, mark = yield from text_until(source, writer, TOOL_CALLS)
        calls = _mistral_calls(source, writer)
        yield from call_or_text(source, writer, calls, space + mark)


def _mistral_calls(source: Source, writer: Writer) -> Reading[None]:
    yield from _space(source)
    if (yield from source.expect("[")):
        yield from _mistral_list(source, writer)
        return
    name, mark = yield from source.until("[ARGS]", "[CALL_ID]", "{")
    if mark == "[CALL_ID]":
        yield from source.until("[ARGS]")
    if mark == "{":
        source.give_back(mark)
    if not name.strip():
        raise NoCallError
    writer.begin(name.strip())
    yield from value(source, writer.arguments)


def _mistral_list(source: Source, writer: Writer) -> Reading[None]:
    while True:
        character = yield from source.next_word()
        if character == "," and writer.calls:
            character = yield from source.next_word()
        if character == "]" and writer.calls:
            return
        if character != "{":
            raise NoCallError
        yield from call_object(source, writer)


def qwen_coder(source: Source, writer: Writer, functions: Functions) -> Reading[None]:
    """`<tool_call><function=name><parameter=key>value</parameter></function></tool_call>`.

    Values are as the parameters' schemas say: text, or else JSON. The outer mark may be missing,
    and a call in Hermes' form may stand in it.
    """
    while True:
        space, mark = yield from text_until(source, writer, OPENING, FUNCTION)
        call = _qwen_call(source, writer, functions, mark)
        if (yield from call_or_text(source, writer, call, space + mark)):
            yield from _closing(source)


def _qwen_call(source: Source, writer: Writer, functions: Functions, mark: str) -> Reading[None]:
    if mark == OPENING:
        yield from _space(source)
        if (yield from source.expect("{")):
            yield from call_object(source, writer)
            return
        if not (yield from source.expect(FUNCTION)):
            raise NoCallError
    name, _ = yield from source.until(">")
    if not name.strip():
        raise NoCallError
    writer.begin(name.strip())
    yield from _qwen_arguments(source, writer, functions.get(name.strip(), {}))


def _qwen_arguments(source: Source, writer: Writer, parameters: Mapping[str, Any]) -> Reading[None]:
    opening = "{"
    while True:
        _, mark = yield from source.until("<parameter=", "</function>")
        if mark == "</function>":
            break
        key, _ = yield from source.until(">")
        text, _ = yield from source.until("</parameter>")
        worth = as_json(text.removeprefix("\n").removesuffix("\n"), parameters, key.strip())
        writer.arguments(f"{opening}{json.dumps(key.strip(), ensure_ascii=False)}: {worth}")
        opening = ", "
    writer.arguments("{}" if opening == "{" else "}")


def as_json(text: str, parameters: Mapping[str, Any], key: str) -> str:
    """The JSON of a parameter's value that is written as plain text."""
    properties = parameters.get("properties")
    schema = properties.get(key) if isinstance(properties, Mapping) else None
    kind = schema.get("type") if isinstance(schema, Mapping) else None
    if kind not in ("string", ["string"]):
        with suppress(json.JSONDecodeError, RecursionError):
            return json.dumps(json.loads(text.strip()), ensure_ascii=False)
        if text.strip() in PYTHONS:
            return json.dumps(PYTHONS[text.strip()])
    return json.dumps(text, ensure_ascii=False)


def pythonic(source: Source, writer: Writer, functions: Functions) -> Reading[None]:
    """An answer that is `[name(key=value, ...), ...]`, of functions that there are.

    LFM2 writes it between `<|tool_call_start|>` and `<|tool_call_end|>`, or JSON objects instead.
    """
    calls = _python_calls(source, writer, functions)
    yield from call_or_text(source, writer, calls)
    while True:
        space, mark = yield from text_until(source, writer, CALL_START)
        calls = _python_calls(source, writer, functions)
        if (yield from call_or_text(source, writer, calls, space + mark)):
            yield from source.expect(CALL_END)


def _python_calls(source: Source, writer: Writer, functions: Functions) -> Reading[None]:
    yield from _space(source)
    if not (yield from source.expect("[")):
        raise NoCallError
    while True:
        yield from _separator(source)
        if (yield from source.expect("]")):
            return
        if (yield from source.expect("{")):
            yield from call_object(source, writer, functions)
            continue
        name = yield from _identifier(source)
        if name not in functions or not (yield from source.expect("(")):
            raise NoCallError
        writer.begin(name)
        yield from python_arguments(source, writer)


def _identifier(source: Source) -> Reading[str]:
    name = ""
    while True:
        character = yield from source.next()
        if not (character.isalnum() or character in "_-."):
            source.give_back(character)
            return name
        name += character
