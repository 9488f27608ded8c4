"""Calls of functions by one model: from the tools to the prompt, and from the answer to the calls.

Tools are OpenAI's: `{"type": "function", "function": {"name": ..., "description": ...,
"parameters": a JSON Schema, "strict": ...}}`.
"""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from limner.inference.constraints import ONE_LINE, Form, json_rule
from limner.inference.sequence import Event
from limner.inference.stopping import TextDecoder
from limner.language_model.completion import ToolCall
from limner.tokenizers import IncrementalDecoder, Tokenizer
from limner.tools.formats import HERMES, CallFormat, as_literal, format_of, parameters_of
from limner.tools.parsers import CallParser
from limner.tools.preamble import with_preamble
from limner.tools.source import Piece, TextPiece

Message = Mapping[str, Any]
Tool = Mapping[str, Any]

#: What Mistral's templates insist on, and nobody else minds.
IDENTITY_LENGTH = 9


@dataclass(frozen=True)
class Calling:
    """The functions that an answer may call, and how.

    Args:
        tokenizer: the model's.
        tools: the functions that the prompt tells of.
        allowed: the names of those that may be called; all if not given.
        required: whether the answer must be a call.
        parallel: whether it may be several.
    """

    tokenizer: Tokenizer
    tools: Sequence[Tool]
    allowed: tuple[str, ...] | None = None
    required: bool = False
    parallel: bool = True

    @cached_property
    def several(self) -> bool:
        """Whether an answer may hold several calls; Llama's template could not read them back."""
        template = self.tokenizer.chat_template
        source = template.chosen(tools=True) if template else ""
        return self.parallel and "single tool-calls at once" not in source

    @cached_property
    def functions(self) -> dict[str, dict[str, Any]]:
        """The schema of the arguments of each function that may be called, by its name."""
        given = {tool["function"]["name"]: tool["function"] for tool in self.tools}
        names = given if self.allowed is None else self.allowed
        return {name: parameters_of(given[name].get("parameters")) for name in names}

    @cached_property
    def format(self) -> CallFormat:
        """How this model writes calls."""
        return template_format(self.tokenizer) or HERMES

    @cached_property
    def marks(self) -> dict[int, str]:
        """The special tokens of the format, of which the answer's text is to tell."""
        ids = {mark: self.tokenizer.token_id(mark) for mark in self.format.marks}
        special = self.tokenizer.special_ids
        return {id: mark for mark, id in ids.items() if id is not None and id in special}

    def parser(self) -> CallParser:
        """Reads one answer."""
        return CallParser(self.format.parser, self.functions)

    def decoder(self) -> TextDecoder:
        """Makes one answer's text."""
        return MarkedDecoder(IncrementalDecoder(self.tokenizer), self.marks)

    def form(self, answer: Form | None, check: Callable[[Form], object]) -> Form | None:
        """What the answer is held to.

        Args:
            answer: the form of an answer that is no call, if it has one.
            check: raises ValueError for a form that cannot be followed.

        Raises ValueError, beginning with the field's name, for a schema that cannot be followed.
        """
        if not self.required and answer is None and not self._strict:
            return None
        literal = as_literal({mark: id for id, mark in self.marks.items()})
        schemas = {name: self._schema(name, check) for name in self.functions}
        free = not self.required and answer is None
        write = self.format.free_grammar if free else self.format.grammar
        arguments = partial(json_rule, spacing=ONE_LINE)
        rules = write(schemas, literal, arguments, parallel=self.several)
        if free:
            return Form.grammar(rules)
        if self.required or answer is None:
            return Form.grammar(f"start: calls\n{rules}")
        if answer.kind == "grammar":
            raise ValueError("tools cannot be given beside a grammar: ask for tool_choice none")
        text = answer.lark.removeprefix("start: ")
        return Form.grammar(f"start: answer | calls\nanswer: {text}\n{rules}")

    @cached_property
    def _strict(self) -> set[str]:
        functions = [tool["function"] for tool in self.tools]
        return {function["name"] for function in functions if function.get("strict")}

    def _schema(self, name: str, check: Callable[[Form], object]) -> dict[str, Any]:
        """The schema that a function's arguments are held to: any, if nobody asks for more."""
        held = self.required or name in self._strict
        schema = self.functions[name] if held else {"type": "object"}
        try:
            check(Form.schema(schema))
        except ValueError as error:
            raise ValueError(f"tools holds '{name}', of which the {error}") from None
        return schema


def template_format(tokenizer: Tokenizer) -> CallFormat | None:
    """How a model's own chat template has calls written; None if it has no place for tools."""
    template = tokenizer.chat_template
    return None if template is None else format_of(template.chosen(tools=True))


