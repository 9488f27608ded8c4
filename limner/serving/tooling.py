"""Calls of functions in a chat: from the request's tools to the prompt, and from text to calls."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from limner.inference.constraints import ONE_LINE, Form, json_rule
from limner.inference.stopping import TextDecoder
from limner.serving.tool_requests import AllowedToolsChoice, Tool, ToolChoice, ToolReference
from limner.tokenizers import IncrementalDecoder, Tokenizer
from limner.tools.formats import HERMES, CallFormat, as_literal, format_of, parameters_of
from limner.tools.parsers import CallParser
from limner.tools.preamble import with_preamble

#: What Mistral's templates insist on, and nobody else minds.
IDENTITY_LENGTH = 9


@dataclass(frozen=True)
class Tooling:
    """The functions that an answer may call, and how.

    Raises ValueError, beginning with the field's name, if the request contradicts itself.
    """

    tokenizer: Tokenizer
    tools: Sequence[Tool]
    choice: ToolChoice | None
    parallel: bool
    """Whether the request takes several calls in one answer."""

    def __post_init__(self) -> None:
        names = [tool.function.name for tool in self.tools]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"tools holds two functions with the name '{name}'")
        if isinstance(self.choice, str | None):
            return
        for name in self.allowed:
            if name not in names:
                known = ", ".join(names)
                raise ValueError(f"tool_choice names '{name}', but the functions are: {known}")

    @property
    def required(self) -> bool:
        """Whether the answer must be a call."""
        if isinstance(self.choice, AllowedToolsChoice):
            return self.choice.allowed_tools.mode == "required"
        return self.choice == "required" or isinstance(self.choice, ToolReference)

    @property
    def allowed(self) -> list[str]:
        """The names of the functions that may be called."""
        if isinstance(self.choice, ToolReference):
            return [self.choice.function.name]
        if isinstance(self.choice, AllowedToolsChoice):
            return [tool.function.name for tool in self.choice.allowed_tools.tools]
        return [tool.function.name for tool in self.tools]

    @cached_property
    def several(self) -> bool:
        """Whether an answer may hold several calls; Llama's template could not read them back."""
        template = self.tokenizer.chat_template
        source = template.chosen(tools=True) if template else ""
        named = isinstance(self.choice, ToolReference)
        return self.parallel and not named and "single tool-calls at once" not in source

    @cached_property
    def functions(self) -> dict[str, dict[str, Any]]:
        """The schema of the arguments of each function that may be called, by its name."""
        given = {tool.function.name: tool.function.parameters for tool in self.tools}
        return {name: parameters_of(given[name]) for name in self.allowed}

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
        strict = any(tool.function.strict for tool in self.tools)
        if not self.required and answer is None and not strict:
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

    def _schema(self, name: str, check: Callable[[Form], object]) -> dict[str, Any]:
        """The schema that a function's arguments are held to: any, if nobody asks for more."""
        strict = {tool.function.name: tool.function.strict for tool in self.tools}
        schema = self.functions[name] if self.required or strict[name] else {"type": "object"}
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
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]
) -> tuple[Sequence[Mapping[str, Any]], list[dict[str, Any]] | None]:
    """Messages and tools as this model's template takes them.

    Where it has no place for tools, they are told of in the system message.
    """
    plain = [tool.plain() for tool in tools]
    if template_format(tokenizer) is None:
        return with_preamble(messages, plain), None
    return _with_names(messages), plain or None


def _with_names(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Results with the name of the function that gave them, which some templates write."""
    names = {
        call["id"]: call["function"]["name"]
        for message in messages
        for call in message.get("tool_calls") or ()
    }
    named = []
    for message in messages:
        name = names.get(message.get("tool_call_id"))
        named.append({**({} if name is None else {"name": name}), **message})
    return named


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
