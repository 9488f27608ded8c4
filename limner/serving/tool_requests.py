"""What a chat says of functions: which there are, whether to call one, and which were called."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from limner.language_model.calling import arguments_of

#: OpenAI's rule, and the dots that others allow.
FunctionName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]


class ToolPart(BaseModel):
    """Part of a request's body. Types are taken as they are: "5" is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class Function(ToolPart):
    """A function that the model may call."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    """the JSON Schema of its arguments"""
    strict: bool | None = None
    """hold the arguments to the schema, also where the model is free to call or not"""


class Tool(ToolPart):
    """A tool; there are none but functions."""

    type: Literal["function"]
    function: Function


class FunctionReference(ToolPart):
    """A function by its name."""

    name: str


class ToolReference(ToolPart):
    """A tool by the name of its function."""

    type: Literal["function"]
    function: FunctionReference


class AllowedTools(ToolPart):
    """Some of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[ToolReference], Field(min_length=1)]


class AllowedToolsChoice(ToolPart):
    """Only some of the tools may be called."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required"] | ToolReference | AllowedToolsChoice


class CalledFunction(ToolPart):
    """A function that was called, and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(ToolPart):
    """A call that the model made."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction
    index: Any = None

    def plain(self) -> dict[str, Any]:
        """The call as chat templates read it, with the arguments as data. Raises ValueError."""
        name = self.function.name
        function = {"name": name, "arguments": arguments_of(name, self.function.arguments)}
        return {"id": self.id, "type": "function", "function": function}
