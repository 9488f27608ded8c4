"""The bodies of /v1/responses, and how they become chats."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag
from pydantic_core import PydanticCustomError

from limner.serving.answering import Json
from limner.serving.errors import ApiError
from limner.serving.requests import Absent, Body, ChatRequest, Ignored, Stop, only
from limner.serving.turns import chat_request

LOGPROBS = "message.output_text.logprobs"


class InputText(Body):
    """Text of a message: what was said to the model, or what it said itself."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: Ignored = None
    logprobs: Ignored = None


def _kind(value: Any) -> Any:
    """Name the kinds of content that this server does not take."""
    if isinstance(value, dict) and value.get("type") not in ("input_text", "output_text", "text"):
        raise PydanticCustomError(
            "unsupported_parameter",
            "content of type {kind} is not supported by this server: send text",
            {"kind": repr(value.get("type"))[:100]},
        )
    return value


Content = str | list[Annotated[InputText, BeforeValidator(_kind)]]


class MessageItem(Body):
    """A message of the conversation."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: str | None = None
    status: Ignored = None
    phase: Ignored = None


class CallItem(Body):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Ignored = None


class CallOutputItem(Body):
    """What came of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content
    id: str | None = None
    status: Ignored = None


def _item_kind(value: Any) -> str | None:
    kind = value.get("type", "message") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if isinstance(kind, str) else None


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[CallOutputItem, Tag("function_call_output")],
    Discriminator(
        _item_kind,
        custom_error_type="unsupported_parameter",
        custom_error_message="input of this type is not supported by this server, which takes "
        "message, function_call and function_call_output",
    ),
]


class TextSettings(Body):
    """What the text is to be."""

    format: dict[str, Any] | None = None
    verbosity: Annotated[Any, only("medium")] = None


class FunctionTool(Body):
    """A function that the model may call."""

    type: Annotated[Literal["function"], only("function")]
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class NamedFunction(Body):
    """The function that is to be called."""

    type: Literal["function"]
    name: str


class ResponseStreamOptions(Body):
    """What a stream tells beside the answer."""

    include_obfuscation: Ignored = None


class ResponseRequest(Body):
    """The body of /v1/responses."""

    model: str
    input: str | Annotated[list[Item], Field(min_length=1)]
    instructions: str | None = None
    previous_response_id: str | None = Field(default=None, max_length=200)
    store: bool | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    max_output_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    truncation: Literal["auto", "disabled"] | None = None
    include: list[Literal["message.output_text.logprobs"]] | None = None
    text: TextSettings | None = None
    tools: list[FunctionTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = None
    reasoning: Absent = None
    background: Annotated[Any, only(False)] = None
    conversation: Absent = None
    prompt: Absent = None
    max_tool_calls: Absent = None
    moderation: Absent = None
    context_management: Absent = None
    service_tier: Annotated[Any, only("auto", "default")] = None
    user: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    prompt_cache_options: Ignored = None
    # beyond OpenAI's
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    ignore_eos: bool | None = None

    @property
    def items(self) -> list[Json]:
        """The input as items."""
        if isinstance(self.input, str):
            return [{"type": "message", "role": "user", "content": self.input}]
        return [item.model_dump(exclude_none=True) for item in self.input]

    @property
    def wants_logprobs(self) -> bool:
        """Whether the tokens' log-probabilities are to be told."""
        return LOGPROBS in (self.include or ())

    def chat(self, messages: Sequence[Json]) -> ChatRequest:
        """The same request as a chat. Raises ApiError."""
        if self.top_logprobs and not self.wants_logprobs:
            raise ApiError(400, f"top_logprobs needs include=['{LOGPROBS}']", param="top_logprobs")
        same = (
            "model", "temperature", "top_p", "seed", "stop", "top_k", "min_p",
            "repetition_penalty", "ignore_eos", "parallel_tool_calls",
        )  # fmt: skip
        fields: Json = {name: getattr(self, name) for name in same}
        fields["messages"] = list(messages)
        fields["max_completion_tokens"] = self.max_output_tokens
        if self.wants_logprobs:
            fields |= {"logprobs": True, "top_logprobs": self.top_logprobs or 0}
        if self.tools:
            fields["tools"] = [_function(tool) for tool in self.tools]
            fields["tool_choice"] = self._choice()
        fields["response_format"] = self._format()
        return chat_request(fields)

    def _choice(self) -> Any:
        if isinstance(self.tool_choice, NamedFunction):
            return {"type": "function", "function": {"name": self.tool_choice.name}}
        return self.tool_choice

    def _format(self) -> Json | None:
        """What /v1/responses writes flat and chats write nested."""
        form = None if self.text is None else self.text.format
        if form is None or form.get("type") != "json_schema":
            return form
        inner = {name: value for name, value in form.items() if name != "type"}
        return {"type": "json_schema", "json_schema": inner}


def _function(tool: FunctionTool) -> Json:
    inner = tool.model_dump(exclude_none=True, exclude={"type"})
    return {"type": "function", "function": inner}


def messages_of(items: Iterable[Json]) -> list[Json]:
    """Items as the messages of a chat; calls that follow one another are one message's."""
    messages: list[Json] = []
    for item in items:
        if item["type"] == "message":
            messages.append({"role": item["role"], "content": _text(item["content"])})
        elif item["type"] == "function_call":
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            call = {"name": item["name"], "arguments": item["arguments"]}
            messages[-1].setdefault("tool_calls", []).append(
                {"id": item["call_id"], "type": "function", "function": call}
            )
        else:
            answer = {"tool_call_id": item["call_id"], "content": _text(item["output"])}
            messages.append({"role": "tool"} | answer)
    return messages


def _text(content: str | list[Json]) -> str:
    return content if isinstance(content, str) else "".join(part["text"] for part in content)
