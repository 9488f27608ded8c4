"""The bodies of /v1/messages, and how they become chats."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from limner.serving.answering import Json
from limner.serving.requests import Absent, Body, ChatRequest, Ignored, Stop, only
from limner.serving.turns import chat_request


class TextBlock(Body):
    """Text."""

    type: Literal["text"]
    text: str
    cache_control: Ignored = None
    citations: Ignored = None


class ToolUseBlock(Body):
    """A call that the model made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]
    cache_control: Ignored = None
    caller: Ignored = None


def _kind(value: Any) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if isinstance(kind, str) else None


def _refusing(known: str) -> Discriminator:
    """Tell blocks apart by their type, and name those that are taken."""
    return Discriminator(
        _kind,
        custom_error_type="unsupported_parameter",
        custom_error_message="a content block of this type is not supported by this server, "
        f"which takes {known}",
    )


class ToolResultBlock(Body):
    """What came of a call."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock] | None = None
    is_error: bool | None = None
    cache_control: Ignored = None


Block = Annotated[
    Annotated[TextBlock, Tag("text")]
    | Annotated[ToolUseBlock, Tag("tool_use")]
    | Annotated[ToolResultBlock, Tag("tool_result")],
    _refusing("text, tool_use and tool_result"),
]


class Turn(Body):
    """A message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[Block], Field(min_length=1)]


class Tool(Body):
    """A function that the model may call."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    type: Annotated[Literal["custom"] | None, only("custom")] = None
    strict: bool | None = None
    cache_control: Ignored = None
    input_examples: Ignored = None
    eager_input_streaming: Ignored = None
    allowed_callers: Absent = None
    defer_loading: Annotated[Any, only(False)] = None


class ToolChoice(Body):
    """Whether and which function is to be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class CountRequest(Body):
    """The body of /v1/messages/count_tokens, and what it shares with that of /v1/messages."""

    model: str
    messages: Annotated[list[Turn], Field(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Annotated[Any, only({"type": "disabled"})] = None
    output_config: Absent = None
    cache_control: Ignored = None
    speed: Annotated[Any, only("standard")] = None
    user_profile_id: Ignored = None
    workspace_id: Ignored = None

    @property
    def goes_on(self) -> bool:
        """Whether the model is to go on with words put into its mouth."""
        return self.messages[-1].role == "assistant"

    def fields(self) -> Json:
        """The fields of the same request as a chat."""
        system = [] if self.system is None else [_said("system", _joined(self.system))]
        messages = [said for turn in self.messages for said in _messages(turn)]
        fields: Json = {"model": self.model, "messages": [*system, *messages]}
        if self.tools:
            fields["tools"] = [_function(tool) for tool in self.tools]
            fields |= _choice(self.tool_choice or ToolChoice(type="auto"))
        return fields

    def chat(self) -> ChatRequest:
        """The same request as a chat. Raises ApiError."""
        return chat_request(self.fields())


class MessageRequest(CountRequest):
    """The body of /v1/messages."""

    max_tokens: int = Field(ge=1, lt=2**31)
    stop_sequences: Annotated[list[Stop], Field(max_length=16)] | None = None
    stream: bool | None = None
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    metadata: Ignored = None
    service_tier: Ignored = None
    container: Absent = None
    mcp_servers: Absent = None
    inference_geo: Absent = None
    diagnostics: Ignored = None
    # beyond Anthropic's
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    ignore_eos: bool | None = None

    def fields(self) -> Json:
        """The fields of the same request as a chat; its stop strings are set on the way."""
        same = ("max_tokens", "temperature", "top_p", "top_k", "seed", "ignore_eos")
        return super().fields() | {name: getattr(self, name) for name in same}


def _said(role: str, content: str | None) -> Json:
    return {"role": role, "content": content}


def _joined(content: str | list[TextBlock] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(block.text for block in content)


def _messages(turn: Turn) -> list[Json]:
    """A message as the messages of a chat, where the result of each call is one of its own."""
    if isinstance(turn.content, str):
        return [_said(turn.role, turn.content)]
    text = "".join(block.text for block in turn.content if isinstance(block, TextBlock))
    calls = [_call(block) for block in turn.content if isinstance(block, ToolUseBlock)]
    results = [
        _said("tool", _joined(block.content)) | {"tool_call_id": block.tool_use_id}
        for block in turn.content
        if isinstance(block, ToolResultBlock)
    ]
    if calls:
        return [_said(turn.role, text or None) | {"tool_calls": calls}, *results]
    return [*results, _said(turn.role, text)] if text or not results else results


def _call(block: ToolUseBlock) -> Json:
    function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
    return {"id": block.id, "type": "function", "function": function}


def _function(tool: Tool) -> Json:
    inner: Json = {"name": tool.name, "parameters": tool.input_schema}
    given = {"description": tool.description, "strict": tool.strict}
    inner |= {name: value for name, value in given.items() if value is not None}
    return {"type": "function", "function": inner}


def _choice(choice: ToolChoice) -> Json:
    named = {"type": "function", "function": {"name": choice.name}}
    meant = {"auto": "auto", "any": "required", "none": "none", "tool": named}[choice.type]
    alone = choice.disable_parallel_tool_use
    return {"tool_choice": meant} | ({} if alone is None else {"parallel_tool_calls": not alone})
