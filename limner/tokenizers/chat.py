"""Chat templates: messages to text, in the dialect of jinja2 that `transformers` gives templates.

Templates come with models, from strangers, so they run in jinja2's sandbox, where they can neither
change what they are given nor reach anything else.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn

DEFAULT = "default"
TOOL_USE = "tool_use"
GENERATION_START, GENERATION_END = "__generation_start", "__generation_end"
"""Variables written around what `{% generation %}` encloses; empty unless somebody asks."""


class ChatTemplate:
    """How a model wants messages written.

    Args:
        source: the template, or several by name. "tool_use" is taken when there are tools,
            "default" otherwise.

    Raises:
        ValueError: if a template is no valid jinja2, or there is none by the name "default".
    """

    def __init__(self, source: str | Mapping[str, str]) -> None:
        self.sources = {DEFAULT: source} if isinstance(source, str) else dict(source)
        if DEFAULT not in self.sources:
            raise ValueError(f'no template named "default", only {", ".join(self.sources)}')
        for name, text in self.sources.items():
            _compile(text, name)

    @property
    def source(self) -> str:
        """The template that is used without tools."""
        return self.sources[DEFAULT]

    def chosen(self, *, tools: bool) -> str:
        """The source of the template that messages are written with."""
        return self.sources.get(TOOL_USE, self.source) if tools else self.source

    def marks_generation(self, *, tools: bool) -> bool:
        """Whether the template itself says what the assistant writes."""
        from jinja2 import nodes

        tree = _environment().parse(self.chosen(tools=tools))
        return any(name.name == GENERATION_START for name in tree.find_all(nodes.Name))

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text of a conversation.

        Args:
            variables: `messages`, `tools`, `documents`, `add_generation_prompt`, the special tokens
                by their roles, and whatever else the template reads.

        Raises:
            ValueError: what the template complains of, or the mistake that it makes.
        """
        import jinja2

        template = _compile(self.chosen(tools=bool(variables.get("tools"))), DEFAULT)
        try:
            text: str = template.render(
                **{GENERATION_START: "", GENERATION_END: ""} | dict(variables)
            )
        except jinja2.TemplateError as error:
            raise ValueError(f"the chat template refuses these messages: {error}") from error
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"the chat template fails on these messages: {error!r}") from error
        return text


@functools.lru_cache(maxsize=64)
def _compile(source: str, name: str) -> Any:
    import jinja2

    try:
        return _environment().from_string(source)
    except jinja2.TemplateSyntaxError as error:
        message = f"chat template {name!r}, line {error.lineno}: {error.message}"
        raise ValueError(message) from error


@functools.cache
def _environment() -> Any:
    """Jinja2 as templates expect it."""
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_generation_tag(), loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda pattern: datetime.now().strftime(pattern)
    return environment


def _generation_tag() -> type:
    """The tag `{% generation %}` ... `{% endgeneration %}`: the assistant writes what is inside."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class Generation(Extension):
        tags = {"generation"}  # noqa: RUF012 - jinja2 declares it so

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            start, end = (
                nodes.Output([nodes.Name(name, "load")])
                for name in (GENERATION_START, GENERATION_END)
            )
            return nodes.Scope([start, *body, end]).set_lineno(line)

    return Generation


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON that leaves <, > and & alone, unlike the filter that jinja2 has for web pages."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)


def plain_data(value: Any) -> Any:
    """Numbers, strings, lists and dictionaries, so that a template gets at no object's methods.

    Raises:
        ValueError: if there is anything else.
    """
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # the text of an enumeration's member, not its name
    if isinstance(value, Mapping):
        return {plain_data(key): plain_data(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [plain_data(item) for item in value]
    raise ValueError(
        f"a chat template can be given strings, numbers, lists and dictionaries, not "
        f"{type(value).__name__} ({value!r})"
    )


_REASONING = ("reasoning_content", "thinking", "reasoning")


def with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Reasoning under each of the names that templates read it by."""
    given = next((message[key] for key in _REASONING if message.get(key) is not None), None)
    if given is None:
        return message
    return {"thinking": given, **message, "reasoning_content": given}
