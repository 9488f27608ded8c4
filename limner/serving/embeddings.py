"""Texts in, and vectors in the shape of OpenAI's embeddings.

P width of the vectors.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from limner.language_model import Embedder
from limner.serving.requests import EmbeddingRequest


def tokens_of(embedder: Embedder, name: str, body: EmbeddingRequest) -> list[list[int]]:
    """The token ids of a request's texts. Raises ValueError for what does not fit."""
    width = embedder.network.width
    if body.dimensions is not None and body.dimensions != width:
        raise ValueError(f"dimensions is {body.dimensions}, but '{name}' has {width}")
    most = body.truncate_prompt_tokens
    return [encoded(embedder, name, *one, most) for one in enumerate(body.input, 1)]


def response(
    embedder: Embedder, name: str, body: EmbeddingRequest, tokens: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """The vectors of a request's texts, given as token ids."""
    vectors = embedder.embed_tokens(tokens).float().cpu().numpy()  # (texts, P)
    packed = body.encoding_format == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": written(vector, packed)}
        for index, vector in enumerate(vectors)
    ]
    count = sum(map(len, tokens))
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": name, "usage": usage}


def written(vector: NDArray[np.float32], packed: bool) -> list[float] | str:
    """A vector (P,) as numbers, or as base64 of little-endian float32."""
    if packed:
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers


def encoded(
    embedder: Embedder, name: str, number: int, given: str | list[int], most: int | None
) -> list[int]:
    """The token ids of one input, the network's to take, shortened to `most` if that is given."""
    ids = embedder.tokenizer.encode(given) if isinstance(given, str) else given
    ids = ids if most is None else embedder.shortened(ids, most)
    if not 0 < len(ids) <= embedder.longest:
        raise ValueError(
            f"input {number} has {len(ids)} tokens, but '{name}' takes from 1 to {embedder.longest}"
        )
    if not all(0 <= token < embedder.tokenizer.vocabulary_size for token in ids):
        raise ValueError(f"input {number} holds what is no token of '{name}'")
    return ids
