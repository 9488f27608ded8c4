"""The bodies of requests, checked whole before anything is computed.

Fields that OpenAI has and that do not change an answer are taken and have no effect. Those that ask
for what this server does not do are refused by name, and so is every unknown field.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from limner.serving.form_requests import FormFields
from limner.serving.tool_requests import Tool, ToolCall, ToolChoice

#: A stop string's longest form; the text is searched for it at every token.
Stop = Annotated[str, Field(min_length=1, max_length=1024)]


@dataclass(frozen=True)
class Only:
    """Refuse every value but None and these, naming the field."""

    allowed: tuple[Any, ...]

    def check(self, value: Any, info: ValidationInfo) -> Any:
        """The value. Raises PydanticCustomError."""
        if value is None or value in self.allowed:
            return value
        besides = f" but {self.allowed[0]!r}" if self.allowed else ""
        raise PydanticCustomError(
            "unsupported_parameter",
            "{field} is not supported by this server{besides}: leave it out",
            {"field": info.field_name, "besides": besides},
        )

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return BeforeValidator(self.check).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(schema) or {"enum": [None, *self.allowed]}


def only(*allowed: Any) -> Only:
    """Refuse every value but None and these, naming the field."""
    return Only(allowed)


Absent = Annotated[Any, only()]
"""A feature that this server does not have."""
Ignored = Any
"""Book-keeping of OpenAI's own service, without effect on an answer."""


