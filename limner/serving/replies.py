"""The forms of replies, for the API's own description: what a client may rely on."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from limner.serving.served import Served


class Reply(BaseModel):
    """Part of a reply."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ErrorFacts(Reply):
    """What was wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(Reply):
    """Why there is no answer."""

    error: ErrorFacts


class PromptDetails(Reply):
    """Of the tokens read."""

    cached_tokens: int
    """those that earlier texts had computed"""


class Usage(Reply):
    """Tokens read and written."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class InputUsage(Reply):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class Alternative(Reply):
    """A token that might have come, with its log-probability and bytes."""

    token: str
    logprob: float
    bytes: list[int] | None


class ChatScore(Alternative):
    """A token of the answer."""

    top_logprobs: list[Alternative]


class ChatScores(Reply):
    """The tokens of an answer."""

    content: list[ChatScore] | None
    refusal: None


class FunctionCall(Reply):
    """A function that the model wants called, and its arguments as JSON."""

    name: str
    arguments: str


class ToolCall(Reply):
    """A call that the model wants made."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class ChatMessage(Reply):
    """What the model says."""

    role: Literal["assistant"]
    content: str | None
    refusal: None
    tool_calls: list[ToolCall] | None = None


FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]


class ChatChoice(Reply):
    """One of the answers."""

    index: int
    message: ChatMessage
    logprobs: ChatScores | None
    finish_reason: FinishReason


class ChatReply(Reply):
    """The reply of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextScores(Reply):
    """The tokens of a completion."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(Reply):
    """One of the completions."""

    index: int
    text: str
    logprobs: TextScores | None
    finish_reason: FinishReason


class TextReply(Reply):
    """The reply of /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class Vector(Reply):
    """The vector of one text, as numbers or as base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingReply(Reply):
    """The reply of /v1/embeddings."""

    object: Literal["list"]
    data: list[Vector]
    model: str
    usage: InputUsage


class TokenizeReply(Reply):
    """The reply of /tokenize."""

    tokens: list[int]
    count: int
    max_model_len: int


class DetokenizeReply(Reply):
    """The reply of /detokenize."""

    prompt: str


class PairScore(Reply):
    """How well two texts fit."""

    index: int
    object: Literal["score"]
    score: float


class ScoreReply(Reply):
    """The reply of /v1/score."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[PairScore]
    usage: Usage


class RankedDocument(Reply):
    """A document as it was given."""

    text: str


class Ranked(Reply):
    """A document's place in `documents`, and how well it fits."""

    index: int
    relevance_score: float
    document: RankedDocument | None = None


class RankUsage(Reply):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class RerankReply(Reply):
    """The reply of /v1/rerank, best first."""

    id: str
    model: str
    results: list[Ranked]
    usage: RankUsage


class ModelReply(Reply):
    """Something that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    kind: Literal["generate", "embed", "score"]
    """whether it writes, makes vectors, or scores pairs of texts"""
    max_model_len: int
    """the longest text in tokens, the answer included"""
    parent: str | None
    """the model that it is an adapter of, if it is one"""


class ModelsReply(Reply):
    """The reply of /v1/models."""

    object: Literal["list"]
    data: list[ModelReply]


class Deleted(Reply):
    """Something that is no more."""

    id: str
    object: str
    deleted: Literal[True] = True


class Status(Reply):
    """How the server is."""

    status: str


def describe(served: Served) -> dict[str, Any]:
    """Something that is served, as /v1/models tells of it."""
    return {
        "id": served.name, "object": "model", "created": served.created, "owned_by": "limner",
        "kind": served.kind, "max_model_len": served.longest,
        "parent": served.parent.name if served.parent else None,
    }  # fmt: skip
