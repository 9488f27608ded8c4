"""Arguments that are written as Python's, read character by character."""

from __future__ import annotations

import ast
import json
from typing import Any

from limner.tools.json_calls import value
from limner.tools.source import NoCallError, Reading, Source, Writer

PYTHONS = {"True": True, "False": False, "None": None}


def python_arguments(source: Source, writer: Writer) -> Reading[None]:
    """Keyword arguments up to the closing parenthesis, passed on as a JSON object.

    `**{...}` is passed on as it is. Raises NoCallError for what is neither.
    """
    opening = "{"
    while True:
        character = yield from source.next_word()
        if character == ")":
            writer.arguments("{}" if opening == "{" else "}")
            return
        if character == "*" and opening == "{":
            yield from _unpacked(source, writer)
            return
        name, _ = yield from source.until("=")
        text, end = yield from _expression(source)
        key = json.dumps((character + name).strip(), ensure_ascii=False)
        writer.arguments(f"{opening}{key}: {_as_json(text)}")
        opening = ", "
        if end == ")":
            source.give_back(end)


def _unpacked(source: Source, writer: Writer) -> Reading[None]:
    if not (yield from source.expect("*")):
        raise NoCallError
    yield from value(source, writer.arguments)
    if (yield from source.next_word()) != ")":
        raise NoCallError


def _expression(source: Source) -> Reading[tuple[str, str]]:
    """The text of an expression and the `,` or `)` that ends it."""
    text, depth = "", 0
    while True:
        character = yield from source.next()
        if not depth and character in ",)":
            return text, character
        depth += (character in "{[(") - (character in "}])")
        text += character
        if character in "'\"":
            text += yield from _string(source, character)


def _string(source: Source, quote: str) -> Reading[str]:
    text = ""
    while True:
        character = yield from source.next()
        text += character
        if character == "\\":
            text += yield from source.next()
        elif character == quote:
            return text


def _as_json(text: str) -> str:
    """The JSON of a literal; what is none is a string, as the model wrote it."""
    for read in (ast.literal_eval, json.loads):
        try:
            return json.dumps(_plain(read(text.strip())), ensure_ascii=False, allow_nan=False)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
    return json.dumps(text.strip(), ensure_ascii=False)


def _plain(literal: Any) -> Any:
    if isinstance(literal, tuple | set):
        return list(literal)
    return literal