class Body(BaseModel):
    """A request's body. Types are taken as they are: "5" is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)


class StreamOptions(Body):
    """What a stream tells beside the answer."""

    include_usage: bool | None = None
    """end with a chunk that counts the tokens"""
    include_obfuscation: Ignored = None


class SamplingBody(FormFields, Body):
    """How tokens are chosen and when the answer ends. None everywhere: the model's own default."""

    model: str
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    n: int | None = Field(default=None, ge=1, le=128)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Ignored = None
    # beyond OpenAI's, under the names that other servers of the field give them
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    stop_token_ids: Annotated[list[int], Field(max_length=64)] | None = None
    ignore_eos: bool | None = None

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> SamplingBody:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError(
                "unsupported_parameter", "stream_options is only for stream=true: leave it out"
            )
        return self

    @property
    def wants_usage(self) -> bool:
        """Whether the stream is to end with a count of its tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def options(self) -> dict[str, Any]:
        """The fields of `limner.Sampling` that were given.

        Raises ValueError, beginning with the field's name, for a bias of what is no token id.
        """
        names = (
            "temperature", "top_p", "frequency_penalty", "presence_penalty", "seed", "stop",
            "top_k", "min_p", "repetition_penalty", "ignore_eos",
        )  # fmt: skip
        given = {name: getattr(self, name) for name in names}
        given["stop_tokens"] = self.stop_token_ids
        if self.logit_bias:
            given["logit_bias"] = dict(map(_bias, self.logit_bias.items()))
        return {name: value for name, value in given.items() if value is not None}


def _bias(pair: tuple[str, float]) -> tuple[int, float]:
    """OpenAI bans a token by a bias of -100, which leaves a little chance as a mere addend."""
    token, bias = pair
    if not (token.isascii() and token.isdigit() and len(token) < 20):
        raise ValueError(f"logit_bias names tokens by their ids, and {token[:40]!r} is none")
    return int(token), -math.inf if bias == -100 else bias


class TextPart(Body):
    """A piece of a message."""

    type: Annotated[Literal["text"], only("text")]
    text: str


class Message(Body):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    """of an assistant: the functions that it called"""
    tool_call_id: str | None = None
    """of a tool: the call whose result this is"""
    function_call: Absent = None
    audio: Absent = None
    refusal: Ignored = None
    annotations: Ignored = None

    def plain(self) -> dict[str, Any]:
        """The message as chat templates read it; they know no developer but a system."""
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        role = "system" if self.role == "developer" else self.role
        plain: dict[str, Any] = {"role": role, "content": text}
        if self.name is not None:
            plain["name"] = self.name
        if self.tool_call_id is not None:
            plain["tool_call_id"] = self.tool_call_id
        if self.tool_calls:
            plain["tool_calls"] = [call.plain() for call in self.tool_calls]
        return plain


class ChatRequest(SamplingBody):
    """The body of /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    max_completion_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    chat_template_kwargs: dict[str, Any] | None = None
    tools: Annotated[list[Tool], Field(max_length=128)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: Absent = None
    function_call: Annotated[Any, only("none", "auto")] = None
    modalities: Annotated[Any, only(["text"])] = None
    audio: Absent = None
    prediction: Absent = None
    web_search_options: Absent = None
    moderation: Absent = None
    reasoning_effort: Absent = None
    verbosity: Annotated[Any, only("medium")] = None
    store: Annotated[Any, only(False)] = None
    service_tier: Annotated[Any, only("auto", "default")] = None
    metadata: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_retention: Ignored = None
    prompt_cache_options: Ignored = None

    def options(self) -> dict[str, Any]:
        """The fields of `limner.Sampling` that were given."""
        given = super().options()
        longest = self.max_completion_tokens or self.max_tokens
        if longest is not None:
            given["max_tokens"] = longest
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs=true")
        if self.logprobs:
            given["logprobs"] = self.top_logprobs or 0
        return given


def as_prompts(value: Any) -> list[str | list[int]]:
    """A prompt in any of its four forms as a list of texts and lists of token ids."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        raise ValueError("should be a text, token ids, or a list of texts or of lists of token ids")
    if all(type(item) is int for item in value):
        return [value]
    for item in value:
        ids = isinstance(item, list) and all(type(token) is int for token in item)
        if not (isinstance(item, str) or ids):
            raise ValueError("should hold texts, token ids, or lists of token ids only")
    return value


PROMPT_FORMS = [
    {"type": "string"},
    {"type": "array", "items": {"type": "string"}, "minItems": 1},
    {"type": "array", "items": {"type": "integer"}, "minItems": 1},
    {
        "type": "array",
        "items": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
        "minItems": 1,
    },
]


class CompletionRequest(SamplingBody):
    """The body of /v1/completions."""

    prompt: Annotated[
        list[str | list[int]],
        BeforeValidator(as_prompts),
        Field(max_length=2048),
        WithJsonSchema({"anyOf": PROMPT_FORMS}),
    ]
    max_tokens: int | None = Field(default=16, ge=0, lt=2**31)
    echo: bool | None = None
    logprobs: int | None = Field(default=None, ge=0, le=5)
    best_of: int | None = Field(default=None, ge=1, le=20)
    suffix: str | None = None
    """what follows the gap that is to be filled, of models that can"""
    truncate_prompt_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    """leave out the beginnings of prompts, so that so many tokens remain"""

    @property
    def answers(self) -> int:
        """Answers a prompt that are generated; the best `n` are returned."""
        return max(self.best_of or 1, self.n or 1)

    def options(self) -> dict[str, Any]:
        """The fields of `limner.Sampling` that were given; choosing needs log-probabilities."""
        given = super().options()
        if self.suffix and (self.echo or self.truncate_prompt_tokens):
            raise ValueError("suffix makes a prompt of its own: leave out echo and truncation")
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise ValueError(f"best_of is {self.best_of}, less than the n of {self.n or 1}")
        chooses = self.answers > (self.n or 1)
        if chooses and self.stream:
            raise ValueError("best_of cannot be streamed, since the best is known only at the end")
        if self.max_tokens:
            given["max_tokens"] = self.max_tokens
        if self.logprobs is not None or chooses:
            given["logprobs"] = self.logprobs or 0
        return given


class TokenizeRequest(Body):
    """The body of /tokenize: a text, or messages through the model's chat template."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    add_special_tokens: bool = True

    @model_validator(mode="after")
    def _one_of_both(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("one_of_both", "give either prompt or messages")
        return self


class DetokenizeRequest(Body):
    """The body of /detokenize."""

    model: str | None = None
    tokens: list[int]


class EmbeddingRequest(Body):
    """The body of /v1/embeddings."""

    model: str
    input: Annotated[
        list[str | list[int]],
        BeforeValidator(as_prompts),
        Field(max_length=2048),
        WithJsonSchema({"anyOf": PROMPT_FORMS}),
    ]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = Field(default=None, ge=1)
    truncate_prompt_tokens: int | None = Field(default=None, ge=1, lt=2**31)
    """shorten texts to so many tokens, at their ends"""
    user: Ignored = None