def as_read(
    tokenizer: Tokenizer, messages: Sequence[Message], tools: Sequence[Tool] = ()
) -> tuple[Sequence[Message], list[dict[str, Any]] | None]:
    """Messages and tools as this model's template takes them.

    Where it has no place for tools, they are told of in the system message.
    """
    described = [_described(tool) for tool in tools]
    if template_format(tokenizer) is None:
        return with_preamble(messages, described), None
    return [_with_data(message) for message in _with_names(messages)], described or None


def _described(tool: Tool) -> dict[str, Any]:
    """A tool as chat templates read it."""
    function = {name: field for name, field in tool["function"].items() if name != "strict"}
    function.setdefault("parameters", {"type": "object", "properties": {}})
    return {"type": "function", "function": function}


def arguments_of(name: str, arguments: str | Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments of a call as data. Raises ValueError if they are no JSON object."""
    try:
        data = json.loads(arguments or "{}") if isinstance(arguments, str) else arguments
    except (json.JSONDecodeError, RecursionError):
        data = None
    if not isinstance(data, Mapping):
        given = str(arguments)
        shown = given if len(given) <= 80 else f"{given[:80]}..."
        raise ValueError(
            f"messages hold a call of '{name}' whose arguments are no JSON object: {shown!r}"
        )
    return data


def _with_data(message: dict[str, Any]) -> dict[str, Any]:
    """A message with the arguments of its calls as data, which is how templates read them."""
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        function = call["function"]
        data = arguments_of(function["name"], function["arguments"])
        calls.append({**call, "function": {**function, "arguments": data}})
    return message | {"tool_calls": calls}


def _with_names(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Results with the name of the function that gave them, which some templates write."""
    names = {
        call["id"]: call["function"]["name"]
        for message in messages
        for call in message.get("tool_calls") or ()
        if "id" in call
    }
    named = []
    for message in messages:
        name = names.get(message.get("tool_call_id"))
        named.append({**({} if name is None else {"name": name}), **message})
    return named


class CallReader:
    """The text and the calls of an answer as it comes.

    Args:
        calling: what the answer may call.
    """

    def __init__(self, calling: Calling) -> None:
        self.text = ""
        self._several, self._parser = calling.several, calling.parser()
        self._calls: list[ToolCall] = []

    def take(self, event: Event) -> str:
        """Add what happened; return the text in it that belongs to no call."""
        pieces = self._parser.push(event.text)
        if event.finish_reason:
            pieces += self._parser.finish()
        text = "".join(self._add(piece) for piece in pieces)
        self.text += text
        return text

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls so far."""
        return tuple(self._calls)

    def _add(self, piece: Piece) -> str:
        if isinstance(piece, TextPiece):
            return piece.text
        if piece.call and not self._several:
            return ""
        if piece.name is not None:
            self._calls.append(ToolCall(new_identity(), piece.name, ""))
        call = self._calls[piece.call]
        self._calls[piece.call] = replace(call, arguments=call.arguments + piece.arguments)
        return ""


def calling(
    tokenizer: Tokenizer, tools: Sequence[Tool] | None, choice: str = "auto"
) -> Calling | None:
    """What an answer may call: "auto", "required", the name of a function, or, None, nothing.

    Raises ValueError for a choice that is none of these.
    """
    names = [tool["function"]["name"] for tool in tools or ()]
    if choice not in ("auto", "required", "none", *names):
        known = ", ".join(names) or "there are none"
        raise ValueError(
            f"tool_choice is '{choice}': say auto, required, none or the name of one of the tools "
            f"({known})"
        )
    if choice == "required" and not tools:
        raise ValueError("tool_choice is 'required': give tools too")
    if not tools or choice == "none":
        return None
    if choice in names:
        return Calling(tokenizer, tools, (choice,), required=True, parallel=False)
    return Calling(tokenizer, tools, required=choice == "required")


class MarkedDecoder:
    """A decoder that writes some special tokens, too."""

    def __init__(self, decoder: TextDecoder, marks: Mapping[int, str]) -> None:
        self._decoder, self._marks = decoder, marks

    def push(self, token_id: int) -> str:
        """Take one token; return the text that it completes."""
        return self._marks.get(token_id) or self._decoder.push(token_id)

    def finish(self) -> str:
        """The text of what is not yet complete."""
        return self._decoder.finish()


def new_identity() -> str:
    """The id of a call."""
    letters = string.ascii_letters + string.digits
    return "".join(secrets.choice(letters) for _ in range(IDENTITY_LENGTH))
