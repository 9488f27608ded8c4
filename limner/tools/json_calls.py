"""Calls that are written as JSON objects, read character by character."""

from __future__ import annotations

from collections.abc import Callable, Container

from limner.tools.source import SPACE, EndedError, NoCallError, Reading, Source, Writer

ARGUMENTS = ("arguments", "parameters")


def call_object(
    source: Source, writer: Writer, known: Container[str] | None = None
) -> Reading[None]:
    """The call of a JSON object with a name and arguments, whose `{` was read.

    Raises NoCallError if it is none, or none of a function that is `known`.
    """
    name, given, early = None, False, ""
    while True:
        member = yield from _member(source)
        if member is None:
            break
        if member == "name" and name is None:
            name = yield from _name(source, known)
            writer.begin(name)
            writer.arguments(early)
        elif member in ARGUMENTS and not given:
            given = True
            early += yield from value(source, writer.arguments if name is not None else None)
        else:
            yield from value(source)
    if name is None:
        raise NoCallError
    if not given:
        writer.arguments("{}")


def _member(source: Source) -> Reading[str | None]:
    """The name of an object's next member, up to the colon; None at the object's end."""
    character = yield from source.next_word()
    if character == ",":
        character = yield from source.next_word()
    if character == "}":
        return None
    if character != '"':
        raise NoCallError
    name = yield from source.string()
    if (yield from source.next_word()) != ":":
        raise NoCallError
    return name


def _name(source: Source, known: Container[str] | None) -> Reading[str]:
    if (yield from source.next_word()) != '"':
        raise NoCallError
    name = yield from source.string()
    if not name or (known is not None and name not in known):
        raise NoCallError
    return name


def value(source: Source, emit: Callable[[str], None] | None = None) -> Reading[str]:
    """The text of a JSON value. `emit` is given its characters as they come, and "" returned."""
    kept: list[str] = []
    take = emit or kept.append
    character = yield from source.next_word()
    take(character)
    if character == '"':
        yield from _string(source, take)
    elif character in "{[":
        yield from _nested(source, take)
    else:
        yield from _scalar(source, take)
    return "".join(kept)


def _nested(source: Source, take: Callable[[str], None]) -> Reading[None]:
    depth = 1
    while depth:
        character = yield from source.next()
        take(character)
        depth += (character in "{[") - (character in "}]")
        if character == '"':
            yield from _string(source, take)


def _string(source: Source, take: Callable[[str], None]) -> Reading[None]:
    character = ""
    while character != '"':
        character = yield from source.next()
        take(character)
        if character == "\\":
            take((yield from source.next()))


def _scalar(source: Source, take: Callable[[str], None]) -> Reading[None]:
    while True:
        character = yield from source.next()
        if character in f",}}]{SPACE}":
            source.give_back(character)
            return
        take(character)


def call_or_text(
    source: Source, writer: Writer, call: Reading[None], before: str = ""
) -> Reading[bool]:
    """Read a call; what turns out to be none is text, with the mark that stood before it."""
    calls = writer.calls
    source.mark()
    try:
        yield from call
    except (NoCallError, EndedError) as error:
        if writer.calls == calls:
            writer.text(before + source.read)
        if isinstance(error, EndedError):
            raise
        return False
    return True
