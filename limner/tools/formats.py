"""The forms in which models write calls, and which of them a chat template asks for.

A model was trained on one form, and its chat template is what says which.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from limner.tools import parsers
from limner.tools.parsers import Functions, Parser

Literal = Callable[[str], str]
"""A text as a Lark grammar has it: a string, or a special token by its id."""
Arguments = Callable[[Any], str]
"""The right side of a Lark rule for the JSON texts of a schema."""


@dataclass(frozen=True)
class CallFormat:
    """A form of calls.

    A call is `before`, `opening` with the function's name in place of `NAME`, the arguments, and
    `closing`; calls are joined by `between`, and the last is followed by `after`.
    """

    name: str
    parser: Parser
    opening: str
    closing: str
    before: str = ""
    between: str = "\n"
    after: str = ""
    marks: tuple[str, ...] = ()
    """Special tokens of the form, which have to be seen in the text."""

    def call(self, name: str, arguments: str) -> str:
        """A call as a model writes it; `arguments` are JSON."""
        return self.opening.replace("NAME", name) + arguments + self.closing

    def grammar(
        self, functions: Functions, literal: Literal, arguments: Arguments, *, parallel: bool
    ) -> str:
        """Lark rules for an answer that is a call or, if `parallel`, several; the first is `calls`.

        Args:
            functions: those that may be called.
            literal: writes a text for Lark.
            arguments: writes the arguments of a schema for Lark.
            parallel: whether there may be several calls.
        """
        names = list(functions)
        parts = ["call" if not parallel else _repeated("call", literal(self.between))]
        parts = [literal(self.before), *parts, literal(self.after)]
        rules = [f"calls: {' '.join(part for part in parts if part)}"]
        rules.append("call: " + " | ".join(f"call_{place}" for place in range(len(names))))
        for place, name in enumerate(names):
            opening = literal(self.opening.replace("NAME", name))
            closing = literal(self.closing)
            rules.append(f"call_{place}: {opening} arguments_{place} {closing}")
            rules.append(f"arguments_{place}: {arguments(parameters_of(functions[name]))}")
        return "\n".join(rules)

    def free_grammar(
        self, functions: Functions, literal: Literal, arguments: Arguments, *, parallel: bool
    ) -> str:
        """Lark rules for any answer whose calls, if there are any, are sound; beginning at `start`.

        Takes what `grammar` does.
        """
        if not self.trigger:
            calls = self.grammar(functions, literal, arguments, parallel=parallel)
            return f"start: calls | TEXT\nTEXT: /([^{{\\[\\s](.|\\n)*)?/\n{calls}"
        mark = literal(self.trigger)
        lazy = "" if mark.startswith("<") else "[lazy]"
        rest = replace(
            self,
            before=self.before.removeprefix(self.trigger),
            opening=self.opening.removeprefix(self.trigger),
        )
        several = parallel and bool(self.before)
        calls = rest.grammar(functions, literal, arguments, parallel=several)
        start = "(head calls)* TEXT" if parallel else "TEXT | head calls"
        return f"start: {start}\nhead{lazy}: TEXT {mark}\nTEXT: /(.|\\n)*/\n{calls}"

    @property
    def trigger(self) -> str:
        """The mark that a call begins with; empty where nothing marks it."""
        begun = self.before + self.opening
        return next((mark for mark in self.marks if begun.startswith(mark)), "")


def parameters_of(schema: Any) -> dict[str, Any]:
    """A schema of arguments, which are always an object."""
    given = {} if schema is None else dict(schema)
    return given if "$ref" in given else {"type": "object", **given}


def _repeated(rule: str, between: str) -> str:
    return f"{rule} ({between} {rule})*"


HERMES = CallFormat(
    "hermes",
    parsers.hermes,
    opening='<tool_call>\n{"name": "NAME", "arguments": ',
    closing="}\n</tool_call>",
    marks=(parsers.OPENING, parsers.CLOSING),
)
# a call in XML could not be held to a schema, and the parser reads Hermes' form as well
QWEN_CODER = CallFormat(
    "qwen-coder",
    parsers.qwen_coder,
    HERMES.opening,
    HERMES.closing,
    marks=HERMES.marks,
)
LLAMA = CallFormat(
    "llama",
    parsers.llama,
    opening='{"name": "NAME", "parameters": ',
    closing="}",
    between="; ",
    marks=(parsers.PYTHON_TAG,),
)
MISTRAL_LIST = CallFormat(
    "mistral",
    parsers.mistral,
    opening='{"name": "NAME", "arguments": ',
    closing="}",
    before="[TOOL_CALLS] [",
    between=", ",
    after="]",
    marks=(parsers.TOOL_CALLS,),
)
MISTRAL_NAMED = CallFormat(
    "mistral-named",
    parsers.mistral,
    opening="[TOOL_CALLS]NAME[ARGS]",
    closing="",
    between="",
    marks=(parsers.TOOL_CALLS, "[ARGS]", "[CALL_ID]"),
)
PYTHONIC = CallFormat(
    "pythonic", parsers.pythonic, "NAME(**", ")", before="[", between=", ", after="]"
)
PYTHONIC_MARKED = CallFormat(
    "pythonic-marked",
    parsers.pythonic,
    "NAME(**",
    ")",
    before=f"{parsers.CALL_START}[",
    between=", ",
    after=f"]{parsers.CALL_END}",
    marks=(parsers.CALL_START, parsers.CALL_END),
)


def format_of(template: str) -> CallFormat | None:
    """The form that a chat template asks for; None if it knows no tools, or writes calls otherwise.

    Told by the marks that stand in the template's text.
    """
    for marks, found in TELLING:
        if all(mark in template for mark in marks):
            return found
    return None


TELLING: Sequence[tuple[tuple[str, ...], CallFormat | None]] = (
    (("tools", "<arg_key>"), None),  # GLM's, within Hermes' mark
    (("tools", "[TOOL_CALLS]", "[ARGS]"), MISTRAL_NAMED),
    (("tools", "[TOOL_CALLS]"), MISTRAL_LIST),
    (("tools", "<function=", "<parameter="), QWEN_CODER),
    (("tools", "<tool_call>"), HERMES),
    (("tools", parsers.CALL_START), PYTHONIC_MARKED),
    (("tools", "[func_name1("), PYTHONIC),
    (("tools", '"parameters"', "ipython"), LLAMA),
    (("tools", '"parameters"', parsers.PYTHON_TAG), LLAMA),
)


def as_literal(special: dict[str, int]) -> Literal:
    """Writes texts for Lark; `special` are the special tokens among the marks, by their text."""

    def literal(text: str) -> str:
        parts, rest = [], text
        while rest:
            found = [(rest.index(mark), mark) for mark in special if mark in rest]
            place, mark = min(found, default=(len(rest), ""))
            if place:
                parts.append(json.dumps(rest[:place]))
            if mark:
                parts.append(f"<[{special[mark]}]>")
            rest = rest[place + len(mark) :]
        return " ".join(parts)

    return literal
