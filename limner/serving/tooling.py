"""Calls of functions in a chat: what a request says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from limner.language_model.calling import Calling
from limner.serving.tool_requests import AllowedToolsChoice, Tool, ToolChoice, ToolReference
from limner.tokenizers import Tokenizer


def tooling(
    tokenizer: Tokenizer, tools: Sequence[Tool], choice: ToolChoice | None, *, parallel: bool
) -> Calling:
    """The functions that an answer may call.

    Args:
        tokenizer: the model's.
        tools: those that the request gives.
        choice: whether and which to call.
        parallel: whether the request takes several calls in one answer.

    Raises ValueError, beginning with the field's name, if the request contradicts itself.
    """
    names = [tool.function.name for tool in tools]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"tools holds two functions with the name '{name}'")
    allowed, required = _allowed(choice, names)
    for name in allowed:
        if name not in names:
            known = ", ".join(names)
            raise ValueError(f"tool_choice names '{name}', but the functions are: {known}")
    return Calling(
        tokenizer,
        [_plain(tool) for tool in tools],
        tuple(allowed),
        required=required,
        parallel=parallel and not isinstance(choice, ToolReference),
    )


def _allowed(choice: ToolChoice | None, names: list[str]) -> tuple[list[str], bool]:
    """The names of the functions that may be called, and whether one must."""
    if isinstance(choice, ToolReference):
        return [choice.function.name], True
    if isinstance(choice, AllowedToolsChoice):
        chosen = [tool.function.name for tool in choice.allowed_tools.tools]
        return chosen, choice.allowed_tools.mode == "required"
    return names, choice == "required"


def _plain(tool: Tool) -> dict[str, Any]:
    return tool.model_dump(exclude_none=True)
