"""How well texts fit: scores of pairs (vLLM's form) and rankings (Jina's and Cohere's)."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import Request, Response
from pydantic import Field

from limner.language_model import Embedder
from limner.serving.account import account
from limner.serving.answering import Json, usage
from limner.serving.embeddings import encoded
from limner.serving.reading import as_json, read_body, registry_of
from limner.serving.requests import Absent, Body, Ignored
from limner.serving.served import ServedEmbedder, ServedScorer

#: Texts of one request.
MOST = 2048

Texts = Annotated[list[str], Field(min_length=1, max_length=MOST)]
Shortened = Annotated[int | None, Field(ge=1, lt=2**31)]


class ScoreRequest(Body):
    """The body of /v1/score: one text with each of several, or each with its counterpart."""

    model: str
    text_1: str | Texts
    text_2: str | Texts
    truncate_prompt_tokens: Shortened = None
    """shorten pairs (or, for a sentence encoder, texts) to so many tokens"""
    user: Ignored = None

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs. Raises ValueError if the texts are not as many."""
        first = [self.text_1] if isinstance(self.text_1, str) else self.text_1
        second = [self.text_2] if isinstance(self.text_2, str) else self.text_2
        if len(first) == 1:
            first = first * len(second)
        if len(first) != len(second):
            raise ValueError(
                f"text_1 has {len(first)} texts and text_2 {len(second)}: give one text_1, or as "
                "many as there are in text_2"
            )
        return list(zip(first, second, strict=True))


class Document(Body):
    """A text to rank."""

    text: str


class RerankRequest(Body):
    """The body of /v1/rerank."""

    model: str
    query: str
    documents: Annotated[list[str | Document], Field(min_length=1, max_length=MOST)]
    top_n: int | None = Field(default=None, ge=1)
    """how many of the best to return; all if not given"""
    return_documents: bool | None = None
    """repeat the documents in the reply"""
    truncate_prompt_tokens: Shortened = None
    """shorten pairs (or, for a sentence encoder, texts) to so many tokens"""
    max_tokens_per_doc: Absent = None
    priority: Ignored = None
    user: Ignored = None


#: Scores of pairs, and the tokens that were read for them.
Scored = tuple[list[float], int]


async def score(request: Request) -> Response:
    """How well the texts of each pair fit."""
    body = await read_body(request, ScoreRequest)
    served = registry_of(request).ranker(body.model)
    scores, tokens = await _scored(request, served, body, body.pairs, "text_1")
    data = [
        {"index": index, "object": "score", "score": value} for index, value in enumerate(scores)
    ]
    return as_json(
        {
            "id": f"score-{secrets.token_hex(12)}",
            "object": "list",
            "created": int(time.time()),
            "model": served.name,
            "data": data,
            "usage": usage(tokens, 0),
        }
    )


async def rerank(request: Request) -> Response:
    """The documents by how well they fit a query, best first."""
    body = await read_body(request, RerankRequest)
    served = registry_of(request).ranker(body.model)
    texts = [text if isinstance(text, str) else text.text for text in body.documents]
    scores, tokens = await _scored(
        request, served, body, lambda: [(body.query, text) for text in texts], "documents"
    )
    best = sorted(range(len(texts)), key=lambda index: -scores[index])[: body.top_n]
    return as_json(
        {
            "id": f"rerank-{secrets.token_hex(12)}",
            "model": served.name,
            "results": [_ranked(body, texts, scores, index) for index in best],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _ranked(body: RerankRequest, texts: Sequence[str], scores: Sequence[float], index: int) -> Json:
    told: Json = {"index": index, "relevance_score": scores[index]}
    return told | ({"document": {"text": texts[index]}} if body.return_documents else {})


async def _scored(
    request: Request,
    served: ServedEmbedder | ServedScorer,
    body: ScoreRequest | RerankRequest,
    pairs: Callable[[], list[tuple[str, str]]],
    param: str,
) -> Scored:
    """Encode the pairs, charge their tokens, and score them."""
    most = body.truncate_prompt_tokens
    if isinstance(served, ServedScorer):
        scorer = served.scorer

        def encode() -> list[Any]:
            return [scorer.encode(*pair, truncate=most) for pair in pairs()]

        encoded = await served.prepare(body, param, encode)
        count = sum(len(ids) for ids, _ in encoded)
        account(request).read(served.name, count)
        return await served.prepare(body, param, lambda: scorer.scores(encoded)), count
    embedder = served.embedder
    ids = await served.prepare(body, param, lambda: _texts(embedder, served.name, pairs(), most))
    count = sum(len(tokens) for tokens in ids.values())
    account(request).read(served.name, count)
    wanted = pairs()
    return await served.prepare(body, param, lambda: _cosines(embedder, wanted, ids)), count


def _texts(
    embedder: Embedder, name: str, pairs: Sequence[tuple[str, str]], most: int | None
) -> dict[str, list[int]]:
    """The token ids of each text, each once. Raises ValueError for one that does not fit."""
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    return {
        text: encoded(embedder, name, number, text, most) for number, text in enumerate(texts, 1)
    }


def _cosines(
    embedder: Embedder, pairs: Sequence[tuple[str, str]], ids: dict[str, list[int]]
) -> list[float]:
    """The cosine of the vectors of each pair."""
    places = {text: place for place, text in enumerate(ids)}
    vectors = embedder.embed_tokens(list(ids.values()))
    first = vectors[[places[one] for one, _ in pairs]]
    second = vectors[[places[other] for _, other in pairs]]
    cosines: list[float] = (
        (first * second).sum(-1).div(first.norm(dim=-1) * second.norm(dim=-1)).tolist()
    )
    return cosines
