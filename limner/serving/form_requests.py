"""The form that a request wants its answers in: OpenAI's `response_format`, and vLLM's fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from limner.inference.constraints import Form

SCHEMA_NAME = r"^[a-zA-Z0-9_-]{1,64}$"


class FormPart(BaseModel):
    """Part of a request's body. Types are taken as they are: "5" is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class TextFormat(FormPart):
    """Any text."""

    type: Literal["text"]


class ObjectFormat(FormPart):
    """Any JSON object."""

    type: Literal["json_object"]


class NamedSchema(FormPart):
    """A JSON Schema and what it is called."""

    name: Annotated[str, Field(pattern=SCHEMA_NAME)]
    description: str | None = None
    schema_: dict[str, Any] | bool | None = Field(default=None, alias="schema")
    strict: bool | None = None
    """without effect: answers always follow the schema"""


class SchemaFormat(FormPart):
    """JSON that is valid under a schema."""

    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[TextFormat | ObjectFormat | SchemaFormat, Field(discriminator="type")]
Choices = Annotated[list[str], Field(min_length=1, max_length=1024)]
AnySchema = dict[str, Any] | bool | str


class StructuredOutputs(FormPart):
    """One form, under the names that vLLM gives them."""

    json_: AnySchema | None = Field(default=None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: Choices | None = None
    grammar: str | None = None
    """a Lark grammar, as llguidance reads it"""


class FormFields(BaseModel):
    """The fields of a body that hold its answers to a form; one of them may be given."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: AnySchema | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None

    def form(self) -> Form | None:
        """The form that is asked for. Raises ValueError, beginning with the field's name."""
        found = {
            **_named("response_format", self.response_format, _of_format),
            **_named("structured_outputs", self.structured_outputs, _of_outputs),
            **_named("guided_json", self.guided_json, Form.schema),
            **_named("guided_regex", self.guided_regex, Form.regex),
            **_named("guided_choice", self.guided_choice, Form.choice),
            **_named("guided_grammar", self.guided_grammar, Form.grammar),
        }
        if len(found) > 1:
            first, second, *_ = found
            raise ValueError(f"{first} and {second} exclude each other: give one of them")
        return next(iter(found.values()), None)

    @property
    def form_field(self) -> str:
        """The name of the field that asks for a form."""
        given = (name for name in FormFields.model_fields if getattr(self, name) is not None)
        return next(given, "response_format")


def _named(name: str, given: Any, make: Callable[[Any], Form | None]) -> dict[str, Form]:
    """The form of a field, under the field's name; nothing if it asks for none."""
    if given is None:
        return {}
    try:
        form = make(given)
    except ValueError as error:
        raise ValueError(f"{name} does not work: {error}") from None
    return {} if form is None else {name: form}


def _of_format(given: TextFormat | ObjectFormat | SchemaFormat) -> Form | None:
    if isinstance(given, TextFormat):
        return None
    if isinstance(given, ObjectFormat):
        return Form.schema({"type": "object"})
    schema = given.json_schema.schema_
    return Form.schema(True if schema is None else schema)


def _of_outputs(given: StructuredOutputs) -> Form | None:
    schema = {"type": "object"} if given.json_object else None
    forms = {"regex": given.regex, "choice": given.choice, "grammar": given.grammar}
    if schema is not None and given.json_ is not None:
        raise ValueError("json and json_object exclude each other: give one of them")
    return Form.of(schema=given.json_ if schema is None else schema, **forms)
