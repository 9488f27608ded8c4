"""The forms of replies of responses and messages, for the API's own description."""

from __future__ import annotations

from typing import Any, Literal

from limner.serving.replies import ChatScore, Reply


class OutputText(Reply):
    """Text of a response."""

    type: Literal["output_text"]
    text: str
    annotations: list[dict[str, Any]]
    logprobs: list[ChatScore]


class OutputMessage(Reply):
    """What the model says."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Literal["in_progress", "completed", "incomplete"]
    content: list[OutputText]


class OutputCall(Reply):
    """A call that the model wants made."""

    id: str
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    status: Literal["in_progress", "completed", "incomplete"]


class ResponseError(Reply):
    """Why a response broke off."""

    code: str
    message: str


class IncompleteDetails(Reply):
    """Why a response is not whole."""

    reason: Literal["max_output_tokens", "content_filter"]


class ResponseUsage(Reply):
    """Tokens read and written."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponseReply(Reply):
    """A response."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: float | None
    status: Literal["in_progress", "completed", "incomplete", "failed"]
    model: str
    output: list[OutputMessage | OutputCall]
    error: ResponseError | None
    incomplete_details: IncompleteDetails | None
    usage: ResponseUsage | None = None
    instructions: str | None
    previous_response_id: str | None
    metadata: dict[str, str]
    temperature: float
    top_p: float
    top_logprobs: int
    max_output_tokens: int | None
    max_tool_calls: int | None
    parallel_tool_calls: bool
    store: bool
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    truncation: Literal["auto", "disabled"]
    background: bool
    conversation: None
    prompt: None
    reasoning: dict[str, Any]
    service_tier: str


class ItemsReply(Reply):
    """What the model had read for a response."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str
    last_id: str
    has_more: bool


class MessageErrorFacts(Reply):
    """What was wrong, in Anthropic's words."""

    type: str
    message: str


class MessageErrorReply(Reply):
    """Why there is no message."""

    type: Literal["error"]
    error: MessageErrorFacts
    request_id: str


class TextContent(Reply):
    """Text of a message."""

    type: Literal["text"]
    text: str


class ToolUseContent(Reply):
    """A call that the model wants made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class MessageUsage(Reply):
    """Tokens read and written."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int


class MessageReply(Reply):
    """The reply of /v1/messages."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextContent | ToolUseContent]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: MessageUsage


class CountReply(Reply):
    """The reply of /v1/messages/count_tokens."""

    input_tokens: int
